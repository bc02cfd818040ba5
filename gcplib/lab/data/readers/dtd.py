"""DTD, the Describable Textures Dataset."""

from __future__ import annotations

from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import find_folder, folder_with, read_lines

_PLACES = ("", "dtd", "dtd/dtd")  # the last is where torchvision puts it
_LISTS = {"train1": "train", "val1": "validation", "test1": "test"}


def _find(root: Path) -> Path | None:
    base = find_folder(root, _PLACES, "labels/train1.txt")
    return base if base and (base / "images").is_dir() else None


def _read(root: Path) -> Listing:
    """Read DTD, the first of its ten splits, which has validation images of its own. There are no coarse classes."""
    base = folder_with(root, _PLACES, "labels/train1.txt")
    rows = []
    for part, split in _LISTS.items():
        for number, line in read_lines(base / "labels" / f"{part}.txt"):
            texture, slash, image = line.partition("/")
            if not (texture and slash and image):
                raise ValueError(f"{part}.txt, line {number}: {line!r} should be <class>/<image>.jpg")
            rows.append((f"images/{line}", texture, split))
    return listing_of(base, rows, {name: name for name in sorted({name for _, name, _ in rows})})


READER = Reader(
    _read,
    "DTD as published, here or in dtd/: labels/train1.txt, labels/val1.txt, labels/test1.txt and "
    "images/<class>/<image>.jpg",
    _find,
    {"DTD, split 1": {"train": 1880, "validation": 1880, "test": 1880, "classes": 47}},
)
