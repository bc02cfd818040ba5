"""How far attention spreads: the evidence of class maps for a class, and over how many positions it lies."""

from __future__ import annotations

import torch
from torch import Tensor

from gcplib.models import Head

__all__ = ["attention_entropy", "class_evidence", "positions_holding"]


def class_evidence(head: Head, features: Tensor, classes: Tensor, against: Tensor | None = None) -> Tensor:
    """Return where average pooling finds evidence for a class of each image: maps ``(B, h, w)``.

    ``E = M_y - mean of M_c over c other than y``, or ``M_y - M_r`` with ``against``. Its mean over positions is that
    difference of the logits. A class map M_y alone says less: what all maps share changes no prediction.

    Args:
        head: with average pooling. features: ``(B, C, h, w)``. classes, against: ``(B,)``, int64.

    Raises:
        ValueError: shapes that do not fit, or a class that does not exist. TypeError: another pool.

    Source: class activation maps, Zhou et al., CVPR 2016; the difference is ours.
    """
    wanted = {"classes": classes} | ({} if against is None else {"against": against})
    for name, value in wanted.items():
        if features.dim() != 4 or value.shape != features.shape[:1]:
            shapes = f"features {tuple(features.shape)} and {name} {tuple(value.shape)}"
            raise ValueError(f"{shapes} must be (B, C, h, w) and (B,)")
    maps = head.class_maps(features)
    for name, value in wanted.items():
        if bool(((value < 0) | (value >= maps.shape[1])).any()):
            raise ValueError(
                f"{name} holds {int(value.min())} to {int(value.max())}, there are {maps.shape[1]} classes"
            )
    places = torch.arange(len(maps), device=maps.device)
    own = maps[places, classes]
    return own - ((maps.sum(1) - own) / (maps.shape[1] - 1) if against is None else maps[places, against])


def _shares(maps: Tensor, within: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the positive part of maps as shares ``(..., n)`` in float64, and how many positions count."""
    if maps.dim() < 2:
        raise ValueError(f"expected maps (..., h, w), got {tuple(maps.shape)}")
    if not bool(torch.isfinite(maps).all()):
        raise ValueError(f"{int((~torch.isfinite(maps)).sum())} values of the maps {tuple(maps.shape)} are not finite")
    counts = torch.ones_like(maps, dtype=torch.bool)
    if within is not None:
        if within.dtype != torch.bool or within.shape[-2:] != maps.shape[-2:]:
            found = f"{within.dtype} {tuple(within.shape)}"
            raise ValueError(f"within must be bool (..., h, w) like the maps {tuple(maps.shape)}, got {found}")
        counts = counts & within
    positive = torch.where(counts, maps.detach().double().clamp_min(0), 0.0).flatten(-2)
    total, number = positive.sum(-1, keepdim=True), counts.flatten(-2).sum(-1)
    if bool((number < 2).any()):
        raise ValueError(f"a spread needs at least two positions, got {int(number.min())}")
    if empty := int((total == 0).sum()):
        raise ValueError(f"{empty} of {total.numel()} maps have no positive value: no evidence that could spread")
    return positive / total, number


def attention_entropy(maps: Tensor, within: Tensor | None = None) -> Tensor:
    """Return how evenly the positive part of maps ``(..., h, w)`` lies over positions, from 0 to 1: ``(...)``.

    ``H = -sum_i a_i log a_i / log n``, a the positive part over its sum: 1 where all n positions have the same, 0
    where one has everything. It does not change with the scale of a map.

    Args:
        within: only these positions count, bool ``(h, w)`` or ``(..., h, w)``.

    Raises:
        ValueError: maps without a positive value, values that are not finite, or fewer than two positions.

    Source: Shannon's entropy over its largest value (Pielou's evenness).

    >>> attention_entropy(torch.tensor([[2.0, 2.0], [-1.0, 0.0]])).item()
    0.5
    """
    shares, number = _shares(maps, within)
    return -torch.special.xlogy(shares, shares).sum(-1) / number.double().log()


def positions_holding(maps: Tensor, share: float = 0.5, within: Tensor | None = None) -> Tensor:
    """Return how small a part of the positions holds a share of the positive part of maps, from 0 to 1: ``(...)``.

    Between two positions it is interpolated, so an even map needs ``share`` of them.

    Raises:
        ValueError: as ``attention_entropy``, or a share that is not between 0 and 1.

    >>> positions_holding(torch.tensor([[3.0, 1.0], [0.0, 0.0]]), 0.75).item()
    0.25
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    shares, number = _shares(maps, within)
    held = shares.sort(-1, descending=True).values.cumsum(-1)
    full = (held < share).sum(-1, keepdim=True)
    before = torch.where(full > 0, held.gather(-1, (full - 1).clamp_min(0)), 0.0)
    # Rounding may leave the last sum a little below one.
    step = held.gather(-1, full.clamp_max(held.shape[-1] - 1)) - before
    return (full + (share - before) / step).squeeze(-1) / number
