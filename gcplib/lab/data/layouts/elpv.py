"""ELPV: solar cells in electroluminescence images."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from gcplib.lab.data.layouts.listing import Layout, Listing, listing_of
from gcplib.lab.data.layouts.reading import find_folder, read_lines

_CLASSES = ("0 %", "33 %", "67 %", "100 %")
_GROUPS = ("functional", "functional", "defective", "defective")
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
    data set (Deitsch and others, 2019), with the same fraction of every class and kind of cell. Cells of one module may
    be on both sides, because the files do not say which module a cell is from.
    """
    base = _find(root)
    if base is None:
        raise ValueError("no labels.csv with images/ beside it here, in data/ or in src/elpv_dataset/data/")
    cells = []
    for number, line in read_lines(base / "labels.csv"):
        path, *rest = line.split()
        label = _label(rest[0]) if len(rest) == 2 else None
        if label is None or rest[1] not in _CELLS:
            raise ValueError(
                f"labels.csv, line {number}: {line!r} should be a path, a probability (0, 1/3, 2/3 or 1) and mono or "
                "poly, with spaces between"
            )
        cells.append((path, label, rest[1]))
    # In each class and kind of cell in turn, every fourth is for test, and counting goes on from one to the next, so
    # that the fractions are right in sum. A hash of the names shuffles them: no order of the table, no release of a
    # library and no seed changes it.
    order = sorted(cells, key=lambda c: (c[1], c[2], hashlib.sha256(Path(c[0]).name.encode()).digest()))
    test = {path for path, *_ in order[_NTH - 1 :: _NTH]}
    rows = [(path, label, "test" if path in test else "train") for path, label, _ in cells]
    return listing_of(base, rows, dict(enumerate(_CLASSES)), list(_GROUPS))


def _label(text: str) -> int | None:
    """Return the number of a probability's class: how many thirds it is."""
    try:
        thirds = 3 * float(text)
        label = round(thirds)
    except (ValueError, OverflowError):
        return None
    return label if label in range(4) and abs(thirds - label) < 0.01 else None


LAYOUT = Layout(
    _read,
    "labels.csv (a path, a defect probability and mono or poly on every line) and images/<image>.png; with an empty "
    "root, those of the package elpv-dataset",
    _find,
    {"ELPV": {"images": 2624, "classes": 4}},
    _installed,
)
