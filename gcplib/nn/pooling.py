"""Covariance pools: a feature map in, one vector an image out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gcplib.linalg import (
    ROUTES,
    EigenvalueSet,
    GradientRule,
    SpectralFunction,
    check_map,
    covariance,
    covariance_map,
    get_eigenvalue_set,
    get_rule,
    newton_schulz,
    newton_schulz_function,
    truncate,
)
from gcplib.nn.base import MatrixPool, check_parts
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
        fn: ``sqrt``, ``identity`` or a ``SpectralFunction`` such as ``power(0.25)``.
        reduction, reduction_groups: channels d after a 1x1 reduction; see ``AveragePool``. 64 to 256 are usual: the
            vector has d (d + 1) / 2 numbers.
        rule: gradient rule (``gcplib.linalg.list_rules``). route: see ``gcplib.linalg.covariance_map``.
        compute_dtype: ``float32`` or ``float64`` for the spectral part, or None for the features' own.
        amplify: None, or how to amplify small eigenvalues (``gcplib.nn.list_amplifiers``): the Scaling Eigen Branch.
        keep: None for all eigenvalues, or the set to keep, such as ``top(32)`` (``list_eigenvalue_sets`` of
            ``gcplib.linalg``). where: which passes are truncated, ``both``, ``forward`` or ``backward``.
        blocks: g parts of d / g channels each, with a covariance and its function for every part and none between
            them: the vector has only d (d / g + 1) / 2 numbers.

    Source: MPN-COV (Li et al., ICCV 2017); truncation: Song et al., ICCV 2021 and TPAMI 2022. Blocks are our reading of
    group convolution before the covariance (Wang et al., TPAMI 2020), which could not be checked.

    >>> import torch
    >>> CovariancePool(8)(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 36])
    """

    min_positions = 2
    centered = True

    def __init__(
        self,
        in_channels: int,
        fn: str | SpectralFunction = "sqrt",
        reduction: int | Sequence[int] | None = None,
        rule: str | GradientRule = "exact",
        route: str = "auto",
        compute_dtype: str | None = None,
        amplify: str | None = None,
        keep: str | EigenvalueSet | None = None,
        where: str = "both",
        reduction_groups: int = 1,
        blocks: int = 1,
    ):
        super().__init__(in_channels, reduction, compute_dtype, reduction_groups)
        check_parts("blocks", blocks, self.channels)
        self.blocks, channels = blocks, self.channels // blocks
        if amplify is not None:
            fn = amplified(fn, amplify, channels)
        if keep is not None:
            rule = truncate(get_rule(rule), get_eigenvalue_set(keep), where)
        # What cannot work fails here, not in the first training step.
        self.fn, self.rule = check_map(fn, rule, route, channels)
        self.route = route

    @property
    def out_features(self) -> int:
        return self.channels * (self.channels // self.blocks + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return ``(B, d, d)``, or the blocks ``(B, g, d / g, d / g)`` on the diagonal, of features ``(B, d, M)``."""
        if self.blocks > 1:
            x = x.unflatten(1, (self.blocks, -1))
        return covariance_map(x, self.fn, self.rule, self.route)

    def pool(self, x: Tensor) -> Tensor:
        return super().pool(x).flatten(1)


class NewtonSchulzPool(MatrixPool):
    """Covariance pooling with the square root by ``steps`` Newton-Schulz steps (iSQRT-COV, CVPR 2018).

    Args:
        in_channels: channels of the feature map. reduction, reduction_groups: see ``AveragePool``.
        steps: of the iteration; the paper uses 5.
        route: ``products`` runs the iteration; ``full``, ``thin`` or ``svd`` evaluate the function that it computes on
            the eigenvalues (``gcplib.linalg.newton_schulz_function``), to the same matrix and gradient. ``auto`` takes
            the eigenvalues on a CPU where positions are fewer than channels, or channels more than 128, because
            there they are cheaper (``python -m gcplib.lab.bench``), and the products elsewhere.
        compute_dtype, amplify, keep, where: see ``CovariancePool``; the last three need the eigenvalues.
    """

    min_positions = 2
    centered = True

    def __init__(
        self,
        in_channels: int,
        reduction: int | Sequence[int] | None = None,
        steps: int = 5,
        route: str = "auto",
        compute_dtype: str | None = None,
        amplify: str | None = None,
        keep: str | EigenvalueSet | None = None,
        where: str = "both",
        reduction_groups: int = 1,
    ):
        super().__init__(in_channels, reduction, compute_dtype, reduction_groups)
        if route not in (*ROUTES, "products"):
            raise ValueError(f"unknown route {route!r}; known: {', '.join(ROUTES)}, products")
        self.fn, self.rule, self.steps = newton_schulz_function(steps), get_rule("exact"), steps
        self.by_products = route in ("auto", "products") and amplify is None and keep is None
        if route == "products" and not self.by_products:
            raise ValueError("amplify and keep need the eigenvalues, which route 'products' has not; use auto")
        if amplify is not None:
            self.fn = amplified(self.fn, amplify, self.channels)
        if keep is not None:
            self.rule = truncate(self.rule, get_eigenvalue_set(keep), where)
        self.route = route
        if route != "products":
            check_map(self.fn, self.rule, route, self.channels)

    def matrix(self, x: Tensor) -> Tensor:
        channels, positions = x.shape[-2:]
        cheaper = x.device.type != "cpu" or (channels <= MOST_CHANNELS_FOR_PRODUCTS and positions >= channels)
        if self.by_products and (self.route == "products" or cheaper):
            return newton_schulz(covariance(x), self.steps)
        return covariance_map(x, self.fn, self.rule, self.route)
