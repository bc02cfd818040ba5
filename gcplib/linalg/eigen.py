"""Eigendecomposition that never returns NaN without a word."""

import importlib.metadata
import warnings
from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from gcplib.linalg.parallel import FEWEST_ROWS, use_threads
from gcplib.linalg.tolerance import NonFiniteError, raise_non_finite, residual_tolerance

_checks = {"residual": False}


class NoEigensolverError(NotImplementedError):
    """The device has no eigendecomposition."""


def set_residual_check(on: bool) -> None:
    """Switch on, in this process, that every eigendecomposition is checked by its residual ``|S V - V L|``.

    Solvers have returned eigenvectors that are orthonormal, finite and wrong, which only this sees. A decomposition
    that fails is done again in float64; if it fails there, a NonFiniteError says so. Costs two products and, on a GPU,
    one more wait.
    """
    _checks["residual"] = on


def eigensolver_faults(torch_version: str, cusolver_version: str | None) -> list[str]:
    """Return what is known of the eigendecomposition of these versions on CUDA, one sentence each.

    >>> eigensolver_faults("2.12.0", "12.0.0.1")
    []
    """
    found = []
    if TorchVersion(torch_version) < "2.12":
        found.append(
            f"torch {torch_version} decomposes matrices above 32 rows one at a time on CUDA, some hundred times slower "
            "than 2.12, which takes a batch at once; update torch, or use route='products'"
        )
    if cusolver_version and (11, 7, 1) <= tuple(map(int, cusolver_version.split(".")[:4])) < (11, 7, 3, 90):
        found.append(
            f"cuSOLVER {cusolver_version} reads memory that it has not set, which 11.7.3.90 mends; update it, or call "
            "gcplib.linalg.set_residual_check(True)"
        )
    return found


@cache
def _warn_about_cuda() -> None:
    versions = (importlib.metadata.version(d.name) for d in importlib.metadata.distributions() if "cusolver" in d.name)
    for fault in eigensolver_faults(torch.__version__, next(versions, None)):
        warnings.warn(fault, stacklevel=2)


def _finite(lam: Tensor, u: Tensor) -> bool:
    # Entries of u are at most 1: their sum is finite if and only if they are, and takes one pass without a mask.
    return bool(torch.isfinite(lam).all() & torch.isfinite(u.sum()))


def _wrong(s: Tensor, lam: Tensor, u: Tensor) -> bool:
    """Say whether the residual of a decomposition is too large, if anyone wants to know."""
    if not _checks["residual"] or not s.numel():
        return False
    residual = (s @ u - u * lam.unsqueeze(-2)).abs().amax((-2, -1))
    return bool((residual > residual_tolerance(s.dtype, s.shape[-1]) * lam.abs().amax(-1)).any())


def _eigh(s: Tensor) -> tuple[Tensor, Tensor]:
    if s.is_cuda:
        _warn_about_cuda()
    try:
        # A decomposition of this size is as fast on one thread, and does not wait for others where cores are busy.
        with use_threads(1) if s.device.type == "cpu" and s.shape[-1] < FEWEST_ROWS else nullcontext():
            lam, u = torch.linalg.eigh(s)
        # On a GPU non-finite input gives non-finite output instead of an error.
        if _finite(lam, u) and not _wrong(s, lam, u):
            return lam, u
    except NotImplementedError as error:
        raise NoEigensolverError(f"{s.device.type} has no eigendecomposition; use route='products'") from error
    except torch.linalg.LinAlgError:
        pass
    if not torch.isfinite(s).all():
        raise_non_finite("matrices", s)
    # LAPACK's divide and conquer gives up, or returns NaN without a word, on some harmless float32 matrices (seen in
    # training at rank 9 of 64, entries between 4e-7 and 5, where dead channels make zero rows). In float64 it works.
    double = s.double()
    lam, u = torch.linalg.eigh(double)
    if not _finite(lam, u) or _wrong(double, lam, u):
        raise NonFiniteError(f"no eigendecomposition of finite matrices of shape {tuple(s.shape)}, also in float64")
    return lam.to(s.dtype), u.to(s.dtype)


@torch.library.custom_op("gcplib::eigh", mutates_args=())
def _eigh_op(s: Tensor) -> tuple[Tensor, Tensor]:
    lam, u = _eigh(s)
    return lam, u.contiguous()


@_eigh_op.register_fake
def _(s: Tensor) -> tuple[Tensor, Tensor]:
    return s.new_empty(s.shape[:-1]), s.new_empty(s.shape)


def eigh(s: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues in ascending order ``(n, d)`` and the eigenvectors ``(n, d, d)`` of symmetric matrices.

    Of ``(n, d, d)``, float32 or float64, the lower triangle is read. Not differentiable by itself.
    """
    # As one operator, the checks and the second try are no obstacle to torch.compile.
    return _eigh_op(s) if torch.compiler.is_compiling() else _eigh(s)


def svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, the singular values in ascending order, and V of ``(n, d, M)``. Not differentiable by itself."""
    if x.is_cuda and x.dtype == torch.float32:
        # torch takes one matrix at a time above 32 rows there. The product in float64 has the digits of the features.
        x = x.double()
        wide = x.shape[-1] > x.shape[-2]
        lam, side = eigh(x @ x.mT if wide else x.mT @ x)
        s = lam.clamp(min=0).sqrt()
        other = (x.mT if wide else x) @ side / torch.where(s > 0, s, torch.ones_like(s)).unsqueeze(-2)
        u, v = (side, other) if wide else (other, side)
        return u.float(), s.float(), v.float()
    try:
        u, s, vt = torch.linalg.svd(x, full_matrices=False)
    except torch.linalg.LinAlgError:
        if torch.isfinite(x).all():
            raise
        raise_non_finite("features", x)
    return u.flip(-1), s.flip(-1), vt.mT.flip(-1)
