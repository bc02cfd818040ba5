"""A split for data sets that have none: drawn by a seed, of every class alike, with copies of a file on one side."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace

import numpy as np

from gcplib.lab.data.readers.listing import UNDECIDED, Listing

__all__ = ["copies", "split_off"]

# One image of every class for training, validation and test.
_FEWEST = 3


def split_off(listing: Listing, test: float, seed: int) -> Listing:
    """Return the listing with a split for every image that has none: ``train``, or ``test`` for a fraction.

    Args:
        listing: as a reader made it.
        test: the fraction of every class, at least one image and never all.
        seed: which.

    Raises:
        ValueError: a class has too few images, or too few that are not copies of each other.
    """
    if UNDECIDED not in listing.splits:
        return listing
    classes, splits = np.array(listing.classes), np.full(len(listing.paths), UNDECIDED, dtype="U10")
    same: dict[int, list[int]] = {}
    for rows in copies(listing):
        same |= dict.fromkeys(rows, rows)
    for number, name in enumerate(listing.names):
        places = np.flatnonzero(classes == number)
        if len(places) < _FEWEST:
            raise ValueError(
                f"the class {name!r} has {len(places)} image{'s' * (len(places) > 1)}, and training, validation and "
                "test need one each; add images, or take its folder or lines away"
            )
        target = min(max(round(test * len(places)), 1), len(places) - 2)
        held = np.sum(splits[places] == "test")  # copies of images of other classes
        # A generator for each class, and another than the one that holds out validation images.
        for place in np.random.default_rng([seed, number, 1]).permutation(places):
            # Copies under other classes have gone to one side with the first of them.
            if splits[place] == UNDECIDED:
                rows = same.get(int(place), [int(place)])
                inside = sum(classes[row] == number for row in rows)
                fits = held + inside <= target
                splits[rows] = "test" if fits else "train"
                held += inside * fits
        if held < 1 or len(places) - held < 2:
            raise ValueError(
                f"the class {name!r} has too few images that are no copies of each other to have some for both "
                "training and test; add images, or take its folder or lines away"
            )
    return replace(listing, splits=splits.tolist())


def copies(listing: Listing) -> list[list[int]]:
    """Return the places of images whose files are equal, byte by byte, in groups of two and more.

    Only files of equal size are read. Missing ones are left to who looks for them.
    """
    sizes, groups = defaultdict(list), defaultdict(list)
    for row, path in enumerate(listing.paths):
        with suppress(OSError):
            sizes[os.stat(listing.base / path).st_size].append(row)
    for rows in sizes.values():
        for row in rows if len(rows) > 1 else ():
            with suppress(OSError), open(listing.base / listing.paths[row], "rb") as file:
                groups[hashlib.file_digest(file, "sha256").digest()].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]
