"""Grocery Store: fruit, vegetables and cartons on the shelves of shops."""

from __future__ import annotations

import csv
from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import ENCODING, existing, find_folder, folder_with, read_lines

_PLACES = ("", "dataset", "GroceryStoreDataset/dataset")
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_FINE, _COARSE, _NUMBER = "Class Name (str)", "Coarse Class Name (str)", "Class ID (int)"


def _find(root: Path) -> Path | None:
    base = find_folder(root, _PLACES, "classes.csv")
    return base if base and (base / "train.txt").is_file() and _NUMBER in _header(base / "classes.csv") else None


def _header(path: Path) -> str:
    return next((line for _, line in read_lines(path)), "")


def _read(root: Path) -> Listing:
    """Read Grocery Store: the fine classes are products ("Granny-Smith"), the coarse ones their kinds ("Apple").

    It has validation images of its own.
    """
    base = folder_with(root, _PLACES, "classes.csv")
    with open(existing(base / "classes.csv"), newline="", encoding=ENCODING) as file:
        classes = list(csv.DictReader(file))
    if not classes or not {_FINE, _COARSE, _NUMBER} <= classes[0].keys():
        raise ValueError(f"classes.csv should have the columns {_FINE!r}, {_NUMBER!r} and {_COARSE!r}")
    names = {row[_NUMBER].strip(): row[_FINE].strip() for row in classes}
    rows = []
    for part, split in _SPLITS.items():
        for number, line in read_lines(base / f"{part}.txt"):
            values = [value.strip() for value in line.rsplit(",", 2)]
            if len(values) != 3:
                raise ValueError(f"{part}.txt, line {number}: {line!r} should be a path, a fine and a coarse label")
            rows.append((values[0], values[1], split))
    return listing_of(base, rows, names, [row[_COARSE].strip() for row in classes], source="classes.csv")


READER = Reader(
    _read,
    "the folder dataset of the Grocery Store data set (or the one around it): classes.csv, train.txt, val.txt and "
    "test.txt with a path, a fine and a coarse label in every line, and the images that they name",
    _find,
    {"Grocery Store": {"train": 2640, "validation": 296, "test": 2485, "classes": 81}},
    aside=("iconic-images-and-descriptions",),
)
