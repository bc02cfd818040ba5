"""How far apart the letters of two families lie, and which families the benchmark keeps.

Two families are compared letter by letter: small letters of equal height, on one baseline, ink centered; the distance
is the mean over a-z, A-Z, 0-9 of one minus the intersection over the union of the ink.
``python -m gcplib.lab.data.distance`` prints the table; with ``--select`` it also writes ``data/typefaces.txt`` and
``data/typefaces_distance.csv``.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from gcplib.lab.data.fonts import (
    CATEGORIES,
    CHARACTERS,
    WEIGHTS,
    Family,
    MissingFamilyError,
    candidate_families,
    check_installed,
    has_weights,
    open_font,
    x_height,
)
from gcplib.lab.files import project_root, write_atomic

__all__ = ["QUOTAS", "THRESHOLD", "distance", "distances", "glyphs", "select"]

# Every pair of candidates closer than this is one design twice: a fork (Public Sans of Libre Franklin, Heebo of
# Roboto), an optical cut (Red Hat Display) or a rename. The first pair beyond it was drawn independently.
THRESHOLD = 0.19
QUOTAS = {"sans": 27, "serif": 18, "mono": 5, "display": 5, "script": 5}


def glyphs(family: Family, weight: float = 400.0, height: int = 24) -> np.ndarray:
    """Draw a-z, A-Z, 0-9 with small letters ``height`` pixels high, on one baseline, ink centered: (62, H, W) uint8."""
    font = open_font(family, height / x_height(family), weight)
    shape = (height * 4, height * 5)
    images = np.zeros((len(CHARACTERS), *shape), dtype=np.uint8)
    for index, character in enumerate(CHARACTERS):
        left, _, right, _ = font.getbbox(character, anchor="ls")
        canvas = Image.new("L", shape[::-1])
        origin = (round((shape[1] - left - right) / 2), round(shape[0] * 0.68))
        ImageDraw.Draw(canvas).text(origin, character, fill=255, font=font, anchor="ls")
        images[index] = np.asarray(canvas)
    return images


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean over the glyphs of 1 - intersection / union of ink, for two stacks (n, H, W) uint8 of `glyphs`.

    0 is the same letters, 1 no ink in common. Letters are compared at the same x-height, on the same baseline.
    """
    common = np.minimum(first, second).sum(axis=(1, 2), dtype=np.int64)
    either = first.sum(axis=(1, 2), dtype=np.int64) + second.sum(axis=(1, 2), dtype=np.int64) - common
    return float(np.mean(1.0 - common / np.maximum(either, 1)))


def distances(families: Sequence[Family]) -> np.ndarray:
    """Return the (n, n) table of distances, each the smallest over the weights that the images may use.

    Weight is drawn at random in every image, so two families that differ only in weight are duplicates.
    """
    weights = (WEIGHTS[0], sum(WEIGHTS) / 2, WEIGHTS[1])
    stacks = []
    for family in families:
        stacks.append([glyphs(family, weight) for weight in (weights if has_weights(family) else weights[:1])])
    table = np.zeros((len(families), len(families)))
    for i, j in itertools.combinations(range(len(families)), 2):
        table[i, j] = table[j, i] = min(distance(a, b) for a in stacks[i] for b in stacks[j])
    return table


def select(families: Sequence[Family], table: np.ndarray) -> list[str]:
    """Return for each candidate, in order: ``kept``, ``near-duplicate of X`` or ``category full``."""
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


def _rows(families: Sequence[Family], table: np.ndarray, reasons: Sequence[str]) -> list[dict[str, str]]:
    """Return a row for each family: its nearest neighbor of all, its nearest among the kept, and the decision."""
    kept = [index for index, reason in enumerate(reasons) if reason == "kept"]
    rows = []
    for index, family in enumerate(families):
        row = {"family": family.name, "category": family.category, "package": family.requirement}
        for column, others in (("nearest", range(len(families))), ("nearest_kept", kept)):
            other = min((o for o in others if o != index), key=lambda o: table[index, o])
            row |= {column: families[other].name, f"{column}_distance": f"{table[index, other]:.4f}"}
        rows.append(row | {"decision": reasons[index]})
    return rows


def _print(rows: Sequence[dict[str, str]]) -> None:
    for row in rows:
        print(
            f"{row['family']:24}{row['category']:9}{row['nearest']:24}{row['nearest_distance']}  "
            f"{row['nearest_kept']:24}{row['nearest_kept_distance']}  {row['decision']}"
        )
    kept = [row for row in rows if row["decision"] == "kept"]
    counts = {category: sum(row["category"] == category for row in kept) for category in CATEGORIES}
    smallest = min(kept, key=lambda row: row["nearest_kept_distance"])
    dropped = sum(row["decision"].startswith("near-duplicate") for row in rows)
    print(f"\n{len(rows)} candidates, {dropped} near-duplicates dropped (threshold {THRESHOLD}), {len(kept)} kept:")
    print(", ".join(f"{count} {category}" for category, count in counts.items()))
    print(
        f"closest kept pair: {smallest['family']} and {smallest['nearest_kept']}, "
        f"{smallest['nearest_kept_distance']} apart"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the installed candidates and print the table; ``--select`` also writes the list and the table."""
    parser = argparse.ArgumentParser(prog="python -m gcplib.lab.data.distance", description=main.__doc__)
    parser.add_argument("--select", action="store_true", help="write data/typefaces.txt and typefaces_distance.csv")
    select_them = parser.parse_args(arguments).select
    families = []
    for family in (candidates := candidate_families()):
        try:
            check_installed([family])
            families.append(family)
        except MissingFamilyError:
            continue
    if len(families) < len(candidates):
        print(
            f"{len(families)} of {len(candidates)} candidates are installed in their pinned version; for all of them:"
        )
        print("pip install -r data/typefaces_candidates.txt\n")
        if select_them or len(families) < 2:
            print("A selection needs every candidate: nothing was written.")
            return 1
    table = distances(families)
    reasons = select(families, table)
    rows = _rows(families, table, reasons)
    _print(rows)
    if select_them:
        folder = project_root() / "data"
        kept = [family for family, reason in zip(families, reasons, strict=True) if reason == "kept"]
        with write_atomic(folder / "typefaces.txt") as path:
            lines = [f"{family.requirement}  # {family.category} | {family.name}" for family in kept]
            note = "# The families of the Typefaces benchmark. Written by: python -m gcplib.lab.data.distance --select"
            path.write_text("\n".join([note, *lines]) + "\n", encoding="utf-8")
        with write_atomic(folder / "typefaces_distance.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"\nWrote {folder / 'typefaces.txt'} and {folder / 'typefaces_distance.csv'}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
