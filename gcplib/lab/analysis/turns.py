"""Timing several things side by side: they take turns, so that whatever else the machine does meets all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch

__all__ = ["now", "take_turns"]

Thing = TypeVar("Thing")


def now(device: torch.device) -> float:
    """Return the time in milliseconds, when all that a device was told to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * time.perf_counter()


def take_turns(things: Mapping[str, Thing], rounds: int, kind: str) -> Iterator[tuple[int, str, Thing]]:
    """Yield round, name and thing, all things in each round; before round 0 there is one to warm up, of number -1.

    Args:
        kind: what the things are, for the message.

    Raises:
        ValueError: no thing, or no round.
    """
    if not things or rounds < 1:
        raise ValueError(f"need at least one {kind} and one round, got {len(things)} and {rounds}")
    for count in range(-1, rounds):
        for name, thing in things.items():
            yield count, name, thing
