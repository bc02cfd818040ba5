"""Effects of claims as tables to read: what a notebook has measured, and what many seeds have shown before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gcplib.lab.study.claims import assess_records
from gcplib.lab.study.evidence import kept_records
from gcplib.lab.study.verdicts import Evidence

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

__all__ = ["effects_table", "kept_effects"]


def kept_effects(*claims: str) -> Styler:
    """Return the primary effects of claims in the kept evidence of many seeds, with the verdicts that follow.

    Args:
        claims: their ids, such as ``C24``.
    """
    rows, records = [], kept_records("evidence")
    for claim in claims:
        found = assess_records(claim, records)
        rows += [(claim, *_cells(item), found.verdict) for item, primary, _ in found.effects if primary]
    return _shown(rows, ["claim", "primary effect", "mean", "95 % interval", "unit", "n", "verdict"])


def effects_table(tables: Iterable[pd.DataFrame]) -> Styler:
    """Return what ``record`` has returned for several claims as one table to read."""
    rows = []
    for table in tables:
        for row in table.to_dict("records"):
            item = Evidence(*(row[key] for key in ("name", "effect", "low", "high", "n", "unit")))
            rows.append((row["claim"], *_cells(item), row["role"], row["verdict"]))
    return _shown(rows, ["claim", "effect", "mean", "95 % interval", "unit", "n", "role", "verdict"])


def _cells(item: Evidence) -> tuple[str, str, str, str, int]:
    return item.name, item.amount, item.interval, item.unit, item.n


def _shown(rows: list[tuple], columns: list[str]) -> Styler:
    import pandas as pd

    left = [{"selector": "th, td", "props": [("text-align", "left")]}]
    return pd.DataFrame(rows, columns=columns).style.hide(axis="index").set_table_styles(left)
