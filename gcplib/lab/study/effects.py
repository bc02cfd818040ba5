"""Effects by seed in one table, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gcplib.lab.study.verdicts import Evidence

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["effects_of", "evidence_of"]


def effects_of(claim: str, unit: str, found: Mapping[str, Mapping[int, float] | pd.Series]) -> pd.DataFrame:
    """Return a row per effect and seed; positive numbers support the claim.

    Args:
        claim: its id; empty for what is shown and counts for nothing.
        unit: of the values.
        found: values by seed, by the name of the effect.

    >>> effects_of("C20", "decades", {"band": {0: 0.5}}).to_dict("records")
    [{'claim': 'C20', 'effect': 'band', 'seed': 0, 'value': 0.5, 'unit': 'decades'}]
    """
    import pandas as pd  # here, because the runner and the command line need no pandas

    series = {name: pd.Series(by_seed, dtype=float) for name, by_seed in found.items()}
    rows = pd.concat(series, names=["effect", "seed"]).rename("value").reset_index()
    return rows.assign(claim=claim, unit=unit)[["claim", "effect", "seed", "value", "unit"]]


def evidence_of(effects: pd.DataFrame, claim: str) -> list[Evidence]:
    """Return the effects of a claim that two seeds or more have, in the order of the table.

    Args:
        effects: see ``effects_of``.
        claim: its id.
    """
    from gcplib.lab.analysis import mean_interval

    mine = effects[effects.claim == claim]
    groups = mine.groupby(["effect", "unit"], sort=False).value
    return [Evidence.of(name, mean_interval(values), unit) for (name, unit), values in groups if len(values) > 1]
