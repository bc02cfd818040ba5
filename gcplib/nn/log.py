"""The log-Euclidean pool."""

from __future__ import annotations

import torch
from torch import Tensor

from gcplib.linalg import covariance, logm
from gcplib.nn.base import MatrixPool

__all__ = ["LogPool"]


class LogPool(MatrixPool):
    """The logarithm of the shrunk covariance: the log-Euclidean map of positive definite matrices to a vector space.

    ``log((1 - a) S + a tr(S) / d I)``: covariances are singular where positions are fewer than channels, and the
    logarithm of zero is infinite, so some shrinkage is part of the method.

    Args:
        in_channels: C.
        shrinkage: a, above 0 and at most 1.
        common: see ``MatrixPool``.

    Raises:
        NonFiniteError: an image without any variance, such as one of constant features.

    Source: O2P (Carreira et al., ECCV 2012), DeepO2P (Ionescu et al., ICCV 2015).
    """

    min_positions = 2
    centered = True

    def __init__(self, in_channels: int, *, shrinkage: float = 0.02, **common):
        super().__init__(in_channels, **common)
        if not 0 < shrinkage <= 1:
            raise ValueError(f"shrinkage must be above 0 and at most 1, got {shrinkage}")
        self.shrinkage = self.settings["shrinkage"] = shrinkage

    def matrix(self, x: Tensor) -> Tensor:
        s = covariance(x)
        mean = s.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        eye = torch.eye(self.channels, dtype=s.dtype, device=s.device)
        return logm((1 - self.shrinkage) * s + self.shrinkage * mean * eye)
