"""Comparisons of trained methods, seed by seed, beside those of the kept evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from gcplib.lab.analysis.plots import interval_plot
from gcplib.lab.analysis.statistics import Interval, paired_difference

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["compare_plot", "in_words", "paired_gain"]


def paired_gain(
    table: pd.DataFrame | None,
    first: str,
    second: str,
    column: str = "score",
    other: str = "",
    by: str = "method",
    **where: object,
) -> Interval | None:
    """Return the mean of ``first - second`` over the seeds that both have, or None where there are fewer than two.

    Args:
        table: rows with ``seed``, ``by`` and ``column``; None, or one without the column, has no seeds.
        first: value of ``by``.
        second: value of ``by``.
        column: the numbers to compare.
        other: the column of the second, where it is another.
        by: the column that names the methods.
        where: values of other columns that rows must have.

    >>> import pandas as pd
    >>> runs = pd.DataFrame({"method": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "score": [5, 6, 3, 2]})
    >>> paired_gain(runs, "a", "b").mean
    3.0
    """
    if table is None or not {column, other or column, *where} <= set(table):
        return None
    for name, value in where.items():
        table = table[table[name] == value]
    values = [
        table[table[by] == method].set_index("seed")[numbers].astype(float).dropna()
        for method, numbers in ((first, column), (second, other or column))
    ]
    seeds = values[0].index.intersection(values[1].index)
    return paired_difference(*(numbers[seeds] for numbers in values)) if len(seeds) > 1 else None


def compare_plot(
    rows: Mapping[str, Interval | None],
    ax: Axes,
    xlabel: str,
    kept: Mapping[str, Interval | None] | None = None,
    colors: Mapping[str, object] | None = None,
    number: str = "{:+.1f}",
    zero: bool = True,
) -> None:
    """Draw intervals, below each in gray that of the kept evidence; bars that reach the edge of the figure go on.

    Args:
        rows: by name; those that are None are left out.
        ax: where to draw.
        xlabel: what is measured, with its unit.
        kept: the same of the kept evidence, as far as it has them.
        colors: by name.
        number: format of the means.
        zero: whether to draw a line at zero, and keep it in sight.
    """
    rows = {name: row for name, row in rows.items() if row is not None}
    gray = {name: row for name, row in (kept or {}).items() if name in rows and row is not None}
    interval_plot(rows, ax, colors, number)
    for place, old in ((list(rows).index(name), row) for name, row in gray.items()):
        ax.plot([old.low, old.high], [place + 0.25] * 2, color="0.75", linewidth=5, solid_capstyle="butt")
        ax.plot(old.mean, place + 0.25, "|", color="0.3", markersize=9)
    ax.set_xlabel(xlabel + "\ngray: kept evidence" * bool(gray))
    inside = [0.0] * zero + [row.mean for row in rows.values()]
    inside += [end for row in gray.values() for end in (row.low, row.high)]
    if zero:
        ax.axvline(0, color="0.5", linewidth=1)
    if inside and min(inside) < max(inside):
        # With two seeds an interval can be far wider than the differences that it is made of.
        room = 0.6 * (max(inside) - min(inside))
        low = max(min(inside) - room, min([*inside, *(row.low for row in rows.values())]))
        high = min(max(inside) + room, max([*inside, *(row.high for row in rows.values())]))
        ax.set_xlim(low - 0.1 * room, high + 0.1 * room)


def in_words(values: Mapping[str, object], number: str = "{:g}") -> str:
    """Return names and numbers as text, for notes.

    >>> in_words({"average": 0.2, "covariance": 0.1})
    'average 0.2, covariance 0.1'
    """
    return ", ".join(f"{name} {number.format(value)}" for name, value in values.items())
