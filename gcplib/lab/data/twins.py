"""Images that are in a data set twice: equal files, and such that look alike; across splits, or under two labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gcplib.lab.data.readers import Listing
from gcplib.lab.data.readers.splitting import copies

__all__ = ["Twins", "find_twins", "fingerprint"]

# Bits of 64 in which hashes of images that look alike may differ. Of 15,468 photographs of birds, cars, groceries
# and scenes, all pairs looked at up to 4 were of one moment; at 6, cars and birds that stand alike begin to come in.
_NEAR = 4
_BITS = 64
# Of images that hardly vary (in standard deviations of 0 to 255), a hash of their frequencies tells noise.
_PLAIN = 4


@dataclass(frozen=True)
class Twins:
    """Two images that are one."""

    paths: tuple[str, str]
    equal: bool  # byte by byte; otherwise they look alike
    splits: tuple[str, str] | None  # where they differ
    labels: tuple[str, str] | None  # where they differ

    def __str__(self) -> str:
        differ = [" and ".join(names) for names in (self.splits, self.labels) if names]
        return f"{self.paths[0]} {'equals' if self.equal else 'looks like'} {self.paths[1]} ({'; '.join(differ)})"


def fingerprint(image: Image.Image) -> int | None:
    """Return 64 bits that tell an image, from its lowest frequencies in gray, or None where it has too few shades."""
    from imagehash import phash

    small = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    if np.asarray(small).std() < _PLAIN:
        return None
    return int.from_bytes(np.packbits(phash(image).hash).tobytes(), "big")


def find_twins(listing: Listing, marks: Mapping[str, int]) -> list[Twins]:
    """Return pairs of images that are one, if they are in different splits or classes; equal files first.

    Args:
        listing: the images.
        marks: what ``fingerprint`` gives of them, by path.
    """
    exact = [pair for rows in copies(listing) for pair in itertools.combinations(rows, 2)]
    known = set(exact)
    rows = [row for row, path in enumerate(listing.paths) if path in marks]
    hashes = np.array([marks[listing.paths[row]] for row in rows], dtype=np.uint64)
    near = sorted((rows[i], rows[j]) for i, j in near_pairs(hashes))
    return [
        *_told(listing, exact, True),
        *_told(listing, (pair for pair in near if pair not in known), False),
    ]


def _told(listing: Listing, pairs: Iterable[tuple[int, int]], equal: bool) -> Iterator[Twins]:
    for i, j in pairs:
        splits = listing.splits[i], listing.splits[j]
        labels = listing.names[listing.classes[i]], listing.names[listing.classes[j]]
        splits, labels = (names if names[0] != names[1] else None for names in (splits, labels))
        if splits or labels:
            yield Twins((listing.paths[i], listing.paths[j]), equal, splits, labels)


def near_pairs(hashes: np.ndarray, most: int = _NEAR) -> set[tuple[int, int]]:
    """Return the pairs of places, the lower first, whose hashes differ in at most ``most`` bits.

    Two such hashes are equal in one of ``most + 1`` bands of bits, so that only those are compared: (n,) uint64.

    >>> near_pairs(np.array([0, 1, 2**64 - 1], dtype=np.uint64))
    {(0, 1)}
    """
    edges = np.linspace(0, _BITS, most + 2).astype(int)
    found: set[tuple[int, int]] = set()
    for low, high in itertools.pairwise(edges.tolist()):
        band = (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
        order = np.argsort(band, kind="stable")
        ends = np.flatnonzero(np.diff(band[order])) + 1
        for group in np.split(order, ends):
            for place, one in enumerate(group[:-1]):
                others = group[place + 1 :]
                differing = np.unpackbits((hashes[one] ^ hashes[others])[:, None].view(np.uint8), axis=1).sum(axis=1)
                near = others[differing <= most]
                found.update((int(one), int(other)) for other in near)
    return found
