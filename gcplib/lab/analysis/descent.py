"""A training loop that lets its caller look at every batch before the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcplib.linalg import NonFiniteError

__all__ = ["descend"]


def descend(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer, clip: float = 0.0
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Train on ``batches`` by cross-entropy, and yield each with its number before the step that is made on it.

    Args:
        model: trained in place.
        batches: inputs and labels.
        optimizer: of the model's parameters.
        clip: largest gradient norm of a step, 0 for none.

    Raises:
        NonFiniteError: the gradient of a batch is not finite; no step is made on it.
    """
    model.train()
    for step, (inputs, labels) in enumerate(batches):
        yield step, inputs, labels
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(inputs), labels).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf).item()
        if not math.isfinite(norm):
            raise NonFiniteError(f"the gradient of batch {step} has norm {norm}; look at rule and learning rate")
        optimizer.step()
