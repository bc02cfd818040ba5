"""Learning rates as functions of time alone, so that a resumed run needs no state of a scheduler.

Each gives the rate over its peak after ``now`` of ``epochs`` epochs; only ``step`` looks at the milestones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

__all__ = ["SCHEDULES"]

# Both are published for one number of epochs, all epoch long with the rate of its start. Stretched to any other number
# they keep these steps, so that every rate has its published fraction of the training.
FAST_EPOCHS, ADJU_EPOCHS = 30, 50


def _one_cycle(now: float, epochs: int, milestones: Sequence[int]) -> float:
    warm_up = 0.3 * epochs
    if now < warm_up:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * now / warm_up)) / 2
    return (1 + math.cos(math.pi * (now - warm_up) / (epochs - warm_up))) / 2


SCHEDULES: Mapping[str, Callable[[float, int, Sequence[int]], float]] = {
    "one_cycle": _one_cycle,
    "step": lambda now, epochs, milestones: 0.1 ** sum(now >= milestone for milestone in milestones),
    "cosine": lambda now, epochs, milestones: (1 + math.cos(math.pi * now / epochs)) / 2,
    "constant": lambda now, epochs, milestones: 1.0,
    "fast": lambda now, epochs, milestones: (1 - math.floor(now * FAST_EPOCHS / epochs) / 52) ** 11,
    "adju": lambda now, epochs, milestones: (1 - math.floor(now * ADJU_EPOCHS / epochs) / 49) ** 2,
}
