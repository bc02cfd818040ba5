"""One look for all figures: a color-blind-safe palette, and one color a pool everywhere."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes

from gcplib.lab.analysis.statistics import Interval

__all__ = ["POOL_LABELS", "interval_plot", "pool_palette", "use_style"]

POOL_LABELS = {
    "gap": "average",
    "bcnn": "bilinear",
    "cov": "covariance",
    "mpn_cov": "square root (exact)",
    "isqrt_cov": "square root (5 Newton-Schulz steps)",
}


def use_style() -> None:
    """Set seaborn's style for the notebooks: grid, constrained layout, sizes that read on a page."""
    sns.set_theme(style="whitegrid", palette="colorblind", context="notebook")
    plt.rcParams.update({"figure.constrained_layout.use": True, "figure.dpi": 110, "axes.titlesize": "medium"})


def pool_palette() -> dict[str, tuple]:
    """Return the color of each pool, by the label that figures show."""
    return dict(zip(POOL_LABELS.values(), sns.color_palette("colorblind"), strict=False))


def interval_plot(
    rows: Mapping[str, Interval], ax: Axes, colors: Mapping[str, tuple] | None = None, number: str = "{:.1f}"
) -> None:
    """Draw one line a row: its mean as a dot with its number, its interval as a bar; the first row on top."""
    for place, (name, row) in enumerate(rows.items()):
        color = (colors or {}).get(name, "0.2")
        if row.n > 1:
            ax.plot([row.low, row.high], [place, place], color=color, linewidth=3, solid_capstyle="butt")
        ax.plot(row.mean, place, "o", color=color, markersize=8)
        text = number.format(row.mean).replace("-", "\N{MINUS SIGN}")  # as on the axes
        ax.annotate(text, (row.mean, place), (0, 8), textcoords="offset points", ha="center")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.4, -0.7)
    ax.grid(axis="y", visible=False)
