"""Which families the benchmark keeps: how far apart their letters lie. Measured once; the table is kept beside this.

Two families are compared letter by letter: small letters of equal height, on one baseline, ink centered; the distance
is the mean over a-z, A-Z, 0-9 of one minus the intersection over the union of the ink, at the nearest of three weights.
After ``pip install -r data/typefaces_candidates.txt``, ``python data/choose_typefaces.py`` writes ``typefaces.txt`` and
``typefaces_distance.csv``.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from gcplib.lab.data.fonts import (
    CHARACTERS,
    WEIGHTS,
    Family,
    check_installed,
    font_source,
    open_font,
    read_families,
    x_height,
)
from gcplib.lab.files import write_atomic

FOLDER = Path(__file__).resolve().parent
# Every pair of candidates closer than this is one design twice: a fork (Public Sans of Libre Franklin, Heebo of
# Roboto), an optical cut (Red Hat Display) or a rename. The first pair beyond it was drawn independently.
THRESHOLD = 0.19
QUOTAS = {"sans": 27, "serif": 18, "mono": 5, "display": 5, "script": 5}


def varies(family: Family) -> bool:
    """Return whether the family has a weight axis."""
    return any(tag == "wght" for tag, *_ in font_source(family.name)[1])


def glyphs(family: Family, weight: float = 400.0, height: int = 24) -> np.ndarray:
    """Draw a-z, A-Z, 0-9 with small letters ``height`` pixels high, on one baseline, ink centered: (62, H, W) uint8."""
    font = open_font(family, height / x_height(family), weight)
    rows, columns = height * 4, height * 5
    images = np.zeros((len(CHARACTERS), rows, columns), dtype=np.uint8)
    for image, character in zip(images, CHARACTERS, strict=True):
        left, _, right, _ = font.getbbox(character, anchor="ls")
        canvas = Image.new("L", (columns, rows))
        origin = (round((columns - left - right) / 2), round(rows * 0.68))
        ImageDraw.Draw(canvas).text(origin, character, fill=255, font=font, anchor="ls")
        image[:] = np.asarray(canvas)
    return images


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean over the glyphs of 1 - intersection / union of ink, for two stacks (n, H, W) uint8 of `glyphs`.

    0 is the same letters, 1 no ink in common.
    """
    common, one, other = (
        stack.sum(axis=(1, 2), dtype=np.int64) for stack in (np.minimum(first, second), first, second)
    )
    return float(np.mean(1.0 - common / np.maximum(one + other - common, 1)))


def distances(families: Sequence[Family]) -> np.ndarray:
    """Return the (n, n) table of distances, each the smallest over the weights that the images may use.

    Weight is drawn at random in every image, so two families that differ only in weight are duplicates.
    """
    weights = (WEIGHTS[0], sum(WEIGHTS) / 2, WEIGHTS[1])
    stacks = [[glyphs(family, w) for w in (weights if varies(family) else weights[:1])] for family in families]
    table = np.zeros((len(families), len(families)))
    for i, j in itertools.combinations(range(len(families)), 2):
        table[i, j] = table[j, i] = min(distance(a, b) for a in stacks[i] for b in stacks[j])
    return table


def select(families: Sequence[Family], table: np.ndarray) -> list[str]:
    """Return for each candidate, in order of preference: ``kept``, ``near-duplicate of X`` or ``category full``."""
    reasons: list[str] = []
    kept: list[int] = []
    for index, family in enumerate(families):
        nearest = min(kept, key=lambda other: table[index, other], default=None)
        if nearest is not None and table[index, nearest] < THRESHOLD:
            reasons.append(f"near-duplicate of {families[nearest].name}")
        elif sum(families[other].category == family.category for other in kept) == QUOTAS[family.category]:
            reasons.append("category full")
        else:
            kept.append(index)
            reasons.append("kept")
    return reasons


def rows(families: Sequence[Family], table: np.ndarray, reasons: Sequence[str]) -> list[dict[str, str]]:
    """Return a row for each family: its nearest neighbor of all, its nearest among the kept, and the decision."""
    kept = [index for index, reason in enumerate(reasons) if reason == "kept"]
    found = []
    for index, family in enumerate(families):
        row = {"family": family.name, "category": family.category, "package": family.requirement}
        for column, others in (("nearest", range(len(families))), ("nearest_kept", kept)):
            other = min((o for o in others if o != index), key=lambda o: table[index, o])
            row |= {column: families[other].name, f"{column}_distance": f"{table[index, other]:.4f}"}
        found.append(row | {"decision": reasons[index]})
    return found


def main() -> None:
    """Measure the candidates, which must all be installed, and write the list and the table."""
    families = read_families(FOLDER / "typefaces_candidates.txt")
    check_installed(families)
    table = distances(families)
    reasons = select(families, table)
    with write_atomic(FOLDER / "typefaces.txt") as path:
        kept = [family for family, reason in zip(families, reasons, strict=True) if reason == "kept"]
        lines = [f"{family.requirement}  # {family.category} | {family.name}\n" for family in kept]
        note = "# The families of the Typefaces benchmark. Written by: python data/choose_typefaces.py\n"
        path.write_text("".join([note, *lines]), encoding="utf-8")
    with write_atomic(FOLDER / "typefaces_distance.csv") as path, path.open("w", newline="") as file:
        found = rows(families, table, reasons)
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
