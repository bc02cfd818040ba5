"""CUB-200-2011, the birds."""

from __future__ import annotations

import re
from pathlib import Path

from gcplib.lab.data.layouts.listing import Layout, Listing, first
from gcplib.lab.data.layouts.reading import find_folder, read_table

__all__ = ["LAYOUT"]

_TABLES = ("images", "image_class_labels", "train_test_split", "classes")


def _find(root: Path) -> Path | None:
    return find_folder(root, ("", "CUB_200_2011"), "images.txt")


def _read(root: Path) -> Listing:
    """Read CUB-200-2011.

    The coarse classes are the last words of the class names ("Black_footed_Albatross" is an albatross). That is our
    own reading: these files hold no coarse classes. A few names have odd last words ("Chuck_will_Widow").
    """
    base = _find(root) or root / "CUB_200_2011"
    if missing := [f"{name}.txt" for name in _TABLES if not (base / f"{name}.txt").is_file()]:
        raise ValueError(f"no {', '.join(missing)} here or in CUB_200_2011")
    images, labels, flags, classes = (read_table(base / f"{name}.txt") for name in _TABLES)
    if not images:
        raise ValueError("images.txt lists no images")
    for name, table in (("image_class_labels.txt", labels), ("train_test_split.txt", flags)):
        if odd := sorted(images.keys() ^ table.keys()):
            raise ValueError(f"images.txt and {name} disagree on {len(odd)} images, numbers {first(odd)}")
    if unknown := sorted(set(labels.values()) - classes.keys()):
        raise ValueError(f"image_class_labels.txt has classes that classes.txt has not: {first(unknown)}")
    if unknown := sorted(set(flags.values()) - {"0", "1"}):
        raise ValueError(f"train_test_split.txt has {first(unknown)} where 1 (train) or 0 (test) is expected")
    numbers = {key: number for number, key in enumerate(classes)}
    # "001.Black_footed_Albatross": the number orders the folders and is no part of the name.
    names = [re.sub(r"^\d+\.(?=.)", "", text).replace("_", " ") for text in classes.values()]
    return Listing(
        base,
        [f"images/{path}" for path in images.values()],
        [numbers[labels[key]] for key in images],
        ["train" if flags[key] == "1" else "test" for key in images],
        names,
        [name.split()[-1] for name in names],
    )


LAYOUT = Layout(
    _read,
    "the folder CUB_200_2011 as published (or the one around it): images.txt, image_class_labels.txt, "
    "train_test_split.txt, classes.txt and images/<class>/<image>.jpg",
    _find,
    {"CUB-200-2011": {"train": 5994, "test": 5794, "classes": 200}},
)
