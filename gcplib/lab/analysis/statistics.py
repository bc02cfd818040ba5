"""Means with intervals, paired differences and their tests, and means over seeds crossed with images."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

__all__ = [
    "Interval",
    "crossed_interval",
    "mean_interval",
    "paired_difference",
    "paired_gain",
    "paired_p_value",
    "share_interval",
]


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; ``low`` and ``high`` are infinite where n = 1 leaves them unknown."""

    mean: float
    low: float
    high: float
    n: int

    def shift(self, offset: float) -> Interval:
        """Return the interval of the values plus a constant, such as a threshold fixed beforehand."""
        return Interval(self.mean + offset, self.low + offset, self.high + offset, self.n)

    def __str__(self) -> str:
        if self.n == 1:
            return f"{self.mean:.1f} (n = 1, no interval)"
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean with Student's interval over n independent values, such as seeds.

    ``mean +- t_{n-1} s / sqrt(n)``.

    Raises:
        ValueError: no values, or a value that is not finite.

    >>> str(mean_interval([1.0, 2.0, 3.0]))
    '2.0 [-0.5, 4.5]'
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"need a list of at least one finite value, got {values.tolist()}")
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def share_interval(true: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return how many of n independent outcomes are true, in percent, with Clopper and Pearson's exact interval.

    >>> str(share_interval([True, True, True]))
    '100.0 [29.2, 100.0]'
    """
    true = np.asarray(true, dtype=bool)
    low, high = stats.binomtest(int(true.sum()), len(true)).proportion_ci(confidence)
    return Interval(100 * float(true.mean()), 100 * low, 100 * high, len(true))


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of ``first - second`` over pairs that share a seed, with Student's interval.

    Raises:
        ValueError: the lists differ in length, are empty, or hold values that are not finite.
    """
    if len(first) != len(second):
        raise ValueError(f"pairs need lists of one length, got {len(first)} and {len(second)}")
    return mean_interval(np.subtract(first, second), confidence)


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
    table = table.set_index("seed")
    pairs = ((first, column), (second, other or column))
    values = [table.loc[table[by] == method, numbers].astype(float).dropna() for method, numbers in pairs]
    seeds = values[0].index.intersection(values[1].index)
    return paired_difference(*(numbers[seeds] for numbers in values)) if len(seeds) > 1 else None


def paired_p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p value of the paired t-test, NaN where one pair leaves it unknown.

    It is below 0.05 where the 95 % interval of ``paired_difference`` does not hold 0. Without this one, differences
    that are all 0 would have no p value: they are as far from an effect as can be, so it is 1.

    Raises:
        ValueError: the lists differ in length, are empty, or hold values that are not finite.

    >>> round(paired_p_value([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]), 4)
    0.0742
    """
    interval = paired_difference(first, second)
    differences = np.subtract(first, second)
    if interval.n == 1:
        return math.nan
    if np.ptp(differences) < 1e-9:  # all alike, but for rounding
        return 1.0 if interval.mean == 0 else 0.0
    return float(stats.ttest_rel(first, second).pvalue)


def crossed_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean over R rows crossed with C columns, such as seeds and images, both drawn from many.

    ``mean +- t_nu sqrt(a + b)`` with ``a = var(row means) / R``, ``b = var(column means) / C`` and, by Welch and
    Satterthwaite, ``nu = (a + b)^2 / (a^2 / (R - 1) + b^2 / (C - 1))``. Each of the two variances holds the residual
    one, which is thus counted twice: the interval is on the safe side, by little where the rows and columns matter.

    Args:
        values: ``(R, C)``. With R = 1 or C = 1 it is Student's interval over the others, and says nothing about other
            rows, or columns. For a paired comparison pass differences.

    Returns:
        The interval, whose ``n`` is R C.

    Raises:
        ValueError: not a table of at least one finite value.

    Source: the two-way random-effects model; Satterthwaite, Biometrics Bulletin 1946.

    >>> str(crossed_interval([[1.0, 2.0, 3.0]]))
    '2.0 [-0.5, 4.5]'
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"need a table (rows, columns) of finite values, got shape {values.shape}")
    if 1 in values.shape:
        return mean_interval(values.ravel(), confidence)
    mean = float(values.mean())
    parts = [values.mean(1 - axis).var(ddof=1) / count for axis, count in enumerate(values.shape)]
    variance = sum(parts)
    if variance == 0:
        return Interval(mean, mean, mean, values.size)
    # As shares of the whole, because squares of small variances are zero.
    freedom = 1 / sum((part / variance) ** 2 / (count - 1) for part, count in zip(parts, values.shape, strict=True))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(variance))
    return Interval(mean, mean - half, mean + half, values.size)


def crossed_bootstrap(values: ArrayLike, confidence: float = 0.95, draws: int = 4_000) -> Interval:
    """Return the mean over R rows crossed with C columns, with the interval of a bootstrap of both.

    Rows and columns are drawn anew, each with replacement; the interval holds the middle of the means. For few rows,
    such as three seeds, Student's quantiles of ``crossed_interval`` are too wide to tell anything; this one takes
    these rows for all that there may be, and so is on the narrow side by what other seeds may add.

    Args:
        values: ``(R, C)``.
        confidence: of the interval.
        draws: of the bootstrap, always the same.

    Raises:
        ValueError: not a table of at least one finite value.

    Source: the pigeonhole bootstrap, Owen, Annals of Applied Statistics 2007.

    >>> str(crossed_bootstrap([[1.0, 1.0, 1.0]]))
    '1.0 [1.0, 1.0]'
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"need a table (rows, columns) of finite values, got shape {values.shape}")
    rows, columns = (_drawn(count, draws, axis) for axis, count in enumerate(values.shape))
    means = []
    for start in range(0, draws, 256):  # of the draws at a time, for the sake of memory
        of_rows, of_columns = (drawn[start : start + 256].astype(float) for drawn in (rows, columns))
        means.append(((of_columns @ values.T) * of_rows).sum(1) / values.size)
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values.mean()), float(low), float(high), values.size)


@functools.lru_cache(maxsize=2)  # comparisons of one table draw the same images again and again
def _drawn(count: int, draws: int, axis: int) -> np.ndarray:
    """Return how often each of ``count`` things is in each draw of as many with replacement ``(draws, count)``."""
    generator = np.random.default_rng([axis, count])
    return generator.multinomial(count, np.full(count, 1 / count), draws).astype(np.uint16)
