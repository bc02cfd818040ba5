"""The Gaussian pool: mean and covariance of a feature map in one matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from gcplib.linalg import GradientRule, SpectralFunction, check_map, covariance_map
from gcplib.nn.base import MatrixPool

__all__ = ["GaussianPool"]


class GaussianPool(MatrixPool):
    """Global Gaussian pooling (G2DeNet): a spectral function of the embedded Gaussian; the square root by default.

    With the mean m and the covariance S over positions, the Gaussian N(m, S) becomes one positive matrix, one row and
    column larger,

        P = [[S + m m^T, m], [m^T, 1]] = Z Z^T,    Z = [X; 1^T] / sqrt(M),

    the second moment of the features with a channel of ones, not centered. So it takes the routes of a covariance; its
    rank is at most ``min(d, M - 1) + 1``, and with positions no more than channels the thin one has the exact gradient
    from M x M. ``C = P^(1/2)`` still holds both moments: the last column of ``C C`` is (m, 1).

    Args:
        in_channels: channels of the feature map.
        fn: ``sqrt``, ``identity`` (the embedding itself) or another function with f(0) = 0, such as ``power(0.25)`` or
            ``newton_schulz(5)``, by name or as it is.
        rule: the gradient rule, by name (``gcplib.linalg.list_rules``) or as it is.
        route: see ``gcplib.linalg.covariance_map``.
        compute_dtype: ``float32`` or ``float64`` for the spectral part, or None for the features' own. The mean makes
            the largest eigenvalue, which sets what counts as zero: features whose mean is large beside their spread
            keep fewer small eigenvalues in float32 than by their covariance alone.
        common: see ``MatrixPool``.

    Returns:
        ``(B, (d + 1)(d + 2) / 2)`` from ``(B, C, H, W)``; of V views, the mean of their embeddings is pooled.

    Raises:
        ValueError: as ``CovariancePool``; and fewer than two positions, which have no covariance.

    Source: G2DeNet (Wang et al., CVPR 2017). Our reading: the paper's formula could not be checked against its text;
    released code adds a multiple of the identity before the root, this layer does not.

    >>> GaussianPool(8)(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 45])
    """

    min_positions = 2

    def __init__(
        self,
        in_channels: int,
        *,
        fn: str | SpectralFunction = "sqrt",
        rule: str | GradientRule = "exact",
        route: str = "auto",
        compute_dtype: str | torch.dtype | None = None,
        **common,
    ):
        super().__init__(in_channels, compute_dtype=compute_dtype, **common)
        self.fn, self.rule = check_map(fn, rule, route, self.channels + 1)
        self.route = route
        self.settings = {"fn": self.fn, "rule": self.rule, "route": route} | self.settings

    @property
    def out_features(self) -> int:
        return (self.channels + 1) * (self.channels + 2) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return ``f(P)``, ``(B, d + 1, d + 1)``, of reduced features ``(B, d, M)``."""
        z = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        return covariance_map(z, self.fn, self.rule, self.route, centered=False)
