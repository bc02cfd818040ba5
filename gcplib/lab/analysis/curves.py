"""Histories of runs in one table, by epoch, and as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import seaborn as sns
from matplotlib.ticker import LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves_of", "draw_curves"]


def curves_of(runs: Mapping[tuple, Any], names: Sequence[str]) -> pd.DataFrame:
    """Return one row per epoch of every run, with its key under these names, and ``percent``, validation accuracy.

    A run that diverged in its first epoch has no row.

    Args:
        runs: with ``metrics``, such as ``gcplib.lab.training.Run``, by key.
        names: the columns for the parts of a key.

    Raises:
        ValueError: keys and names differ in length, or no run has an epoch.
    """
    tables = [run.metrics.assign(**dict(zip(names, key, strict=True))) for key, run in runs.items()]
    curves = pd.concat([table for table in tables if len(table)], ignore_index=True)
    return curves.assign(percent=100 * curves.validation_accuracy)


def draw_curves(
    ax: Axes, curves: pd.DataFrame, column: str, by: str, colors: Mapping[str, object], ylabel: str = ""
) -> None:
    """Draw a measure against the epoch: mean and range over seeds, without a legend.

    Args:
        ax: the axes to draw on.
        curves: see ``curves_of``.
        column: the measure; ``train_loss`` is drawn on a logarithmic axis.
        by: the column that tells curves apart.
        colors: of the curves to draw, by name, in the order of the legend; others are thin and gray.
        ylabel: the measure with its unit.
    """
    shown = curves[curves[by].isin(list(colors))]
    for _, behind in curves.drop(shown.index).groupby(by):
        ax.plot(behind.groupby("epoch")[column].mean(), color="0.8", linewidth=1)
    order = [name for name in colors if name in set(shown[by])]
    look = {"hue": by, "style": by, "hue_order": order, "style_order": order, "palette": dict(colors)}
    sns.lineplot(shown, x="epoch", y=column, ax=ax, errorbar=("pi", 100), linewidth=2, **look)
    ax.get_legend().remove()
    ax.set(xlabel="epoch (from 0)", ylabel=ylabel or column)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if column == "train_loss":
        ax.set(yscale="log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
