"""How fast things are: steps of training side by side, and epochs and seconds of runs to a given accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gcplib.lab.analysis.statistics import Interval, mean_interval

__all__ = ["censored_mean", "epochs_to", "now", "seconds_to", "step_times", "take_turns", "times_to"]

Thing = TypeVar("Thing")


def now(device: torch.device) -> float:
    """Return the time in milliseconds, when all that a device was told to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * time.perf_counter()


def take_turns(things: Mapping[str, Thing], rounds: int, kind: str) -> Iterator[tuple[int, str, Thing]]:
    """Yield round, name and thing, from a round -1 to warm up on.

    All things are in each round, so that whatever else the machine does meets all of them.

    Raises:
        ValueError: no thing of that kind, or no round.
    """
    if not things or rounds < 1:
        raise ValueError(f"need at least one {kind} and one round, got {len(things)} and {rounds}")
    for count in range(-1, rounds):
        for name, thing in things.items():
            yield count, name, thing


def step_times(heads: Mapping[str, nn.Module], features: Tensor, target: Tensor, rounds: int = 9) -> pd.DataFrame:
    """Time what a step of training computes: logits, cross-entropy, and the gradients of all weights of a head.

    Compare within rounds. Weights stay as they are, the statistics of batch norm do not.

    Args:
        heads: by name, on the features' device.
        features: a batch ``(B, C, H, W)``.
        target: its classes ``(B,)``.
        rounds: timed steps of each, after one that is not.

    Returns:
        One row per head and round: ``head``, ``round``, ``ms``.

    Raises:
        ValueError: no head, or no round.
    """
    rows, device = [], features.device
    for count, name, head in take_turns(heads, rounds, "head"):
        head.train()
        start = now(device)
        loss = cross_entropy(head(features), target)
        torch.autograd.grad(loss, list(head.parameters()))
        if count >= 0:
            rows.append({"head": name, "round": count, "ms": now(device) - start})
    return pd.DataFrame(rows)


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
    reached = history[column].ge(target).to_numpy()
    return int(reached.argmax()) + 1 if reached.any() else None


def seconds_to(metrics: pd.DataFrame, target: float, column: str = "validation_accuracy") -> float | None:
    """Return the seconds of training until ``epochs_to``, or None; compare runs that were made side by side."""
    epochs = epochs_to(metrics, target, column)
    return None if epochs is None else float(metrics.sort_values("epoch")["seconds"].iloc[:epochs].sum())


def times_to(
    curves: pd.DataFrame, goals: Mapping[str, Mapping[int, float]], epochs: int, column: str = "percent"
) -> pd.DataFrame:
    """Return how long each run takes to each goal; one that never gets there counts with its whole length.

    Args:
        curves: one row per epoch, with ``method`` and ``seed``, see ``curves_of``.
        goals: what ``column`` has to reach, by name and seed; a seed without a goal is left out.
        epochs: of a whole run.
        column: the name of the measure.

    Returns:
        One row per run and goal: ``method``, ``seed``, ``goal``, ``epochs``, ``seconds``, whether ``never``, and
        ``all seconds`` of the run.
    """
    rows = []
    for (method, seed), run in curves.groupby(["method", "seed"], sort=False):
        for goal, target in goals.items():
            if seed in target:
                took, whole = epochs_to(run, target[seed], column), run.seconds.sum()
                found = (epochs, whole) if took is None else (took, seconds_to(run, target[seed], column))
                rows.append((method, seed, goal, *found, took is None, whole))
    columns = ["method", "seed", "goal", "epochs", "seconds", "never", "all seconds"]
    return pd.DataFrame(rows, columns=columns)


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
