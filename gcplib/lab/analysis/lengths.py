"""How long the vectors of a pool are, on which the steps of the classifier behind it depend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gcplib.nn import create_pool

__all__ = ["mean_squared_length"]


def mean_squared_length(pool: str, features: Tensor, *, seed: int = 0, **options: Any) -> float:
    """Return the mean squared length of the vectors of an untrained pool, on the features of some images.

    A classifier's step on an image is proportional to it, so a pool with longer vectors learns faster at the same rate.

    Args:
        pool: its name.
        features: ``(B, C, H, W)``.
        seed: of its weights.
        options: of the pool, such as ``reduction``.
    """
    torch.manual_seed(seed)
    made = create_pool(pool, features.shape[1], **options).train()
    with torch.no_grad():
        return made(features).square().sum(1).mean().item()
