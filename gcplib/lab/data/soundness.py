"""Every image of a listing is decoded once; what was found is remembered by the names and sizes of the files."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from gcplib.decoding import DECODER, problem
from gcplib.lab.data.readers import Listing
from gcplib.lab.data.readers.listing import file_sizes
from gcplib.lab.files import cache_dir, digest, locked, write_json
from gcplib.lab.machine import cpu_count
from gcplib.lab.progress import track

__all__ = ["corrupt_images", "known_corrupt"]

_BATCH = 32


def known_corrupt(listing: Listing) -> dict[str, str]:
    """Return why images cannot be decoded, by path; they are decoded only if that was not done before.

    That some are corrupt is remembered as well, until one of these is written anew.
    """
    record, damaged = _record(listing, "checked"), _record(listing, "corrupt")
    # Of several runs that start together, one checks and the others wait for what it finds.
    with locked(record):
        if record.is_file():
            return {}
        if damaged.is_file():
            known = json.loads(damaged.read_text(encoding="utf-8"))
            if all(_written(listing, path) == written for path, (_, written) in known.items()):
                return {path: reason for path, (reason, _) in known.items()}
        corrupt = corrupt_images(listing)
        if corrupt:
            write_json(damaged, {path: [reason, _written(listing, path)] for path, reason in corrupt.items()})
        return corrupt


def corrupt_images(
    listing: Listing, missing: Sequence[str] = (), look: Callable[[str, Image.Image], None] | None = None
) -> dict[str, str]:
    """Decode images and return why some cannot be, by path; remember it if none is corrupt or missing.

    Args:
        listing: the images.
        missing: paths of those that are not there.
        look: called with the path and every image that can be decoded, in several threads.
    """
    gone = set(missing)
    paths = [path for path in listing.paths if path not in gone]

    def reason(path: str) -> str | None:
        place = listing.base / path
        return problem(place) if look is None else problem(place, lambda image: look(path, image))

    # Some at a time: a million futures would take a gigabyte, and one for each image is slower.
    batches = (paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH))
    pool = ThreadPoolExecutor(cpu_count())
    try:
        found = pool.map(lambda batch: [reason(path) for path in batch], batches)
        reasons = track(itertools.chain.from_iterable(found), "Checking images", total=len(paths), unit=" images")
        corrupt = {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}
    finally:
        # Who interrupts a check of a million images does not wait for the rest.
        pool.shutdown(cancel_futures=True)
    if not (missing or corrupt):
        write_json(_record(listing, "checked"), {"images": len(paths), "corrupt": 0})
    return corrupt


def _record(listing: Listing, kind: str) -> Path:
    files = list(zip(listing.paths, file_sizes(listing), strict=True))
    return cache_dir() / f"{kind}-{digest({'files': files, 'reader': DECODER})}.json"


def _written(listing: Listing, path: str) -> int:
    return os.stat(listing.base / path).st_mtime_ns
