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
    """Draw with ``interval_plot`` the rows that are there, below them those of kept evidence, and a line at zero."""
    rows = {name: row for name, row in rows.items() if row is not None}
    interval_plot(rows, ax, colors, number, kept, lines=[0.0] * zero if rows else None)
    ax.set_xlabel(xlabel)


def in_words(values: Mapping[str, object], number: str = "{:g}") -> str:
    """Return names and numbers as text, for notes.

    >>> in_words({"average": 0.2, "covariance": 0.1})
    'average 0.2, covariance 0.1'
    """
    return ", ".join(f"{name} {number.format(value)}" for name, value in values.items())
