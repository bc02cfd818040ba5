"""The learning rate of each method, chosen on validation images from one list for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gcplib.lab.training.runs import Run
from gcplib.lab.training.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Tuned", "tune", "with_rate"]

BEYOND = 2.0  # from the end of a list, where it is best, to the rate that is tried beyond it


@dataclass(frozen=True)
class Tuned:
    """The best rate of each method, and ``table`` with every accuracy in percent: rows are methods, columns rates."""

    best: dict[str, float]
    table: pd.DataFrame


def tune(
    specs: Mapping[str, RunSpec],
    rates: Mapping[str, Iterable[float]],
    train: Callable[[list[RunSpec]], list[Run]],
) -> Tuned:
    """Return the learning rate of each method that has the best accuracy on validation images, of several.

    Where an end of a list is best, the rate beyond it, twice or half as large, is tried once. Of equal accuracies the
    lowest rate of the list is taken; a run that diverged counts as 0. With a single rate nothing is trained.

    Args:
        specs: a run of each method, usually of seed 0.
        rates: the learning rates of each method.
        train: makes the runs of some specifications, see ``gcplib.lab.training.ensure_all``.

    Raises:
        ValueError: a method without rates.
    """
    import pandas as pd

    lists = {name: sorted(set(rates[name])) for name in specs}
    if empty := [name for name, found in lists.items() if not found]:
        raise ValueError(f"no learning rate to choose from for {', '.join(empty)}")
    scores: dict[tuple[str, float], float] = {}

    def try_out(trials: list[tuple[str, float]]) -> None:
        runs = train([with_rate(specs[name], rate) for name, rate in trials]) if trials else []
        for trial, run in zip(trials, runs, strict=True):
            scores[trial] = run.result["validation_accuracy"] or 0.0

    def best_of(name: str) -> float:
        found = {rate: score for (method, rate), score in scores.items() if method == name}
        return max(found, key=found.__getitem__) if found else lists[name][0]

    several = [name for name, found in lists.items() if len(found) > 1]
    try_out([(name, rate) for name in several for rate in lists[name]])
    ends = {name: (best_of(name), lists[name]) for name in several}
    low = [(name, best / BEYOND) for name, (best, found) in ends.items() if best == found[0]]
    high = [(name, best * BEYOND) for name, (best, found) in ends.items() if best == found[-1]]
    try_out(low + high)
    rows = [(*trial, score) for trial, score in scores.items()]
    table = pd.DataFrame(rows, columns=["method", "rate", "accuracy"]).pivot(index="method", columns="rate")
    return Tuned({name: best_of(name) for name in specs}, table.droplevel(0, axis=1).reindex(several))


def with_rate(spec: RunSpec, rate: float) -> RunSpec:
    """Return a run with another peak learning rate."""
    return replace(spec, recipe=replace(spec.recipe, learning_rate=rate))
