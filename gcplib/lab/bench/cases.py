"""Calls timed in turns, quartiles of their times, and ratios within rounds with their intervals."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from scipy import stats

from gcplib.lab.bench.measure import shuffled
from gcplib.lab.progress import track


@dataclass(frozen=True)
class Case:
    """A call that is timed, and what it is called within, which is not."""

    run: Callable[[], object]
    within: Callable[[], AbstractContextManager] = nullcontext

    def seconds(self) -> float:
        """Return how long one call takes; freeing its result does not count."""
        with self.within():
            start = time.perf_counter()
            result = self.run()
            end = time.perf_counter()
        del result
        return end - start


def time_cases(cases: Mapping[str, Case], rounds: int, label: str, slow: float = 5.0) -> dict[str, list[float]]:
    """Return the seconds of every round by case: shuffled rounds, after one pass of each to warm up.

    A case whose first pass takes longer than ``slow`` seconds is timed by that one pass.
    """
    times = {name: [cases[name].seconds()] for name in track(list(cases), f"{label}, first passes", unit="pass")}
    quick = [name for name in cases if times[name][0] < slow]
    for name in quick:
        times[name].clear()
    for name in track(shuffled(quick, rounds), label, unit="pass"):
        times[name].append(cases[name].seconds())
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the quartiles, and how many values there are.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    {'low': 2.0, 'median': 3.0, 'high': 4.0, 'n': 5}
    """
    low, median, high = map(float, np.quantile(values, (0.25, 0.5, 0.75)))
    return {"low": low, "median": median, "high": high, "n": len(values)}


def times_as_long(first: Sequence[float], second: Sequence[float]) -> dict[str, float | None]:
    """Return the median of ``first / second`` within rounds, and its 95 % interval by the sign test.

    The interval assumes nothing about how times are distributed; under six rounds leave it unknown, None.

    >>> times_as_long([2.0, 4.0], [1.0, 1.0])
    {'low': None, 'median': 3.0, 'high': None, 'n': 2}
    """
    # What was slow has one pass; it is compared with one of the other.
    quotients = [a / b for a, b in zip(first, second, strict=False)]
    ends = stats.quantile_test(quotients, q=1, p=0.5).confidence_interval(0.95)
    low, high = (float(end) if np.isfinite(end) else None for end in ends)
    return {"low": low, "median": statistics.median(quotients), "high": high, "n": len(quotients)}


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Return the quartiles of times, in milliseconds, and how many there are."""
    return spread([1e3 * value for value in seconds])
