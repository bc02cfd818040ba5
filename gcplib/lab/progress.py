"""One progress bar for everything that takes long."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LOG_INTERVAL = 30.0  # seconds between two lines where nobody watches

_depth, _cell = 0, None  # of bars within bars, and the cell of a notebook that they are in


def duration(seconds: float | None) -> str:
    """Return a time as a person says it: ``42 s``, ``3 min 05 s``, ``1 h 20 min``; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    """Return ``1 job`` or ``3 jobs``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def progress_wanted() -> bool:
    """Whether to show progress bars; ``GCPLIB_PROGRESS=0`` hides them, as the headless study does."""
    return os.environ.get("GCPLIB_PROGRESS", "1") != "0"


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, and not one that has imported it."""
    return hasattr(_shell(), "kernel")


def _shell() -> object:
    ipython = sys.modules.get("IPython")
    return ipython and ipython.get_ipython()


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield ``items`` behind a progress bar with the time that remains.

    Where ``GCPLIB_STATUS`` names a file, it holds the state of the outermost bar as one line, for whoever started
    this process and wants to show how far it is. Bars within a bar say nothing about the whole: a log and a notebook
    have none, and a bar of one item is left out, so that the one within it counts. Done, a notebook keeps none.
    """
    from tqdm.auto import tqdm
    from tqdm.notebook import tqdm_notebook

    global _depth, _cell
    if (total or (len(items) if isinstance(items, Sized) else None)) == 1:
        yield from items
        return
    if (cell := getattr(_shell(), "execution_count", None)) != _cell:
        _depth, _cell = 0, cell  # an error shown keeps its bars alive, which then hold none of the next cell
    status = os.environ.get("GCPLIB_STATUS") if _depth == 0 else None
    log = not sys.stderr.isatty() and not in_notebook()
    shown = progress_wanted() and not (_depth and (log or in_notebook()))
    options = {"mininterval": LOG_INTERVAL, "miniters": 1} if log else {"leave": not (in_notebook() or _depth)}
    widget = shown and in_notebook() and issubclass(tqdm, tqdm_notebook)
    options |= {"display": False} if widget else {}
    start, _depth = time.monotonic(), _depth + 1
    try:
        with tqdm(items, desc=description, total=total, unit=unit, disable=not shown, **options) as bar:
            if widget:  # then tqdm has imported IPython, which nobody without a notebook needs
                output = sys.modules["IPython.display"].display(bar.container, display_id=True)
            for done, item in enumerate(bar):
                if status:
                    seconds = (time.monotonic() - start) / done * (bar.total - done) if done and bar.total else None
                    left = "" if seconds is None else f", about {seconds:.0f} s left"
                    Path(status).write_text(f"{description}: {done} of {bar.total or '?'} done{left}")
                yield item
        if widget:  # or the notebook, loaded again, would say that it finds no widget here
            output.update({"text/plain": ""}, raw=True)
    finally:
        _depth -= cell == _cell
        if status:
            Path(status).unlink(missing_ok=True)
