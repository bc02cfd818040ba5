"""Every pool by name: the registry."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from gcplib.linalg import SpectralFunction, pade_function, power, taylor_function, top_n
from gcplib.linalg.calls import is_number
from gcplib.nn.base import AveragePool, Widths, check_widths
from gcplib.nn.bilinear import BilinearPool, CompactBilinearPool
from gcplib.nn.dropcov import DropCovPool
from gcplib.nn.invariant import InvariantPool
from gcplib.nn.moment_probing import MomentProbingPool
from gcplib.nn.options import check_parts, known_options, make_module
from gcplib.nn.pooling import CovariancePool, GaussianPool, LogPool, NewtonSchulzPool
from gcplib.nn.sparse_inverse import SparseInversePool


def _mpn_cov(in_channels: int, *, exponent: float | None = None, **options) -> CovariancePool:
    """Make the pool with a matrix power, 1/2 unless told otherwise."""
    if exponent is None:
        return CovariancePool(in_channels, **options)
    if "fn" in options:
        raise ValueError(f"give an exponent or a function, not both: {exponent} and {options['fn']}")
    if not (is_number(exponent) and exponent > 0):
        raise ValueError(f"the matrix power of a covariance must be positive and finite, got {exponent!r}")
    return CovariancePool(in_channels, fn=power(exponent), **options)


def _svd_top_n(
    in_channels: int, *, drop: int | None = None, reduction: Widths = None, blocks: int = 1, **options
) -> CovariancePool:
    if drop is not None and "rule" in options:
        raise ValueError(f"give a number to drop or a rule, not both: {drop} and {options['rule']}")
    if drop is None:
        # The paper drops 50 of 256: the same fraction of any other number of channels, unless told otherwise.
        channels = in_channels if reduction is None else check_widths(reduction)[-1]
        check_parts("blocks", blocks, channels)
        drop = max(1, channels // blocks * 50 // 256)
    options = {"rule": top_n(drop), "compute_dtype": "float64"} | options
    return CovariancePool(in_channels, reduction=reduction, blocks=blocks, **options)


def _approximate(in_channels: int, *, fn: str | SpectralFunction, **options) -> CovariancePool:
    """An approximate root with its published gradient, which changed ones have not: those take their exact one."""
    changed = options.get("amplify") is not None or options.get("keep") is not None
    return CovariancePool(in_channels, fn=fn, **{"rule": "exact" if changed else "lyapunov"} | options)


# With a published gradient, in float64, as the papers run it.
_exact_root = partial(CovariancePool, compute_dtype="float64")

# Every published variant, one line each.
POOLS: dict[str, Callable[..., nn.Module]] = {
    "gap": AveragePool,
    "bcnn": BilinearPool,
    "cbp": CompactBilinearPool,
    "cov": partial(CovariancePool, fn="identity"),
    "log": LogPool,
    "mpn_cov": _mpn_cov,
    "isqrt_cov": NewtonSchulzPool,
    "mpa": partial(_approximate, fn=pade_function()),
    "mtp": partial(_approximate, fn=taylor_function()),
    "svd_original": partial(_exact_root, rule="original"),
    "svd_clip": partial(_exact_root, rule="clip"),
    "svd_top_n": _svd_top_n,
    "svd_power_iteration": partial(_exact_root, rule="power_iteration"),
    "svd_newton": partial(_exact_root, rule="newton"),
    "svd_taylor": partial(_exact_root, rule="taylor"),
    "svd_pade": partial(_exact_root, rule="pade"),
    "gaussian": GaussianPool,
    "idccp": InvariantPool,
    "dropcov": DropCovPool,
    "isice": SparseInversePool,
    "moment_probing": MomentProbingPool,
}


# Names of pools that are not the library's: those that ``register_pool`` has added.
_ADDED: set[str] = set()


def list_pools() -> list[str]:
    """Return the names ``create_pool`` knows."""
    return list(POOLS)


def register_pool(name: str, make: Callable[..., nn.Module]) -> None:
    """Add a pool of one's own to those ``create_pool`` and ``list_pools`` know, until this process ends.

    Registered again, its name stands for the new one. Other processes do not know it, such as those of workers.

    Args:
        name: none of the library's.
        make: called as ``make(in_channels, **options)``, such as a class of modules. Its options are keyword-only, and
            what it returns has ``out_features``.

    Raises:
        ValueError: the library has a pool of that name, or there is no name.
        TypeError: ``make`` is no class or function, or hands options on without saying what it returns.

    >>> register_pool("gap", nn.Flatten)
    Traceback (most recent call last):
    ValueError: a pool of one's own needs a name that the library does not have, got 'gap'
    """
    if not name or (name in POOLS and name not in _ADDED):
        raise ValueError(f"a pool of one's own needs a name that the library does not have, got {name!r}")
    if isinstance(make, nn.Module) or not callable(make):
        raise TypeError(f"a pool is made by a class or function, got {type(make).__name__}: {make!r}")
    known_options(make)
    POOLS[name] = make
    _ADDED.add(name)


def create_pool(name: str | Callable[..., nn.Module] | nn.Module, in_channels: int, **options: Any) -> nn.Module:
    """Make a pooling layer by name, from ``(B, C, H, W)`` to ``(B, out_features)``.

    Args:
        name: ``gap`` average; ``bcnn`` bilinear with signed root, ``cbp`` its sketch (``sketch=8192``); ``cov``
            covariance; ``mpn_cov`` its matrix power (``exponent=0.5``, ``rule``, ``route``); ``log`` its logarithm
            (``shrinkage=0.02``); ``isqrt_cov`` the root by Newton-Schulz (``steps=5``, ``route``), ``mpa`` by a Pade
            approximant, ``mtp`` by a Taylor polynomial; ``svd_original``, ``svd_clip``, ``svd_top_n``,
            ``svd_power_iteration``, ``svd_newton``, ``svd_taylor``, ``svd_pade`` the exact root with the published
            gradient rules (``rule``; ``drop`` for the third), in float64; ``gaussian`` the root of mean and covariance
            in one matrix (``fn``, ``rule``, ``route``); ``idccp`` the root of the projected covariance
            (``projection``); ``dropcov`` the covariance, with channels dropped in training (``preserve``); ``isice``
            its sparse inverse (``steps``, ``step_size``, ``sparsity``); ``moment_probing`` average and
            cross-covariances of a projection (``width``, ``heads``). Or a class of modules, called like these; or a
            module, which is returned.
        in_channels: channels C of the feature map.
        options: of the pool. Those by name take ``reduction``, ``reduction_groups``, ``device`` and ``dtype``; all but
            ``gap``, ``cbp`` and ``moment_probing`` ``compute_dtype``; those from the eigenvalues of the covariance
            ``amplify`` (the Scaling Eigen Branch), ``keep`` and ``where`` (truncation), ``blocks`` and ``shrinkage``.

    Raises:
        ValueError: unknown name, bad sizes, or what cannot work together.
        UnknownOptionError: an option the pool does not have; it is both a ``TypeError`` and a ``ValueError``.

    >>> create_pool("isqrt_cov", 112, reduction=64).out_features
    2080
    """
    return make_module("pool", POOLS, name, in_channels, options)
