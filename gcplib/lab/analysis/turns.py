"""Timing several things side by side: they take turns, so that whatever else the machine does meets all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["now", "step_times", "take_turns"]

Thing = TypeVar("Thing")


def now(device: torch.device) -> float:
    """Return the time in milliseconds, when all that a device was told to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * time.perf_counter()


def take_turns(things: Mapping[str, Thing], rounds: int, kind: str) -> Iterator[tuple[int, str, Thing]]:
    """Yield round, name and thing, all things in each round; before round 0 there is one to warm up, of number -1.

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
    import pandas as pd

    rows, device = [], features.device
    for count, name, head in take_turns(heads, rounds, "head"):
        head.train()
        start = now(device)
        loss = cross_entropy(head(features), target)
        torch.autograd.grad(loss, list(head.parameters()))
        rows.append([name, count, now(device) - start])
    found = pd.DataFrame(rows, columns=["head", "round", "ms"])
    return found[found["round"] >= 0].reset_index(drop=True)
