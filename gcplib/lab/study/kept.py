"""What many seeds have shown: the kept effects of claims, for notebooks to open with."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from gcplib.lab.study.claims import Evidence
from gcplib.lab.study.evidence import MORE, kept_records

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

__all__ = ["kept_effects"]


def kept_effects(*claims: str, notebook: str = "") -> Styler:
    """Return the kept effects of some claims, those of many seeds: one row per effect.

    Args:
        claims: their ids, such as ``C24``.
        notebook: only what notebooks whose names begin so have measured.
    """
    import pandas as pd

    names = [field.name for field in fields(Evidence)]
    rows = []
    for record in kept_records(MORE):
        if record["claim"] in claims and record["notebook"].startswith(notebook):
            for item in record["evidence"]:
                found = Evidence(**{name: item[name] for name in names})
                rows.append((record["claim"], found.name, f"{found.amount} {found.interval}", found.unit, found.n))
    table = pd.DataFrame(rows, columns=["claim", "effect", "mean [95 % interval]", "unit", "seeds"])
    return table.style.hide(axis="index").set_properties(**{"text-align": "left"})
