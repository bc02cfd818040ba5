"""ELPV: solar cells in electroluminescence images."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from gcplib.lab.data.layouts.listing import Layout, Listing
from gcplib.lab.data.layouts.reading import find_folder

__all__ = ["LAYOUT"]

_CLASSES = ("0 %", "33 %", "67 %", "100 %")
_CELLS = ("mono", "poly")
_NTH = 4


def _find(root: Path) -> Path | None:
    base = find_folder(root, ("", "data", "src/elpv_dataset/data"), "labels.csv")
    return base if base and (base / "images").is_dir() else None


def _installed() -> Path:
    """Return the data of the installed package, which is looked for and not imported: it would decode nothing yet.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(
            "the data set 'elpv' has no root, and the package with its images is not installed; run "
            "`pip install elpv-dataset`, or give the folder that holds labels.csv and images/"
        )
    return Path(found.submodule_search_locations[0]) / "data"


def _read(root: Path) -> Listing:
    """Read ELPV: the fine classes are the four defect probabilities, the coarse ones functional (below 50 %) or not.

    No split is published. Ours is the same everywhere: a quarter of the images is for test, as in the paper of the
    data set (Deitsch and others, 2019), with the same share of every class and kind of cell. Cells of one module may
    be on both sides, because the files do not say which module a cell is from.
    """
    base = _find(root)
    if base is None:
        raise ValueError("no labels.csv with images/ beside it here, in data/ or in src/elpv_dataset/data/")
    paths, classes, cells = [], [], []
    for number, line in enumerate((base / "labels.csv").read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split()
        label = _label(parts[1]) if len(parts) == 3 else None
        if label is None or parts[2] not in _CELLS:
            raise ValueError(
                f"labels.csv, line {number}: {line!r} should be a path, a probability (0, 1/3, 2/3 or 1) and mono or "
                "poly, with spaces between"
            )
        paths.append(parts[0])
        classes.append(label)
        cells.append(parts[2])
    if not paths:
        raise ValueError("labels.csv lists no images")
    groups = ["functional", "functional", "defective", "defective"]
    return Listing(base, paths, classes, _split(paths, classes, cells), list(_CLASSES), groups)


def _label(text: str) -> int | None:
    """Return the number of a probability's class: how many thirds it is."""
    try:
        thirds = 3 * float(text)
        label = round(thirds)
    except (ValueError, OverflowError):
        return None
    return label if label in range(4) and abs(thirds - label) < 0.01 else None


def _split(paths: list[str], classes: list[int], cells: list[str]) -> list[str]:
    """Return the split of every image: in each class and kind of cell in turn, every fourth is for test.

    The images of a class and kind are shuffled by a hash of their names, which no order of the table, no release of
    a library and no seed changes. Counting goes on from one class to the next, so that the shares are right in sum.
    """

    def shuffled(place: int) -> tuple[int, str, bytes]:
        return classes[place], cells[place], hashlib.sha256(Path(paths[place]).name.encode()).digest()

    splits = ["train"] * len(paths)
    for place in sorted(range(len(paths)), key=shuffled)[_NTH - 1 :: _NTH]:
        splits[place] = "test"
    return splits


LAYOUT = Layout(
    _read,
    "labels.csv (a path, a defect probability and mono or poly on every line) and images/<image>.png; with an empty "
    "root, those of the package elpv-dataset",
    _find,
    {"ELPV": {"images": 2624, "classes": 4}},
    _installed,
)
