"""Means with intervals, paired differences and their tests, and means over seeds crossed with images."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from gcplib.lab.holm import p_value

__all__ = [
    "Interval",
    "crossed_interval",
    "mean_interval",
    "paired_difference",
    "share_interval",
]


@dataclass(frozen=True)
class Interval:
    """A mean and its interval, infinite where n = 1; ``freedom`` is that of Student's where it is not n - 1."""

    mean: float
    low: float
    high: float
    n: int
    freedom: float | None = None

    def shift(self, offset: float) -> Interval:
        """Return the interval of the values plus a constant, such as a threshold fixed beforehand."""
        return replace(self, mean=self.mean + offset, low=self.low + offset, high=self.high + offset)

    @property
    def p_value(self) -> float:
        """The two-sided p value of no effect that belongs to the interval; see ``gcplib.lab.holm.p_value``."""
        return p_value(self.mean, self.low, self.high, self.n, self.freedom)

    def __str__(self) -> str:
        known = f"[{self.low:.1f}, {self.high:.1f}]" if self.n > 1 else "(n = 1, no interval)"
        return f"{self.mean:.1f} {known}"


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
    values = _table(values)
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
    return Interval(mean, mean - half, mean + half, values.size, float(freedom))


def crossed_bootstrap(values: ArrayLike, confidence: float = 0.95, draws: int = 4_000) -> Interval:
    """Return the mean over R rows crossed with C columns, with the interval of a bootstrap of both.

    Rows and columns are drawn anew, each with replacement; the interval holds the middle of the means. For few rows,
    such as three seeds, Student's quantiles of ``crossed_interval`` are too wide to tell anything; this one takes
    these rows for all that there may be, and so is on the narrow side by what other seeds may add.

    Raises:
        ValueError: not a table ``(R, C)`` of at least one finite value.

    Source: the pigeonhole bootstrap, Owen, Annals of Applied Statistics 2007.

    >>> str(crossed_bootstrap([[1.0, 1.0, 1.0]]))
    '1.0 [1.0, 1.0]'
    """
    values = _table(values)
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


def _table(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"need a table (rows, columns) of finite values, got shape {values.shape}")
    return values
