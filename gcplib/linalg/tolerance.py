"""The one place that knows how small is zero, by dtype."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

# In units of machine epsilon times the largest eigenvalue (or singular value, where the features themselves are
# decomposed). Measured at 48 to 256 channels: rounding noise of null eigenvalues stays below 4 for every size, and
# a factor of 40 already costs more gradient accuracy at condition 1e6 than noise does. tests/linalg holds both ends.
RANK_FACTOR = 4.0
SPECTRAL_DTYPES = (torch.float32, torch.float64)
# Of the largest entry, or eigenvalue: how far a matrix may be from symmetric, or have negative eigenvalues, and still
# be taken for a covariance with rounding noise, of half precision features at worst.
STRUCTURE_TOLERANCE = 1e-3
# Arguments of ``accelerated_steps`` for an exact root by products.
ROOT_STEPS = {torch.float32: (10, 4e-6, 0.1), torch.float64: (17, 1e-10, 0.1)}


class NonFiniteError(ValueError):
    """Features, or a matrix made of them, hold NaN or infinity; the message says how many and where first."""


def rank_tolerance(dtype: torch.dtype) -> float:
    """Return the fraction of the largest eigenvalue up to which an eigenvalue counts as zero: ``4 * eps(dtype)``.

    Raises:
        TypeError: ``dtype`` is not one an eigendecomposition can run in.
    """
    if dtype not in SPECTRAL_DTYPES:
        names = ", ".join(map(str, SPECTRAL_DTYPES))
        raise TypeError(f"no spectral tolerance for {dtype}; convert the features to one of {names}")
    return RANK_FACTOR * torch.finfo(dtype).eps


def residual_tolerance(dtype: torch.dtype, rows: int) -> float:
    """Return what ``|S V - V L|`` may be at most over the largest eigenvalue: ``8 rows eps``, ten times what it is."""
    return 8 * rows * torch.finfo(dtype).eps


def spectral_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype the spectral part runs in: ``dtype`` itself, or float32 for half precisions."""
    return dtype if dtype in SPECTRAL_DTYPES else torch.float32


def check_matrices(s: Tensor) -> None:
    """Raise ``ValueError`` unless ``s`` is square matrices ``(..., d, d)``."""
    if s.dim() < 2 or s.shape[-1] != s.shape[-2]:
        raise ValueError(f"expected square matrices (..., d, d), got {tuple(s.shape)}")


def check_symmetric(s: Tensor) -> None:
    """Raise a ValueError unless the matrices ``(..., d, d)`` are square, finite and symmetric up to rounding noise."""
    check_matrices(s)
    if s.numel() == 0:
        return
    apart, largest = (s - s.mT).abs().amax(), s.abs().amax()
    # Neither NaN nor an infinity is within the tolerance.
    require(
        apart <= STRUCTURE_TOLERANCE * largest, "matrices are not finite and symmetric", partial(_raise_asymmetric, s)
    )


def check_semidefinite(s: Tensor) -> None:
    """Raise a ValueError where ``check_symmetric`` does, or where a principal minor of one or two rows is negative.

    It is what can be seen without eigenvalues: ``S_ii >= 0`` and ``S_ij^2 <= S_ii S_jj``, up to rounding noise.
    """
    check_symmetric(s)
    if s.numel() == 0:
        return
    # Relative to the largest, whose square may overflow.
    r = s / s.abs().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(s.dtype).tiny)
    d = r.diagonal(dim1=-2, dim2=-1)
    minors = d[..., :, None] * d[..., None, :] - r * r
    ok = (d >= -STRUCTURE_TOLERANCE).all() & (minors >= -STRUCTURE_TOLERANCE).all()
    require(ok, "matrices are not positive semi-definite", partial(_raise_indefinite, s, d, minors))


def _raise_indefinite(s: Tensor, d: Tensor, minors: Tensor) -> NoReturn:
    worst = int(torch.minimum(d.amin(-1), minors.amin((-2, -1))).argmin())
    raise ValueError(
        f"matrices of shape {tuple(s.shape)} are not positive semi-definite: number {worst} has a negative entry on "
        "its diagonal, or one beside it that is larger than those of the diagonal allow"
    )


def _raise_asymmetric(s: Tensor) -> NoReturn:
    if not torch.isfinite(s).all():
        raise_non_finite("matrices", s)
    apart = (s - s.mT).abs().amax((-2, -1)).flatten()
    worst = int(apart.argmax())
    raise ValueError(
        f"matrices of shape {tuple(s.shape)} are not symmetric: entries of number {worst} differ from those across the "
        f"diagonal by up to {apart[worst].item():.3g}; take (S + S^T) / 2 if that is what is meant"
    )


_waiting = threading.local()


def require(ok: Tensor, message: str, otherwise: Callable[[], NoReturn]) -> None:
    """Call ``otherwise``, which says what is wrong and where, unless the one-element tensor ``ok`` is true.

    Within ``one_look`` at its end. In a compiled graph, where no value can be looked at, the graph itself fails with
    the short message, made of texts alone: torch 2.11 formats no objects there.
    """
    if torch.compiler.is_compiling() or (ok.is_cuda and torch.cuda.is_current_stream_capturing()):
        torch._assert_async(ok, message)
    elif (checks := getattr(_waiting, "checks", None)) is not None:
        checks.append((ok, otherwise))
    elif not bool(ok):
        otherwise()


@contextmanager
def one_look() -> Iterator[None]:
    """Let all that is required within wait for its end: a GPU then waits once for the host, and not at every check."""
    if torch.compiler.is_compiling() or getattr(_waiting, "checks", None) is not None:
        yield
        return
    checks: list[tuple[Tensor, Callable[[], NoReturn]]] = []
    _waiting.checks = checks
    try:
        yield
    finally:
        _waiting.checks = None
    if checks and not bool(torch.stack([ok for ok, _ in checks]).all()):
        for ok, otherwise in checks:
            if not bool(ok):
                otherwise()


def raise_non_finite(name: str, value: Tensor, made: str = "what is made of them") -> NoReturn:
    """Raise ``NonFiniteError`` with the count and the first index of what is not finite in ``value``.

    Where everything is finite, ``made`` names what overflowed.
    """
    bad = ~torch.isfinite(value)
    count = int(bad.sum())
    if count:
        first = tuple(bad.nonzero()[0].tolist())
        raise NonFiniteError(
            f"{name} of shape {tuple(value.shape)} hold {count} non-finite values, the first one at {first}: "
            f"{value[first].item()}; look for a diverged step before the pooling (learning rate, loss scale)"
        )
    raise NonFiniteError(
        f"{name} of shape {tuple(value.shape)} are finite, but {made} overflows {value.dtype}; "
        f"largest magnitude {value.abs().max().item():.3g}. Normalize them or compute in float64"
    )
