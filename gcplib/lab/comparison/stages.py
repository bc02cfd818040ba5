"""What averages, covariances and roots read at each stage of a network: a table, and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from gcplib.lab.probe_claims import stage_of
from gcplib.lab.probe_questions import equal_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["OWN", "draw_stages", "gaps_of", "stages_table"]

OWN = "own average"
LOOKS = {"average": ("C0", "o"), "covariance": ("C1", "s"), "root": ("C2", "^")}
LINES = [*LOOKS, "covariance, as long", "root, as long"]
KEPT = ["line", "features", "width", "accuracy", "low", "high", "length"]


def stages_table(probed: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """Return one row per stage and line of the figure, and one for the network's own average.

    Of covariances and roots, the widest, and those as long as the average of their stage.

    Args:
        probed: see ``gcplib.lab.probe_report.probe_table``.
        measures: a row per stage with ``channels``, and what else was measured there.
    """
    stages = probed[probed.what.isin(list(LOOKS))].join(measures, on="features", how="inner")
    narrow = stages.width == stages.channels.map(equal_width)
    widest = stages.width == stages.groupby("features").width.transform("max")
    stages["line"] = stages.what.mask(narrow & ~widest, stages.what + ", as long")
    stages = stages[(stages.width == 0) | narrow | widest]
    own = probed[probed.features == "own"].assign(line=OWN)
    stages = pd.concat([stages, own])[[*KEPT, *measures.columns]]
    return stages.assign(stride=stages.features.str.extract(r"(\d+)", expand=False).astype(float))


def gaps_of(stages: pd.DataFrame, measured: Sequence[str]) -> pd.DataFrame:
    """Return the points by which the root leads at each stage, and what was measured there.

    Args:
        stages: see ``stages_table``.
        measured: columns of measures.

    Returns:
        One row per stage: ``at full width`` and, where it was read, ``at equal length``, and the measures.
    """
    inside = stages[stages.features != "own"]
    by = inside.pivot(index="features", columns="line", values="accuracy")
    gaps = {"at full width": by["root"] - by["average"]}
    if "root, as long" in by:
        gaps["at equal length"] = by["root, as long"] - by["average"]
    return pd.DataFrame(gaps).join(inside.groupby("features")[list(measured)].first())


def draw_stages(panels: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw accuracy by stage in a panel for each table, three side by side, with one legend below."""
    import matplotlib.pyplot as plt

    rows = -(-len(panels) // 3)
    fig, axes = plt.subplots(rows, 3, figsize=(12, 4.2 * rows + 0.5), squeeze=False)
    for ax, (name, table) in zip(axes.flat, panels.items(), strict=False):
        _draw(ax, table)
        ax.set(title=name, xlabel="stage", ylabel="test accuracy (%)")
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    lines = axes[0, 0].get_legend_handles_labels()
    fig.legend(*lines, loc="outside lower center", ncols=6, frameon=False)
    return fig


def _draw(ax: Axes, table: pd.DataFrame) -> None:
    at = table[table.features != "own"].sort_values("stride")
    stages = list(at.features.unique())
    for place, line in enumerate(LINES):
        rows, (color, mark) = at[at.line == line], LOOKS[line.split(",")[0]]
        shift = 0.05 * (place - 2)  # so that intervals do not hide each other
        x = [stages.index(name) + shift for name in rows.features]
        errors = [rows.accuracy - rows.low, rows.high - rows.accuracy]
        style = {"linestyle": "--" if "as long" in line else "-", "marker": mark}
        ax.errorbar(x, rows.accuracy, errors, label=line, color=color, **style)
    best = table[table.features == "own"].accuracy.item()
    ax.axhline(best, color="C0", linestyle=":", label=OWN)
    ax.set_xticks(range(len(stages)), [stage_of(name) for name in stages])
