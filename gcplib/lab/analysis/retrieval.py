"""The nearest image by a description without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["nearest"]


def nearest(
    x: Tensor,
    known: Tensor,
    asked: Tensor,
    describe: Callable[[Tensor], Mapping[Any, Tensor]],
    room: int = 2**30,
) -> dict[Any, Tensor]:
    """Return the places in ``x`` of the known image that is nearest to each asked one by angle, for each description.

    Args:
        x: of all images, ``(images, ...)``.
        known: places of the images to choose from.
        asked: places of the images to describe and compare.
        describe: from some of ``x`` to vectors of unit norm ``(images, D)`` by name; called with few images at a time.
        room: bytes for the vectors of known images, which are taken in blocks.
    """
    each = x[0].nbytes + sum(v.nbytes for v in describe(x[known[:1]]).values())
    size, best, found = max(1, int(room // each)), {}, {}
    for block in known.split(size):
        reference = _described(x, block, describe)
        for rows in torch.arange(len(asked)).split(min(size, 256)):
            for name, query in _described(x, asked[rows], describe).items():
                cosine, place = (query @ reference[name].T).max(1)
                top = best.setdefault(name, torch.full((len(asked),), -torch.inf))
                where = found.setdefault(name, torch.zeros_like(asked))
                nearer = cosine > top[rows]
                top[rows[nearer]] = cosine[nearer]
                where[rows[nearer]] = block[place[nearer]]
    return found


def _described(x: Tensor, places: Tensor, describe: Callable[[Tensor], Mapping[Any, Tensor]]) -> dict[Any, Tensor]:
    """Describe some images, so many at a time that matrices of the channels have room."""
    found = [describe(x[few]) for few in places.split(max(1, 2**22 // x.shape[1] ** 2))]
    return {name: torch.cat([vectors[name] for vectors in found]) for name in found[0]}
