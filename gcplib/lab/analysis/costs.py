"""What a part of a network costs: its parameters, and the time of a step of training with it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor, nn

from gcplib.lab.analysis.speed import step_times

__all__ = ["count_parameters", "overhead"]


def count_parameters(*parts: nn.Module) -> int:
    """Return the number of parameters of several modules together."""
    return sum(p.numel() for part in parts for p in part.parameters())


def overhead(networks: Mapping[str, nn.Module], x: Tensor, rounds: int = 5) -> pd.DataFrame:
    """Return the parameters of networks, and the time of a step of training, beside the first of them.

    Args:
        networks: by name; they stay as they are.
        x: a batch of inputs; all are of the first class.
        rounds: timed steps of each, in turns.

    Returns:
        Rows by name with ``parameters``, ``more than the first``, ``ms``, the median, and the ratio to the first
        within rounds: ``over the first``, the median, ``at least`` and ``at most``.
    """
    target = torch.zeros(len(x), dtype=torch.long, device=x.device)
    times = step_times(copy.deepcopy(dict(networks)), x, target, rounds)
    by_round = times.pivot(index="round", columns="head", values="ms")[list(networks)]
    ratios = by_round.div(by_round.iloc[:, 0], axis=0)
    found = pd.DataFrame({"parameters": {name: count_parameters(network) for name, network in networks.items()}})
    found["more than the first"] = found.parameters - found.parameters.iloc[0]
    found["ms"] = by_round.median().round(1)
    found["over the first"] = ratios.median()
    return found.assign(**{"at least": ratios.min(), "at most": ratios.max()})
