"""Draw many images on all cores, with a progress bar."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from gcplib.lab.data import rendering
from gcplib.lab.machine import cpu_count
from gcplib.lab.progress import track

__all__ = ["draw_all", "main_hidden"]

_CHUNK = 10
# Starting processes takes longer than drawing this many images of 224 px.
_FEW = 400


def draw_all(tasks: Sequence[tuple], workers: int | None = None) -> list[tuple[str, bytes]]:
    """Return what ``rendering.draw_image`` makes of the arguments in each of ``tasks``, in their order."""
    workers = workers or (1 if len(tasks) < _FEW else cpu_count())
    with contextlib.ExitStack() as stack:
        if workers == 1:
            images: Iterator[tuple[str, bytes]] = (rendering.draw_image(*task) for task in tasks)
        else:
            pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
            stack.callback(pool.shutdown, cancel_futures=True)
            with main_hidden():
                images = pool.map(rendering.draw_image, *zip(*tasks, strict=True), chunksize=_CHUNK)
        return list(track(images, "Rendering Typefaces", len(tasks), " images"))


@contextlib.contextmanager
def main_hidden() -> Iterator[None]:
    """Hide the main module while processes start, which would import it.

    They need nothing of it, and a script without a main guard would load the set over and over.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
