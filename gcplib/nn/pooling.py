"""Covariance pools: a feature map in, one vector per image out."""

from __future__ import annotations

import torch
from torch import Tensor

from gcplib.linalg import (
    ROUTES,
    EigenvalueSet,
    GradientRule,
    SpectralFunction,
    check_map,
    covariance,
    covariance_map,
    get_function,
    get_rule,
    newton_schulz,
    newton_schulz_function,
    truncate,
)
from gcplib.nn.base import MatrixPool, Widths
from gcplib.nn.options import check_known, check_parts
from gcplib.nn.scaling_eigen import Amplifier
from gcplib.nn.scaling_eigen import amplify as amplified

__all__ = ["CovariancePool", "NewtonSchulzPool"]

# Measured on two cores: at 64 channels the products of five steps take 0.7 of the time of one eigendecomposition, at
# 128 0.9, at 256 1.3 and more.
MOST_CHANNELS_FOR_PRODUCTS = 128


class CovariancePool(MatrixPool):
    """Global covariance pooling: a spectral function of the covariance of a feature map.

    ``C = U f(lam) U^T`` with ``U diag(lam) U^T`` the covariance over positions; the exact square root by default.

    Args:
        in_channels: channels of the feature map.
        reduction: channels d after a 1x1 reduction, or after each of several; 64 to 256 are usual, because the vector
            has d (d + 1) / 2 entries. None keeps the channels.
        reduction_groups: of the reduction's convolutions.
        fn: the function f, by name (``gcplib.linalg.list_functions``), such as ``power(0.25)``, or as it is.
        rule: the gradient rule, by name (``gcplib.linalg.list_rules``), such as ``taylor(9)``, or as it is.
        route: see ``gcplib.linalg.covariance_map``.
        amplify: None, or how to amplify small eigenvalues (``gcplib.nn.amplify``): the Scaling Eigen Branch.
        keep: None for all eigenvalues, or the set to keep, such as ``top(32)``
            (``gcplib.linalg.list_eigenvalue_sets``), or as it is.
        where: which passes ``keep`` truncates: ``both``, ``forward`` or ``backward``.
        blocks: g parts of d / g channels each, with a covariance and its function for every part and none between
            them: the vector has only d (d / g + 1) / 2 entries.
        compute_dtype: ``float32`` or ``float64`` for the spectral part, or None for the features' own.
        device: of the weights.
        dtype: of the weights.

    Raises:
        ValueError: what is unknown, or cannot work together.

    Source: MPN-COV (Li et al., ICCV 2017); truncation: Song et al., ICCV 2021 and TPAMI 2022. Blocks are our reading of
    group convolution before the covariance (Wang et al., TPAMI 2020), which could not be checked.

    >>> CovariancePool(112, reduction=64).extra_repr()
    '112, out_features=2080, fn=sqrt, rule=exact, route=auto'
    >>> CovariancePool(8)(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 36])
    """

    min_positions = 2
    centered = True

    def __init__(
        self,
        in_channels: int,
        *,
        reduction: Widths = None,
        reduction_groups: int = 1,
        fn: str | SpectralFunction = "sqrt",
        rule: str | GradientRule = "exact",
        route: str = "auto",
        amplify: str | Amplifier | None = None,
        keep: str | EigenvalueSet | None = None,
        where: str = "both",
        blocks: int = 1,
        compute_dtype: str | torch.dtype | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        common = {"reduction": reduction, "reduction_groups": reduction_groups, "device": device, "dtype": dtype}
        super().__init__(in_channels, compute_dtype=compute_dtype, **common)
        check_parts("blocks", blocks, self.channels)
        fn, rule, channels = get_function(fn), get_rule(rule), self.channels // blocks
        self.settings = {"fn": fn, "rule": rule, "route": route, "amplify": amplify, "keep": keep} | self.settings
        if amplify is not None:
            fn = amplified(fn, amplify, channels)
        if keep is not None:
            self.settings["where"] = where
        if blocks > 1:
            self.settings["blocks"] = blocks
        # What cannot work fails here, not in the first training step.
        self.fn, self.rule = check_map(fn, truncate(rule, keep, where), route, channels)
        if keep is None and where != "both":
            raise ValueError(f"where={where!r} says which passes are truncated, and needs keep, such as keep='top(32)'")
        self.route, self.blocks = route, blocks

    @property
    def out_features(self) -> int:
        return self.channels * (self.channels // self.blocks + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return ``(B, d, d)``, or the blocks ``(B, g, d / g, d / g)`` on the diagonal, of features ``(B, d, M)``."""
        return covariance_map(self.parts(x), self.fn, self.rule, self.route)

    def parts(self, x: Tensor) -> Tensor:
        """Return the features of each covariance: ``(B, d, M)``, or of blocks ``(B, g, d / g, M)``."""
        return x.unflatten(1, (self.blocks, -1)) if self.blocks > 1 else x

    def pool(self, x: Tensor) -> Tensor:
        return super().pool(x).flatten(1)


class NewtonSchulzPool(CovariancePool):
    """Covariance pooling with the square root by ``steps`` Newton-Schulz steps (iSQRT-COV, CVPR 2018).

    Args:
        in_channels: channels of the feature map.
        steps: of the iteration; the paper uses 5.
        route: ``products`` runs the iteration; ``full``, ``thin`` or ``svd`` evaluate the function that it computes on
            the eigenvalues (``gcplib.linalg.newton_schulz_function``), to the same matrix and gradient. ``auto`` takes
            the eigenvalues on a CPU where positions are fewer than channels, or channels more than 128, because
            there they are cheaper (``python -m gcplib.lab.bench``), and the products elsewhere.
        options: see ``CovariancePool``; amplify, keep and rules other than exact need the eigenvalues.
    """

    fixed = ("fn",)

    def __init__(self, in_channels: int, *, steps: int = 5, route: str = "auto", **options):
        check_known("route", route, (*ROUTES, "products"))
        eigenvalues = "auto" if route == "products" else route
        super().__init__(in_channels, fn=newton_schulz_function(steps), route=eigenvalues, **options)
        plain = self.fn.base is None and self.rule == get_rule("exact")
        if route == "products" and not plain:
            raise ValueError("amplify, keep and rule need the eigenvalues, which route 'products' has not; use auto")
        self.by_products, self.steps = plain and route in ("auto", "products"), steps
        self.route = self.settings["route"] = route

    def matrix(self, x: Tensor) -> Tensor:
        x = self.parts(x)
        channels, positions = x.shape[-2:]
        cheaper = x.device.type != "cpu" or (channels <= MOST_CHANNELS_FOR_PRODUCTS and positions >= channels)
        if self.by_products and (self.route == "products" or cheaper):
            return newton_schulz(covariance(x), self.steps)
        return covariance_map(x, self.fn, self.rule, self.route)
