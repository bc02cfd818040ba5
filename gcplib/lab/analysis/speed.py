"""How fast a run learns: epochs, and seconds of training, to a given accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gcplib.lab.analysis.statistics import Interval, mean_interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["censored_mean", "epochs_to", "seconds_to"]


def epochs_to(metrics: pd.DataFrame, target: float, column: str = "validation_accuracy") -> int | None:
    """Return how many epochs a run took to reach ``target`` for the first time, or None if it never did.

    Args:
        metrics: one row per epoch, as in ``metrics.csv`` of a run, in any order.
        target: what ``column`` has to reach.
        column: the name of the measure.

    Raises:
        ValueError: the epochs are not those of one run, or the target is not a number.

    >>> import pandas as pd
    >>> run = pd.DataFrame({"epoch": [0, 1, 2], "seconds": 2.0, "validation_accuracy": [0.1, 0.5, 0.4]})
    >>> epochs_to(run, 0.4), seconds_to(run, 0.4), epochs_to(run, 0.6)
    (2, 4.0, None)
    """
    history = metrics.sort_values("epoch")
    if history["epoch"].tolist() != list(range(len(history))):
        raise ValueError(f"expected the epochs 0, 1, ... of one run, got {history['epoch'].tolist()[:8]}")
    if math.isnan(target):
        raise ValueError("the target is NaN; the run that it was taken from may have diverged")
    if history.empty:
        return None
    reached = history[column].ge(target).to_numpy()
    return int(reached.argmax()) + 1 if reached.any() else None


def seconds_to(metrics: pd.DataFrame, target: float, column: str = "validation_accuracy") -> float | None:
    """Return the seconds of training, without validation, until ``epochs_to``, or None if the target is never reached.

    They depend on the machine and on what else it did; compare runs that were made side by side.
    """
    epochs = epochs_to(metrics, target, column)
    return None if epochs is None else float(metrics.sort_values("epoch")["seconds"].iloc[:epochs].sum())


def censored_mean(values: Sequence[float | None], limits: Sequence[float]) -> tuple[Interval, int]:
    """Return the mean with every None counted as its limit, and how many there are.

    A run that has not reached the target when it ends (a censored one) takes longer than the whole of it, by an
    unknown amount. The mean is thus a lower bound where the count is not 0, and the count belongs beside it.

    Args:
        values: epochs or seconds of runs.
        limits: all epochs, or seconds, of each run.

    Raises:
        ValueError: the lists differ in length, are empty, or a value is above its limit.
    """
    if len(values) != len(limits):
        raise ValueError(f"need a limit for every value, got {len(values)} values and {len(limits)} limits")
    pairs = list(zip(values, limits, strict=True))
    if over := [(value, limit) for value, limit in pairs if value is not None and value > limit]:
        raise ValueError(f"a run took {over[0][0]} to the target, but {over[0][1]} altogether; are these its limits?")
    found = [limit if value is None else value for value, limit in pairs]
    return mean_interval(found), sum(value is None for value in values)
