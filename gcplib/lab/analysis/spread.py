"""How far the evidence of a map spreads over its positions: by its positive part, whatever its scale."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attention_entropy", "positions_holding"]


def fractions(maps: Tensor, within: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the positive part of maps ``(..., h, w)`` over its sum ``(..., h w)``, and how many positions count.

    Args:
        maps: evidence.
        within: the positions that count, of a shape that broadcasts; all of them by default.

    Raises:
        ValueError: a map without a positive value, or fewer than two positions.
    """
    counts = torch.ones_like(maps, dtype=torch.bool)
    counts = counts if within is None else counts & within
    positive = torch.where(counts, maps.detach().double().clamp_min(0), 0.0).flatten(-2)
    total, number = positive.sum(-1, keepdim=True), counts.flatten(-2).sum(-1)
    if bool((total == 0).any()) or bool((number < 2).any()):
        raise ValueError("a spread needs two positions, and a positive value in each map")
    return positive / total, number


def attention_entropy(maps: Tensor, within: Tensor | None = None) -> Tensor:
    """Return ``- sum_m a_m log a_m / log n`` of fractions a: 1 where n positions share evenly, 0 where one has all.

    Args:
        maps: see ``fractions``.
        within: see ``fractions``.
    """
    a, number = fractions(maps, within)
    return -torch.special.xlogy(a, a).sum(-1) / number.double().log()


def positions_holding(maps: Tensor, part: float = 0.5, within: Tensor | None = None) -> Tensor:
    """Return the smallest fraction of the positions that holds a part of the positive values.

    Between two positions it is interpolated, so that an even map needs ``part`` of them.

    Args:
        maps: see ``fractions``.
        part: above 0 and at most 1.
        within: see ``fractions``.
    """
    a, number = fractions(maps, within)
    held = a.sort(-1, descending=True).values.cumsum(-1)
    full = (held < part).sum(-1, keepdim=True)
    before = torch.where(full > 0, held.gather(-1, (full - 1).clamp_min(0)), 0.0)
    # Rounding may leave the last sum a little below one.
    step = held.gather(-1, full.clamp_max(held.shape[-1] - 1)) - before
    return (full + (part - before) / step).squeeze(-1) / number
