"""ELPV: solar cells in electroluminescence images."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import find_folder, read_lines

# A line of the table: an image, the probability of a defect, and the kind of cell.
_LINE = re.compile(r"(\S+)\s+(\d(?:\.\d+)?)\s+(mono|poly)")
_NAMES = {"0.00": "0 %", "0.33": "33 %", "0.67": "67 %", "1.00": "100 %"}
_GROUPS = ["functional", "functional", "defective", "defective"]


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
    cells = {}
    for number, line in read_lines(base / "labels.csv"):
        found = _LINE.fullmatch(line)
        label = f"{float(found[2]):.2f}" if found else ""
        if label not in _NAMES:
            raise ValueError(
                f"labels.csv, line {number}: {line!r} should be a path, a probability (0, 1/3, 2/3 or 1) and mono or "
                "poly, with spaces between"
            )
        cells[found[1]] = label, found[3]
    # In each class and kind of cell in turn, every fourth is for test, and counting goes on from one to the next, so
    # that the fractions are right in sum. A hash of the names shuffles them: no order of the table, no release of a
    # library and no seed changes it.
    order = sorted(cells, key=lambda path: (*cells[path], hashlib.sha256(Path(path).name.encode()).digest()))
    test = set(order[3::4])
    rows = [(path, label, "test" if path in test else "train") for path, (label, _) in cells.items()]
    return listing_of(base, rows, _NAMES, _GROUPS)


READER = Reader(
    _read,
    "labels.csv (a path, a defect probability and mono or poly on every line) and images/<image>.png; with an empty "
    "root, those of the package elpv-dataset",
    _find,
    {"ELPV": {"images": 2624, "classes": 4}},
    _installed,
)
