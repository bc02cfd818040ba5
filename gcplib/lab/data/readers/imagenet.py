"""ImageNet, ILSVRC 2012."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, first, listing_of
from gcplib.lab.data.readers.reading import ENCODING, find_folder, flat_classes, read_table, rows_of, scan

_LABELS, _NAMES = "LOC_val_solution.csv", "LOC_synset_mapping.txt"


def _find(root: Path) -> Path | None:
    for base in (root, root / "Data/CLS-LOC", root / "ILSVRC/Data/CLS-LOC"):
        if (base / "train").is_dir() and any(re.fullmatch(r"n\d{8}", name) for name in scan(base / "train")[0]):
            return base
    return None


def _read(root: Path) -> Listing:
    """Read ImageNet. Its validation images are the test images here, because the labels of its own are secret.

    The classes are in the order of their WordNet numbers, as everywhere. A class is called by its first synonym; where
    two share it ("crane"), the number is added. There are no coarse classes.
    """
    base = _find(root)
    if base is None:
        raise ValueError("no train/ with folders such as n01440764 here or in ILSVRC/Data/CLS-LOC/")
    trees = {"train": flat_classes(base, "train"), "test": _test(base)}
    return listing_of(base, rows_of(trees), _names(base, sorted({*trees["train"], *trees["test"]})))


def _test(base: Path) -> dict[str, list[str]]:
    """Return the images of ``val`` by class: from its folders, or from the table of labels if it has none."""
    if not (base / "val").is_dir():
        raise ValueError("no folder val/")
    folders, images = scan(base / "val")
    if folders or not images:
        return flat_classes(base, "val")
    table = find_folder(base, _places(base), _LABELS)
    if table is None:
        raise ValueError(
            f"val/ has {len(images)} images outside class folders, and there is no {_LABELS} to tell their "
            "classes; put that file beside train/ and val/, or move the images into val/<wnid>/"
        )
    found: dict[str, list[str]] = {}
    with open(table / _LABELS, newline="", encoding=ENCODING) as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            answer = (row.get("PredictionString") or "").split()
            if not (row.get("ImageId") and answer):
                raise ValueError(f"{_LABELS}, line {number}: an ImageId and a PredictionString are expected")
            found.setdefault(answer[0], []).append(f"val/{row['ImageId']}.JPEG")
    listed = {path for paths in found.values() for path in paths}
    if unknown := [name for name in images if f"val/{name}" not in listed]:
        raise ValueError(f"{len(unknown)} images of val/ are not in {_LABELS}: {first(unknown)}")
    return found


def _names(base: Path, wnids: list[str]) -> dict[str, str]:
    folder = find_folder(base, _places(base), _NAMES)
    if folder is None:
        return dict(zip(wnids, wnids, strict=True))
    table = read_table(folder / _NAMES)
    if unknown := [wnid for wnid in wnids if wnid not in table]:
        raise ValueError(f"{_NAMES} has no names for {len(unknown)} classes: {first(unknown)}")
    short = {wnid: table[wnid].split(",")[0].strip() for wnid in wnids}
    shared = Counter(short.values())
    return {wnid: name if shared[name] == 1 else f"{name} ({wnid})" for wnid, name in short.items()}


def _places(base: Path) -> tuple[str, ...]:
    """Where tables may lie: beside ``train``, or, in Kaggle's archive, beside the folder ILSVRC."""
    return ("", "../../..") if base.name == "CLS-LOC" else ("",)


READER = Reader(
    _read,
    "train/<wnid>/<image>.JPEG and val/<wnid>/<image>.JPEG, or Kaggle's ILSVRC/Data/CLS-LOC/ with a flat val/ and "
    f"{_LABELS}; {_NAMES} gives the classes names",
    _find,
    {"ImageNet (ILSVRC 2012)": {"train": 1281167, "test": 50000, "classes": 1000}},
    aside=("test",),
)
