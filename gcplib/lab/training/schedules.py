"""Learning rates as functions of time alone, so that a resumed run needs no state of a scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcplib.lab.training.recipe import Recipe

__all__ = ["SCHEDULES", "learning_rate_factor"]


def _one_cycle(recipe: Recipe, epochs: float) -> float:
    warm_up = 0.3 * recipe.epochs
    if epochs < warm_up:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * epochs / warm_up)) / 2
    return (1 + math.cos(math.pi * (epochs - warm_up) / (recipe.epochs - warm_up))) / 2


def _step(recipe: Recipe, epochs: float) -> float:
    return 0.1 ** sum(epochs >= milestone for milestone in recipe.milestones)


def _cosine(recipe: Recipe, epochs: float) -> float:
    return (1 + math.cos(math.pi * epochs / recipe.epochs)) / 2


# Both are published for one number of epochs, all epoch long with the rate of its start. Stretched to any other number
# they keep these steps, so that every rate has its published share of the training.
FAST_EPOCHS, ADJU_EPOCHS = 30, 50


def _fast(recipe: Recipe, epochs: float) -> float:
    return (1 - math.floor(epochs * FAST_EPOCHS / recipe.epochs) / 52) ** 11


def _adju(recipe: Recipe, epochs: float) -> float:
    return (1 - math.floor(epochs * ADJU_EPOCHS / recipe.epochs) / 49) ** 2


SCHEDULES: Mapping[str, Callable[[Recipe, float], float]] = {
    "one_cycle": _one_cycle,
    "step": _step,
    "cosine": _cosine,
    "constant": lambda recipe, epochs: 1.0,
    "fast": _fast,
    "adju": _adju,
}


def learning_rate_factor(recipe: Recipe, epochs: float) -> float:
    """Return the learning rate over its peak after so many epochs (a fraction within an epoch).

    ``one_cycle`` is 30 % warm-up, then a cosine to zero; ``cosine`` that without warm-up; ``step`` decays by 0.1 at
    each milestone; ``constant`` stays; ``fast`` and ``adju`` are the short schedules of Wang et al. (CVPR 2020) for
    ResNets, ``(1 - e / 52)^11`` over 30 and ``(1 - e / 49)^2`` over 50 epochs. Their ``norm`` is ``step`` with the
    milestones 30, 60, 90. A linear warm-up of ``recipe.warm_up`` epochs, from a hundredth, multiplies all but the
    first.
    """
    factor = SCHEDULES[recipe.schedule](recipe, epochs)
    if epochs < recipe.warm_up:
        factor *= 0.01 + 0.99 * epochs / recipe.warm_up
    return factor
