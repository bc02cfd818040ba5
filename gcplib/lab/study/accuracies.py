"""Kept accuracies of the probes, of all sets of images in one table."""

from __future__ import annotations

import csv
from pathlib import Path

from gcplib.lab.markdown import table

__all__ = ["accuracies"]


def accuracies(folder: Path, images: list[str]) -> list[str]:
    """Return a table of what probes read, from ``probes@IMAGES.csv`` of a folder; nothing where there is none.

    Pools of second order are shown with as many channels as there are, up to those of the widest probe. The best of
    first and the best of second order, of what is shown, are bold.
    """
    kept = {name: _read(path) for name in images if (path := folder / f"probes@{name}.csv").is_file()}
    if not kept:
        return []
    keys = sorted({key for rows in kept.values() for key in rows}, key=_place)
    lines = [
        (what, stage.replace("stride", "stride "), *(_cell(rows.get((what, stage))) for rows in kept.values()))
        for what, stage in keys
    ]
    about = (
        "Frozen EfficientNet-Lite0, test accuracy in % with its 95 % interval over seeds and images, at the widest of "
        "64 and 128 channels that a stage has; the best of first and of second order are bold. Every width, length, "
        "cost and setting is in `data/evidence/probes@*.csv`."
    )
    return ["## What probes of a frozen network read", about, table(["probe", "of", *kept], lines)]


def _read(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of a table, the widest of each kind, by what is read of which stage; the best are marked."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["width"]))
    widest = {(row["what"], row["features"]): row for row in rows}
    best = [max((row for row in widest.values() if row["order"] == order), key=_accuracy) for order in ("1", "2")]
    return {key: row | {"best": "yes" * (row in best)} for key, row in widest.items()}


def _place(key: tuple[str, str]) -> tuple[bool, int, str]:
    what, stage = key
    digits = "".join(filter(str.isdigit, stage))
    return bool(digits), -int(digits or 0), what


def _accuracy(row: dict[str, str]) -> float:
    return float(row["accuracy"])


def _cell(row: dict[str, str] | None) -> str:
    if row is None:
        return ""
    text = f"{_accuracy(row):.1f} [{float(row['low']):.1f}, {float(row['high']):.1f}]"
    return f"**{text}**" if row["best"] else text
