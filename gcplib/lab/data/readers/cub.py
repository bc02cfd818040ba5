"""CUB-200-2011, the birds."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, first, listing_of
from gcplib.lab.data.readers.reading import find_folder, folder_with, read_table, read_tables

_MARK = {"places": ("", "CUB_200_2011"), "mark": "images.txt"}


def _read(root: Path) -> Listing:
    """Read CUB-200-2011.

    The coarse classes are the last words of the class names ("Black_footed_Albatross" is an albatross). That is our
    own reading: these files hold no coarse classes. A few names have odd last words ("Chuck_will_Widow").
    """
    base = folder_with(root, **_MARK)
    images, labels, flags = read_tables(base, "images.txt", "image_class_labels.txt", "train_test_split.txt")
    if unknown := sorted(set(flags.values()) - {"0", "1"}):
        raise ValueError(f"train_test_split.txt has {first(unknown)} where 1 (train) or 0 (test) is expected")
    rows = [(f"images/{path}", labels[key], "train" if flags[key] == "1" else "test") for key, path in images.items()]
    # "001.Black_footed_Albatross": the number orders the folders and is no part of the name.
    names = {
        key: re.sub(r"^\d+\.(?=.)", "", text).replace("_", " ")
        for key, text in read_table(base / "classes.txt").items()
    }
    return listing_of(base, rows, names, [name.split()[-1] for name in names.values()], source="classes.txt")


READER = Reader(
    _read,
    "the folder CUB_200_2011 as published (or the one around it): images.txt, image_class_labels.txt, "
    "train_test_split.txt, classes.txt and images/<class>/<image>.jpg",
    partial(find_folder, **_MARK),
    {"CUB-200-2011": {"train": 5994, "test": 5794, "classes": 200}},
    aside=("segmentations",),
)
