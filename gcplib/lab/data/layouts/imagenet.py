"""ImageNet, ILSVRC 2012."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from gcplib.lab.data.layouts.listing import Layout, Listing, first
from gcplib.lab.data.layouts.reading import flat_classes, read_table, scan

__all__ = ["LAYOUT"]

_LABELS, _NAMES = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
_WNID = re.compile(r"n\d{8}")


def _find(root: Path) -> Path | None:
    for place in ("", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC"):
        train = root / place / "train"
        if train.is_dir() and any(_WNID.fullmatch(name) for name in scan(train)[0]):
            return root / place
    return None


def _read(root: Path) -> Listing:
    """Read ImageNet. Its validation images are the test images here, because the labels of its own are secret.

    The classes are in the order of their WordNet numbers, as everywhere. A class is called by its first synonym; where
    two share it ("crane"), the number is added. There are no coarse classes.
    """
    base = _find(root)
    if base is None:
        raise ValueError("no train/ with folders such as n01440764 here or in ILSVRC/Data/CLS-LOC/")
    train = flat_classes(base, "train")
    test = _test(base)
    wnids = sorted({*train, *test})
    numbers = {wnid: number for number, wnid in enumerate(wnids)}
    rows = [
        (path, numbers[wnid], split)
        for split, tree in (("train", train), ("test", test))
        for wnid, paths in tree.items()
        for path in paths
    ]
    paths, classes, splits = map(list, zip(*rows, strict=True))
    return Listing(base, paths, classes, splits, _names(base, wnids), None)


def _test(base: Path) -> dict[str, list[str]]:
    """Return the images of ``val`` by class: from its folders, or from the table of labels if it has none."""
    if not (base / "val").is_dir():
        raise ValueError("no folder val/")
    folders, images = scan(base / "val")
    if folders or not images:
        return flat_classes(base, "val")
    table = _beside(base, _LABELS)
    if table is None:
        raise ValueError(
            f"val/ has {len(images)} images outside class folders, and there is no {_LABELS} to tell their "
            "classes; put that file beside train/ and val/, or move the images into val/<wnid>/"
        )
    found: dict[str, list[str]] = {}
    with open(table, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            answer = (row.get("PredictionString") or "").split()
            if not (row.get("ImageId") and answer):
                raise ValueError(f"{_LABELS}, line {number}: an ImageId and a PredictionString are expected")
            found.setdefault(answer[0], []).append(f"val/{row['ImageId']}.JPEG")
    listed = {path for paths in found.values() for path in paths}
    if unknown := [name for name in images if f"val/{name}" not in listed]:
        raise ValueError(f"{len(unknown)} images of val/ are not in {_LABELS}: {first(unknown)}")
    return found


def _names(base: Path, wnids: list[str]) -> list[str]:
    file = _beside(base, _NAMES)
    if file is None:
        return wnids
    table = read_table(file)
    if unknown := [wnid for wnid in wnids if wnid not in table]:
        raise ValueError(f"{_NAMES} has no names for {len(unknown)} classes: {first(unknown)}")
    short = {wnid: table[wnid].split(",")[0].strip() for wnid in wnids}
    shared = Counter(short.values())
    return [short[wnid] if shared[short[wnid]] == 1 else f"{short[wnid]} ({wnid})" for wnid in wnids]


def _beside(base: Path, name: str) -> Path | None:
    """Return a file that lies beside ``train``, or, in Kaggle's layout, beside the folder ILSVRC."""
    places = (base, base.parents[2]) if base.name == "CLS-LOC" and len(base.parents) > 2 else (base,)
    return next((place / name for place in places if (place / name).is_file()), None)


LAYOUT = Layout(
    _read,
    "train/<wnid>/<image>.JPEG and val/<wnid>/<image>.JPEG, or Kaggle's ILSVRC/Data/CLS-LOC/ with a flat val/ and "
    f"{_LABELS}; {_NAMES} gives the classes names",
    _find,
    {"ImageNet (ILSVRC 2012)": {"train": 1281167, "test": 50000, "classes": 1000}},
)
