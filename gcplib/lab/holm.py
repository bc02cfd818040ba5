"""p values of intervals, and Holm's correction of them for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["holm", "p_value"]


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return the p values corrected for their number by Holm's method, in the order given.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may be below one that was smaller before,
    and none above 1. Rejecting what is below 0.05 makes one false rejection or more in at most 5 % of such tables,
    whatever the tests have to do with each other.

    Raises:
        ValueError: no values, or one that is not from 0 to 1.

    Source: Holm, Scandinavian Journal of Statistics 1979.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=float)
    if values.ndim != 1 or len(values) == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"need a list of at least one p value from 0 to 1, got {values.tolist()}")
    order = values.argsort()
    corrected = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return corrected[order.argsort()]


def p_value(mean: float, low: float, high: float, n: int, freedom: float | None = None) -> float:
    """Return the two-sided p value of no effect that belongs to a 95 % interval, NaN for n = 1.

    ``2 P(T > t |mean| / h)`` with T of Student's distribution, t its 97.5 % point and h the width on the side of zero:
    below 0.05 exactly where the interval does not reach zero. Without a width it is 0, or 1 at 0.
    """
    from scipy.special import stdtr, stdtrit

    # What rounding leaves of equal accuracies is alike for every seed, and would be significant.
    mean, half, freedom = round(mean, 12), round(mean - low if mean > 0 else high - mean, 12), freedom or n - 1
    if n == 1 or mean == 0 or half == 0:
        return math.nan if n == 1 else float(mean == 0)
    return float(2 * stdtr(freedom, -stdtrit(freedom, 0.975) * abs(mean) / half))
