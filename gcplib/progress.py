"""One progress bar for everything that takes long."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["progress_wanted", "track"]

T = TypeVar("T")


def progress_wanted() -> bool:
    """Whether to show progress bars; ``GCPLIB_PROGRESS=0`` hides them, as the headless study does."""
    return os.environ.get("GCPLIB_PROGRESS", "1") != "0"


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield ``items`` behind a progress bar with the time that remains.

    Where ``GCPLIB_STATUS`` names a file, the state is also appended there, a line an item, for whoever started
    this process and wants to show how far it is.
    """
    from tqdm.auto import tqdm

    status = os.environ.get("GCPLIB_STATUS")
    with tqdm(items, desc=description, total=total, unit=unit, disable=not progress_wanted()) as bar:
        for done, item in enumerate(bar):
            if status:
                with open(status, "a") as file:
                    file.write(f"{description}: {done} of {bar.total or '?'}\n")
            yield item
