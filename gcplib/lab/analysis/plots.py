"""One look for all figures: a color-blind-safe palette, one color per pool everywhere, and intervals as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from gcplib.lab.analysis.statistics import Interval

__all__ = [
    "POOL_LABELS",
    "compare_plot",
    "in_words",
    "interval_curve",
    "interval_plot",
    "legend_below",
    "pool_palette",
    "quantile_curve",
    "use_style",
]

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


def legend_below(fig: Figure, ax: Axes, columns: int) -> None:
    """Put the legend of one of its axes below a figure."""
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)


def interval_plot(
    rows: Mapping[str, Interval],
    ax: Axes,
    colors: Mapping[str, tuple] | None = None,
    number: str = "{:.1f}",
    kept: Mapping[str, Interval | None] | None = None,
    lines: Sequence[float] | None = None,
) -> None:
    """Draw one line per row: its mean as a dot with its number, its interval as a bar; the first row on top.

    Args:
        rows: the intervals by name.
        ax: the axes to draw on.
        colors: by name, where they are not all the same.
        number: the format of the means.
        kept: intervals of kept evidence, drawn in gray below those of the same name.
        lines: values to mark, zero solid and others dotted. If given, the limits are those of the means, of the marks
            and of kept evidence with some room: a longer bar, as of two seeds, leaves the axes by an arrow.
    """
    old = {place: found for place, name in enumerate(rows) if (found := (kept or {}).get(name))}
    for place, found in old.items():
        gray = {"color": "0.75", "linewidth": 5, "solid_capstyle": "butt"}
        ax.plot([found.low, found.high], [place + 0.25] * 2, **gray)
        ax.plot(found.mean, place + 0.25, "|", color="0.3", markersize=9)
    if old:
        place = {"xycoords": "axes fraction", "xytext": (-4, 2), "textcoords": "offset points"}
        ax.annotate("gray: kept evidence", (1, 0), ha="right", va="bottom", color="0.5", fontsize="small", **place)
    tints = dict.fromkeys(rows, "0.2") | dict(colors or {})
    for place, (name, row) in enumerate(rows.items()):
        if row.n > 1:
            ax.plot([row.low, row.high], [place, place], color=tints[name], linewidth=3, solid_capstyle="butt")
        ax.plot(row.mean, place, "o", color=tints[name], markersize=8)
        text = number.format(row.mean).replace("-", "\N{MINUS SIGN}")  # as on the axes
        ax.annotate(text, (row.mean, place), (0, 8), textcoords="offset points", ha="center")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) + (0.15 if old else -0.4), -0.7)
    ax.grid(axis="y", visible=False)
    if lines is not None:
        for line in lines:
            ax.axvline(line, color="0.5", linewidth=1, linestyle=":" if line else "-")
        inside = [*lines, *(row.mean for row in rows.values())]
        inside += [end for found in old.values() for end in (found.low, found.high)]
        room = max(0.6 * (max(inside) - min(inside)), 1e-3 * abs(max(inside)) or 1)
        ends = [end for row in rows.values() for end in (row.low, row.high)]
        low, high = max(min(inside) - room, min(inside + ends)), min(max(inside) + room, max(inside + ends))
        if lines and high < low + 1e-9:  # one value but for rounding, that of the marks included
            ax.set_xlim(low - 1, high + 1)
        elif low < high:  # or all is one value, and matplotlib makes the room
            margin = 0.04 * (high - low)
            low, high = low - margin, high + margin
            ax.set_xlim(low, high)
            for place, (name, row) in enumerate(rows.items()):
                for end, marker, cut in (low, "<", row.low < low), (high, ">", row.high > high):
                    if cut and row.n > 1:  # or nothing is known of its ends
                        ax.plot(end, place, marker, color=tints[name], markersize=9, clip_on=False)
        ax.margins(x=0.06)


def interval_curve(ax: Axes, found: Mapping[Any, Interval], *, decades: bool = False, **look: Any) -> None:
    """Draw means against the numbers or names that they belong to, with their intervals as bars.

    Args:
        ax: the axes to draw on.
        found: the intervals.
        decades: they are of logarithms to the base 10, and drawn as what these stand for.
        look: options of ``Axes.errorbar``, such as ``fmt`` and ``label``.
    """
    ends = np.array([[i.mean, i.low, i.high] for i in found.values()]).T
    mean, low, high = 10**ends if decades else ends
    ax.errorbar(list(found), mean, [mean - low, high - mean], **look)


def quantile_curve(ax: Axes, x: ArrayLike, values: ArrayLike, **look: Any) -> None:
    """Draw the median of rows ``(rows, len(x))`` as a line, and where 90 % of them are in a lighter tint."""
    low, middle, high = np.percentile(np.asarray(values), [5, 50, 95], axis=0)
    (line,) = ax.plot(x, middle, **look)
    ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2)


def compare_plot(
    rows: Mapping[str, Interval | None],
    ax: Axes,
    xlabel: str,
    kept: Mapping[str, Interval | None] | None = None,
    colors: Mapping[str, object] | None = None,
    number: str = "{:+.1f}",
    lines: Sequence[float] = (0.0,),
) -> None:
    """Draw with ``interval_plot`` the rows that are there, below them those of kept evidence, and lines, as of zero."""
    rows = {name: row for name, row in rows.items() if row is not None}
    interval_plot(rows, ax, colors, number, kept, lines if rows else None)
    ax.set_xlabel(xlabel)


def in_words(values: Mapping[str, object], number: str = "{:g}") -> str:
    """Return names and numbers as text, for notes.

    >>> in_words({"average": 0.2, "covariance": 0.1})
    'average 0.2, covariance 0.1'
    """
    return ", ".join(f"{name} {number.format(value)}" for name, value in values.items())
