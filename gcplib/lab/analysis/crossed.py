"""Methods compared on seeds crossed with images: as over seeds alone, with intervals over both."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gcplib.lab.analysis.paired import Paired
from gcplib.lab.analysis.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Crossed", "grouped_plot"]


@dataclass(frozen=True)
class Crossed(Paired):
    """Tables with one row per seed, image and method; see ``Paired`` for the arguments before these.

    Args:
        across: the column that is crossed with ``seed``.
        as_one: average over the seeds first, where they are not independent: intervals are over images alone.

    >>> import pandas as pd
    >>> rows = [("a", 0, 0, 5), ("a", 0, 1, 7), ("b", 0, 0, 3), ("b", 0, 1, 4)]
    >>> str(Crossed(pd.DataFrame(rows, columns=["method", "seed", "image", "score"])).gain("a", "b"))
    '2.5 [-3.9, 8.9]'
    """

    across: str = "image"
    as_one: bool = False

    def over_images(self) -> Crossed:
        """Return the comparison with the seeds averaged first."""
        return replace(self, as_one=True)

    def values(self, method: Any, *, kept: bool = False) -> pd.Series | None:
        """Return the numbers of a method by seed and image, a tuple; None where a table has not its columns."""
        table = self.kept if kept else self.own
        if table is None or not {"seed", self.across} <= set(table):
            return None
        both = table.assign(seed=list(zip(table["seed"], table[self.across], strict=True)))
        return Paired(both, None, self.by, self.column, self.where).values(method)

    def _by_image(self, method: Any, numbers: pd.Series, kept: bool) -> np.ndarray:
        table = numbers.set_axis(pd.MultiIndex.from_tuples(numbers.index)).unstack().to_numpy()
        return table.mean(0, keepdims=True) if self.as_one else table


def grouped_plot(
    rows: Mapping[str, Mapping[str, Interval | None]],
    ax: Axes,
    colors: Mapping[str, Any],
    line: float,
    *,
    hollow: Collection[str] = (),
) -> None:
    """Draw several intervals per row below each other, with a line at chance; the first row on top.

    Args:
        rows: the intervals by row and kind; None leaves a gap.
        ax: the axes to draw on.
        colors: by kind.
        line: the value to mark.
        hollow: kinds whose means are circles.
    """
    for place, row in enumerate(rows.values()):
        for step, (kind, found) in enumerate(row.items()):
            if found is None:
                continue
            height = place + 0.8 * (step / max(len(row) - 1, 1) - 0.5)
            ends = [found.low, found.high] if np.isfinite(found.low) else [found.mean] * 2
            ax.plot(ends, [height] * 2, color=colors[kind], linewidth=2)
            look = {"mfc": "white"} if kind in hollow else {}
            label = kind if place == 0 else None
            ax.plot(found.mean, height, "o", color=colors[kind], markersize=5, label=label, **look)
    for edge in range(len(rows) - 1):
        ax.axhline(edge + 0.5, color="0.85", linewidth=1)
    ax.axvline(line, color="0.5", linewidth=1)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
