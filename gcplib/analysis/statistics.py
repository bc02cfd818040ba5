"""Means with intervals, and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["Interval", "mean_interval", "paired_difference"]


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


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of ``first - second`` over pairs that share a seed, with Student's interval.

    Raises:
        ValueError: the lists differ in length, are empty, or hold values that are not finite.
    """
    if len(first) != len(second):
        raise ValueError(f"pairs need lists of one length, got {len(first)} and {len(second)}")
    return mean_interval(np.subtract(first, second), confidence)
