"""Tasks of notebook 00: the average and the covariance of one image's features."""

from __future__ import annotations

import torch
from torch import Tensor

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]


def features() -> list[tuple[Tensor]]:
    """Feature maps ``(d, h, w)`` of images that are not square, with a mean that is not zero."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(*size, generator=generator) + 1,) for size in ((3, 4, 5), (6, 2, 2))]


def matrices() -> list[tuple[Tensor]]:
    """The same, as matrices ``(d, M)`` of channels by positions."""
    return [(maps.flatten(1),) for (maps,) in features()]


def average(maps: Tensor) -> Tensor:
    """A solution."""
    return maps.mean((1, 2))


def _centered(X: Tensor) -> Tensor:
    return X - X.mean(1, keepdim=True)


def covariance(X: Tensor) -> Tensor:
    """A solution."""
    Xc = _centered(X)
    return Xc @ Xc.T / X.shape[1]


def _covariance_in_a_loop(X: Tensor) -> Tensor:
    mean = X.mean(1)
    return sum(torch.outer(x - mean, x - mean) for x in X.T) / X.shape[1]


TASKS = {
    "00_average": Task(
        "Write the body of `average`: one number per channel.",
        average,
        features,
        mistakes={
            "it averages over the channels; keep one number per channel": lambda maps: maps.mean(0),
            "it is one number for all channels; keep one number per channel": lambda maps: maps.mean(),
            "it averages over one of the two directions of the map only": lambda maps: maps.mean(2),
            "it is the sum; divide by the number of positions": lambda maps: maps.sum((1, 2)),
            "it is the largest response; take the mean": lambda maps: maps.amax((1, 2)),
        },
        alternatives=(lambda maps: maps.flatten(1).sum(1) / maps[0].numel(),),
    ),
    "00_covariance": Task(
        "Write the body of `covariance`: center the features, then multiply.",
        covariance,
        matrices,
        mistakes={
            "the mean is not removed: this is the second moment": lambda X: X @ X.T / X.shape[1],
            "it is the covariance of the positions; that of the channels is d x d": lambda X: covariance(X.T),
            "Xc and its transpose are exchanged: Xc.T @ Xc is of positions by positions": lambda X: (
                _centered(X).T @ _centered(X) / X.shape[1]
            ),
            "one mean of all channels is removed; every channel has its own": lambda X: (
                (X - X.mean()) @ (X - X.mean()).T / X.shape[1]
            ),
            "it has the variance of each channel alone; channels are multiplied with each other": lambda X: torch.diag(
                X.var(1, correction=0)
            ),
            "each position is centered over its channels; center each channel over its positions": lambda X: (
                (X - X.mean(0)) @ (X - X.mean(0)).T / X.shape[1]
            ),
            "it is divided by M - 1; here by M": lambda X: torch.cov(X),
            "it is not divided by the number of positions": lambda X: X.shape[1] * covariance(X),
            "it is divided by the number of channels; divide by that of positions": lambda X: (
                covariance(X) * X.shape[1] / X.shape[0]
            ),
            "these are correlations; keep the scale of the channels": lambda X: torch.corrcoef(X),
        },
        alternatives=(_covariance_in_a_loop, lambda X: torch.cov(X, correction=0)),
    ),
}
