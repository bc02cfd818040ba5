"""Every pool by name: the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from gcplib.linalg import SpectralFunction, pade_function, power, taylor_function, top_n
from gcplib.nn.base import AveragePool, check_parts, check_widths
from gcplib.nn.bilinear import BilinearPool, CompactBilinearPool
from gcplib.nn.gaussian import GaussianPool
from gcplib.nn.invariant import InvariantPool
from gcplib.nn.log import LogPool
from gcplib.nn.pooling import CovariancePool, NewtonSchulzPool

__all__ = ["create_pool", "list_pools"]

# Channels after a 1x1 reduction, or after each of several, or None for no reduction.
Widths = int | Sequence[int] | None


def _mpn_cov(in_channels: int, reduction: Widths = None, exponent: float = 0.5, **options) -> CovariancePool:
    if not exponent > 0:
        raise ValueError(f"the matrix power of a covariance must be positive, got {exponent}: covariances are singular")
    return CovariancePool(in_channels, power(exponent), reduction, **options)


def _svd_top_n(
    in_channels: int, reduction: Widths = None, drop: int | None = None, blocks: int = 1, **options
) -> CovariancePool:
    if drop is None:
        # The paper drops 50 of 256: the same share of any other number of channels, unless told otherwise.
        channels = in_channels if reduction is None else check_widths(reduction)[-1]
        check_parts("blocks", blocks, channels)
        drop = max(1, channels // blocks * 50 // 256)
    options = {"rule": top_n(drop), "compute_dtype": "float64"} | options
    return CovariancePool(in_channels, "sqrt", reduction, blocks=blocks, **options)


def _approximate(fn: SpectralFunction) -> Callable[..., nn.Module]:
    """An approximate root with its published gradient, which amplified ones have not: those take their exact one."""

    def make(in_channels: int, reduction: Widths = None, amplify: str | None = None, keep=None, **options):
        rule = "lyapunov" if amplify is None and keep is None else "exact"
        return CovariancePool(in_channels, fn, reduction, **{"rule": rule, "amplify": amplify, "keep": keep} | options)

    return make


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
    "mpa": _approximate(pade_function()),
    "mtp": _approximate(taylor_function()),
    "svd_original": _svd("original"),
    "svd_clip": _svd("clip"),
    "svd_top_n": _svd_top_n,
    "svd_power_iteration": _svd("power_iteration"),
    "svd_newton": _svd("newton"),
    "svd_taylor": _svd("taylor"),
    "svd_pade": _svd("pade"),
    "gaussian": GaussianPool,
    "idccp": InvariantPool,
}


def list_pools() -> list[str]:
    """Return the names ``create_pool`` knows."""
    return list(POOLS)


def create_pool(name: str, in_channels: int, reduction: Widths = None, **options) -> nn.Module:
    """Make a pooling layer by name.

    Args:
        name: ``gap`` average; ``bcnn`` bilinear with signed root, ``cbp`` its sketch (``sketch=8192``); ``cov``
            covariance; ``mpn_cov`` its matrix power (``exponent=0.5``, ``rule``, ``route``); ``log`` its logarithm
            (``shrinkage=0.02``); ``isqrt_cov`` the root by Newton-Schulz (``steps=5``, ``route``), ``mpa`` by a Pade
            approximant, ``mtp`` by a Taylor polynomial; ``svd_original``, ``svd_clip``, ``svd_top_n``,
            ``svd_power_iteration``, ``svd_newton``, ``svd_taylor``, ``svd_pade`` the exact root with the published
            gradient rules (``rule``; ``drop`` for the third), in float64; ``gaussian`` the root of mean and covariance
            in one matrix (``fn``, ``rule``, ``route``); ``idccp`` the root of the projected covariance
            (``projection``). All take ``reduction_groups``, all but ``gap`` and ``cbp`` ``compute_dtype``; those from
            the eigenvalues of the covariance take ``amplify`` (the Scaling Eigen Branch), and ``keep`` and ``where``
            (truncation); all of these but ``isqrt_cov`` take ``blocks``.
        in_channels: channels of the feature map ``(B, C, H, W)``.
        reduction: channels after a 1x1 reduction, or after each of several, or None.

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
