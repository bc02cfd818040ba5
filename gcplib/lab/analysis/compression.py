"""What a head costs: numbers to store, and the time of a step of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from gcplib.lab.analysis.turns import now, take_turns
from gcplib.models import Head

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["head_weights", "step_times"]


def head_weights(head: Head) -> dict[str, int]:
    """Return the length of the ``vector`` of a head, and its trained numbers: of ``reduction`` and ``classifier``.

    >>> from gcplib import create_pool
    >>> head_weights(Head(create_pool("mpn_cov", 12, reduction=8), 10))
    {'vector': 36, 'reduction': 112, 'classifier': 370}
    """
    reduction, classifier = (
        sum(values.numel() for values in part.parameters()) for part in (head.pool, head.classifier)
    )
    return {"vector": head.pool.out_features, "reduction": reduction, "classifier": classifier}


def step_times(heads: Mapping[str, Head], features: Tensor, target: Tensor, rounds: int = 9) -> pd.DataFrame:
    """Time what a step of training computes: logits, cross-entropy, and the gradients of all weights of a head.

    The heads take turns, so that whatever else the machine does meets all of them. Compare within rounds.

    Args:
        heads: by name, on the features' device; their weights stay as they are, statistics of batch norm do not.
        features: a batch ``(B, C, H, W)``. target: its classes ``(B,)``. rounds: timed steps of each, after one more.

    Returns:
        One row a head and round: ``head``, ``round``, ``ms``.

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
