"""Covariance pools, and the registry that names every pool: a feature map in, one vector a picture out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from gcplib.linalg import (
    ROUTES,
    GradientRule,
    SpectralFunction,
    check_map,
    covariance,
    covariance_map,
    logm,
    newton_schulz,
    newton_schulz_function,
    pade_function,
    power,
    taylor_function,
    top_n,
)
from gcplib.nn.base import AveragePool, MatrixPool
from gcplib.nn.bilinear import BilinearPool, CompactBilinearPool

__all__ = ["CovariancePool", "LogPool", "NewtonSchulzPool", "create_pool", "list_pools"]

# Measured on two cores: at 64 channels the products of five steps take 0.7 of the time of one eigendecomposition, at
# 128 0.9, at 256 1.3 and more.
MOST_CHANNELS_FOR_PRODUCTS = 128


class CovariancePool(MatrixPool):
    """Global covariance pooling: a spectral function of the covariance of a feature map.

    ``C = U f(lam) U^T`` with ``U diag(lam) U^T`` the covariance over positions; the exact square root by default.

    Args:
        in_channels: channels of the feature map.
        fn: ``sqrt``, ``identity`` or a ``SpectralFunction`` such as ``power(0.25)``.
        reduction: channels after a 1x1 reduction, or None. 64 to 256 are usual: the vector has d (d + 1) / 2 numbers.
        rule: gradient rule (``gcplib.linalg.list_rules``). route: see ``gcplib.linalg.covariance_map``.
        compute_dtype: ``float32`` or ``float64`` for the spectral part, or None for the features' own.

    Source: MPN-COV (Li et al., ICCV 2017).

    >>> CovariancePool(8)(torch.randn(2, 8, 5, 5)).shape
    torch.Size([2, 36])
    """

    min_positions = 2

    def __init__(
        self,
        in_channels: int,
        fn: str | SpectralFunction = "sqrt",
        reduction: int | None = None,
        rule: str | GradientRule = "exact",
        route: str = "auto",
        compute_dtype: str | None = None,
    ):
        super().__init__(in_channels, reduction, compute_dtype)
        # What cannot work fails here, not in the first training step.
        self.fn, self.rule = check_map(fn, rule, route, self.channels)
        self.route = route

    def matrix(self, x: Tensor) -> Tensor:
        return covariance_map(x, self.fn, self.rule, self.route)


class NewtonSchulzPool(MatrixPool):
    """Covariance pooling with the square root by ``steps`` Newton-Schulz steps (iSQRT-COV, CVPR 2018).

    Args:
        in_channels: channels of the feature map. reduction: channels after a 1x1 reduction, or None.
        steps: of the iteration; the paper uses 5.
        route: ``products`` runs the iteration; ``full``, ``thin`` or ``svd`` evaluate the function that it computes on
            the eigenvalues (``gcplib.linalg.newton_schulz_function``), to the same matrix and gradient. ``auto`` takes
            the eigenvalues on a CPU where positions are fewer than channels, or channels more than 128, because
            there they are cheaper (``python -m gcplib.bench``), and the products elsewhere.
        compute_dtype: see ``CovariancePool``.
    """

    min_positions = 2

    def __init__(
        self,
        in_channels: int,
        reduction: int | None = None,
        steps: int = 5,
        route: str = "auto",
        compute_dtype: str | None = None,
    ):
        super().__init__(in_channels, reduction, compute_dtype)
        self.fn, self.steps, self.route = newton_schulz_function(steps), steps, route
        if route not in (*ROUTES, "products"):
            raise ValueError(f"unknown route {route!r}; known: {', '.join(ROUTES)}, products")
        if route != "products":
            check_map(self.fn, "exact", route, self.channels)

    def matrix(self, x: Tensor) -> Tensor:
        channels, positions = x.shape[-2:]
        cheaper = x.device.type != "cpu" or (channels <= MOST_CHANNELS_FOR_PRODUCTS and positions >= channels)
        if self.route == "products" or (self.route == "auto" and cheaper):
            return newton_schulz(covariance(x), self.steps)
        return covariance_map(x, self.fn, route=self.route)


class LogPool(MatrixPool):
    """The logarithm of the shrunk covariance: the log-Euclidean map of positive definite matrices to a vector space.

    ``log((1 - a) S + a tr(S) / d I)``: covariances are singular where positions are fewer than channels, and the
    logarithm of zero is infinite, so some shrinkage is part of the method.

    Args:
        in_channels: C. reduction: channels d after a 1x1 reduction, or None. shrinkage: a, between 0 and 1.

    Raises:
        NonFiniteError: a picture without any variance, such as one of constant features.

    Source: O2P (Carreira et al., ECCV 2012), DeepO2P (Ionescu et al., ICCV 2015).
    """

    min_positions = 2

    def __init__(
        self,
        in_channels: int,
        reduction: int | None = None,
        shrinkage: float = 0.02,
        compute_dtype: str | None = None,
    ):
        super().__init__(in_channels, reduction, compute_dtype)
        if not 0 < shrinkage <= 1:
            raise ValueError(f"shrinkage must be above 0 and at most 1, got {shrinkage}")
        self.shrinkage = shrinkage

    def matrix(self, x: Tensor) -> Tensor:
        s = covariance(x)
        mean = s.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        eye = torch.eye(self.channels, dtype=s.dtype, device=s.device)
        return logm((1 - self.shrinkage) * s + self.shrinkage * mean * eye)


def _mpn_cov(in_channels: int, reduction: int | None = None, exponent: float = 0.5, **options) -> CovariancePool:
    if not exponent > 0:
        raise ValueError(f"the matrix power of a covariance must be positive, got {exponent}: covariances are singular")
    return CovariancePool(in_channels, power(exponent), reduction, **options)


def _svd_top_n(in_channels: int, reduction: int | None = None, drop: int | None = None, **options) -> CovariancePool:
    # The paper drops 50 of 256: the same share of any other number of channels, unless told otherwise.
    drop = max(1, (reduction or in_channels) * 50 // 256) if drop is None else drop
    return CovariancePool(in_channels, "sqrt", reduction, **{"rule": top_n(drop), "compute_dtype": "float64"} | options)


def _svd(rule: str) -> Callable[..., nn.Module]:
    """The exact root with a published gradient, in float64, as the papers run it."""
    return partial(CovariancePool, rule=rule, compute_dtype="float64")


# Every published variant, one line each.
POOLS: dict[str, Callable[..., nn.Module]] = {
    "gap": AveragePool,
    "bcnn": BilinearPool,
    "cbp": CompactBilinearPool,
    "cov": partial(CovariancePool, fn="identity"),
    "log": LogPool,
    "mpn_cov": _mpn_cov,
    "isqrt_cov": NewtonSchulzPool,
    "mpa": partial(CovariancePool, fn=pade_function(), rule="lyapunov"),
    "mtp": partial(CovariancePool, fn=taylor_function(), rule="lyapunov"),
    "svd_original": _svd("original"),
    "svd_clip": _svd("clip"),
    "svd_top_n": _svd_top_n,
    "svd_power_iteration": _svd("power_iteration"),
    "svd_newton": _svd("newton"),
    "svd_taylor": _svd("taylor"),
    "svd_pade": _svd("pade"),
}


def list_pools() -> list[str]:
    """Return the names ``create_pool`` knows."""
    return list(POOLS)


def create_pool(name: str, in_channels: int, reduction: int | None = None, **options) -> nn.Module:
    """Make a pooling layer by name.

    Args:
        name: ``gap`` average; ``bcnn`` bilinear with signed root, ``cbp`` its sketch (``sketch=8192``); ``cov``
            covariance; ``mpn_cov`` its matrix power (``exponent=0.5``, ``rule``, ``route``); ``log`` its logarithm
            (``shrinkage=0.02``); ``isqrt_cov`` the root by Newton-Schulz (``steps=5``, ``route``), ``mpa`` by a Pade
            approximant, ``mtp`` by a Taylor polynomial; ``svd_original``, ``svd_clip``, ``svd_top_n``,
            ``svd_power_iteration``, ``svd_newton``, ``svd_taylor``, ``svd_pade`` the exact root with the published
            gradient rules (``rule``; ``drop`` for the third), in float64. All but ``gap`` and ``cbp``
            take ``compute_dtype``.
        in_channels: channels of the feature map ``(B, C, H, W)``.
        reduction: channels after a 1x1 reduction, or None.

    Returns:
        A module from ``(B, C, H, W)`` to ``(B, out_features)``.

    Raises:
        ValueError: unknown name, or bad sizes. TypeError: an option the pool does not have.

    >>> create_pool("isqrt_cov", 112, reduction=64).out_features
    2080
    """
    if name not in POOLS:
        raise ValueError(f"unknown pool {name!r}; known: {', '.join(list_pools())}")
    try:
        return POOLS[name](in_channels, reduction=reduction, **options)
    except TypeError as error:
        raise TypeError(f"pool {name!r}: {error}") from error
