"""Draw many images on all cores, with a progress bar."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from gcplib.lab.data import rendering
from gcplib.lab.data.fonts import Family
from gcplib.lab.machine import cpu_count
from gcplib.lab.progress import progress_wanted

__all__ = ["draw_all", "main_hidden"]

_CHUNK = 10
# Starting processes takes longer than drawing this many images.
_FEW = 100


def draw_all(
    seed: int,
    counts: Mapping[str, int],
    families: Sequence[Family],
    pixels: int,
    progress: bool = True,
    workers: int | None = None,
) -> list[tuple[str, bytes]]:
    """Return the text and the JPEG of ``counts[split]`` images of every family, ordered by split, then family."""
    from tqdm.auto import tqdm

    tasks = [
        (seed, split, family, range(start, min(start + _CHUNK, count)), pixels)
        for split, count in counts.items()
        for family in families
        for start in range(0, count, _CHUNK)
    ]
    total = sum(counts.values()) * len(families)
    if workers is None:
        workers = 1 if total < _FEW else cpu_count()
    results: list[list[tuple[str, bytes]]] = [[] for _ in tasks]
    hidden = not (progress and progress_wanted())
    with tqdm(total=total, desc="Rendering Typefaces", unit=" images", disable=hidden) as bar:
        if workers <= 1:
            for place, task in enumerate(tasks):
                results[place] = rendering.draw_images(*task)
                bar.update(len(results[place]))
        else:
            pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
            try:
                with main_hidden():
                    futures = {pool.submit(rendering.draw_images, *task): place for place, task in enumerate(tasks)}
                for future in as_completed(futures):
                    place = futures[future]
                    results[place] = future.result()
                    bar.update(len(results[place]))
            finally:
                pool.shutdown(cancel_futures=True)
    return [image for result in results for image in result]


@contextlib.contextmanager
def main_hidden() -> Iterator[None]:
    """Let processes start, as tasks are submitted to a pool, that do not run the user's script again.

    ``spawn`` imports the main module in every process; a script without a main guard would do all its work over and
    over. The workers need nothing of it, so it is hidden while they start.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
