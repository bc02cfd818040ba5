"""Methods compared pair by pair over seeds and images, in one's own runs and, in gray below, in kept evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gcplib.lab.analysis.plots import compare_plot
from gcplib.lab.analysis.statistics import Interval, crossed_interval, mean_interval
from gcplib.lab.holm import holm
from gcplib.lab.outcomes import unpack

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Paired"]

POINTS = "points of test accuracy"
ACCURACIES = ("score", "test_accuracy", "accuracy")  # are shares of the test images that ``correct`` has as right
ROUNDED = 0.01  # kept tables have five digits


@dataclass(frozen=True)
class Paired:
    """Tables with one row per run, and the differences between methods over the seeds that two have in common.

    Where ``column`` is an accuracy on test images and rows say in ``correct`` which ones were right
    (``gcplib.lab.outcomes``), intervals are over seeds crossed with images, else over seeds. A row without it, of a run
    that diverged, has its accuracy for every image.

    Args:
        own: rows with ``seed``, ``by`` and ``column``.
        kept: the same from kept evidence, or None; what it lacks is not drawn.
        by: the column that names a method, or several, whose values then are a tuple.
        column: the numbers to compare.
        where: values of other columns that rows must have.
        log: compare the logarithms of the numbers to the base 10.

    >>> import pandas as pd
    >>> runs = pd.DataFrame({"method": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "score": [5, 6, 3, 2]})
    >>> str(Paired(runs).gain("a", "b"))
    '3.0 [-9.7, 15.7]'
    """

    own: pd.DataFrame
    kept: pd.DataFrame | None = None
    by: str | tuple[str, ...] = "method"
    column: str = "score"
    where: Mapping[str, Any] = field(default_factory=dict)
    log: bool = False

    def on(self, column: str = "", **where: Any) -> Paired:
        """Return the comparison of another column, or of rows that have these values as well."""
        return replace(self, column=column or self.column, where={**self.where, **where})

    def decades(self) -> Paired:
        """Return the comparison of the logarithms of the numbers to the base 10."""
        return replace(self, log=True)

    def values(self, method: Any, *, kept: bool = False) -> pd.Series | None:
        """Return the numbers of a method by seed; None where a table has not its columns.

        Args:
            method: the value of ``by``, a tuple where that is several columns.
            kept: of the kept evidence.
        """
        rows = self._rows(method, kept)
        return None if rows is None else np.log10(rows[self.column]) if self.log else rows[self.column]

    def _rows(self, method: Any, kept: bool) -> pd.DataFrame | None:
        table = self.kept if kept else self.own
        names = (self.by,) if isinstance(self.by, str) else self.by
        wanted = dict(zip(names, (method,) if isinstance(self.by, str) else method, strict=True)) | dict(self.where)
        if table is None or not {self.column, "seed", *wanted} <= set(table):
            return None
        for name, value in wanted.items():
            table = table[table[name] == value]
        rows = table.set_index("seed").astype({self.column: float})
        return rows[rows[self.column].notna()].sort_index()

    def _by_image(self, method: Any, numbers: pd.Series, kept: bool) -> np.ndarray:
        """Return the numbers of some seeds for each image (seeds, images), or (seeds, 1) where they are of none."""
        rows = self._rows(method, kept)
        rows = rows[rows.index.isin(numbers.index)]
        texts = rows["correct"] if self.column in ACCURACIES and "correct" in rows and not self.log else ()
        right = {place: unpack(text) for place, text in enumerate(texts) if isinstance(text, str)}
        every = numbers.to_numpy()[:, None] * np.ones(max(map(len, right.values()), default=1))
        for place, found in right.items():
            if abs(found.mean() - every[place, 0]) > ROUNDED:
                raise ValueError(f"{self.column} of {method} is {every[place, 0]}, but {found.mean()} % are correct")
            every[place] = found
        return every

    def mean(self, method: Any, *, kept: bool = False) -> Interval | None:
        """Return the mean of a method over its seeds; None where there are fewer than two."""
        found = self.values(method, kept=kept)
        return _interval(self._by_image(method, found, kept)) if found is not None and len(found) > 1 else None

    def pairs(self, first: Any, second: Any, *, kept: bool = False) -> tuple[pd.Series, pd.Series] | None:
        """Return the numbers of two methods on the seeds that both have; None where there are fewer than two."""
        one, two = (self.values(method, kept=kept) for method in (first, second))
        if one is None or two is None:
            return None
        seeds = one.index.intersection(two.index)
        return (one[seeds], two[seeds]) if len(seeds) > 1 else None

    def gain(self, first: Any, second: Any, *, kept: bool = False) -> Interval | None:
        """Return the mean of first minus second over the seeds that both have; None where there are fewer than two."""
        if (both := self.pairs(first, second, kept=kept)) is None:
            return None
        one, two = (self._by_image(*of, kept) for of in zip((first, second), both, strict=True))
        return _interval(one - two)

    def draw(
        self,
        ax: Axes,
        pairs: Mapping[str, tuple[Any, Any]],
        xlabel: str = POINTS,
        *,
        colors: Mapping[str, Any] | None = None,
        number: str = "{:+z.1f}",
    ) -> None:
        """Draw first minus second of each pair, by name, and below each in gray that of the kept evidence."""
        found = {name: self.gain(*pair) for name, pair in pairs.items()}
        old = {name: self.gain(*pair, kept=True) for name, pair in pairs.items()}
        compare_plot(found, ax, xlabel, old, colors, number)

    def draw_means(
        self,
        ax: Axes,
        methods: Iterable[Any] | Mapping[str, Any],
        xlabel: str = "test accuracy (%)",
        *,
        colors: Mapping[str, Any] | None = None,
        number: str = "{:.1f}",
        lines: Sequence[float] = (),
    ) -> None:
        """Draw the mean of each method, and below each in gray that of the kept evidence.

        Args:
            ax: the axes to draw on.
            methods: values of ``by``, or by the names that they are drawn with.
            xlabel: what the numbers are, with their unit.
            colors: by name.
            number: the format of the means.
            lines: values to mark, such as guessing; zero for numbers that are differences already.
        """
        named = methods if isinstance(methods, Mapping) else {str(method): method for method in methods}
        found = {name: self.mean(method) for name, method in named.items()}
        old = {name: self.mean(method, kept=True) for name, method in named.items()}
        compare_plot(found, ax, xlabel, old, colors, number, lines)

    def table(self, pairs: Mapping[str, tuple[Any, Any]]) -> pd.DataFrame:
        """Return a row for each pair that has two seeds: points, interval, seeds, p and Holm's."""
        import pandas as pd

        rows = []
        for name, pair in pairs.items():
            if (gain := self.gain(*pair)) is not None:
                interval = f"[{gain.low:+.2f}, {gain.high:+.2f}]"
                rows.append((name, f"{gain.mean:+.2f}", interval, gain.n, gain.p_value))
        found = pd.DataFrame(rows, columns=["difference", "points", "95 % interval", "seeds", "p"])
        return found.assign(**{"p, Holm": holm(found.p) if len(found) else np.array([])})


def _interval(values: np.ndarray) -> Interval | None:
    """Return the interval over seeds, crossed with images where there are any, when ``n`` counts seeds."""
    return (
        None
        if np.isnan(values).any()
        else mean_interval(values.ravel())
        if 1 in values.shape
        else replace(crossed_interval(values), n=len(values))
    )
