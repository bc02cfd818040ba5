"""The one place that knows how small is zero, by dtype."""

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

# In units of machine epsilon times the largest eigenvalue (or singular value, where the features themselves are
# decomposed). Measured at 48 to 256 channels: rounding noise of null eigenvalues stays below 4 for every size, and
# a factor of 40 already costs more gradient accuracy at condition 1e6 than noise does. tests/linalg holds both ends.
RANK_FACTOR = 4.0
SPECTRAL_DTYPES = (torch.float32, torch.float64)


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


def spectral_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype the spectral part runs in: ``dtype`` itself, or float32 for half precisions."""
    return dtype if dtype in SPECTRAL_DTYPES else torch.float32


def check_matrices(s: Tensor) -> None:
    """Raise ``ValueError`` unless ``s`` is square matrices ``(..., d, d)``."""
    if s.dim() < 2 or s.shape[-1] != s.shape[-2]:
        raise ValueError(f"expected square matrices (..., d, d), got {tuple(s.shape)}")


def require(ok: Tensor, message: str, otherwise: Callable[[], NoReturn]) -> None:
    """Call ``otherwise``, which says what is wrong and where, unless the one-element tensor ``ok`` is true.

    In a compiled graph, where no value can be looked at, the graph itself fails with the short message.
    """
    if torch.compiler.is_compiling() or (ok.is_cuda and torch.cuda.is_current_stream_capturing()):
        torch._assert_async(ok, message)
    elif not bool(ok):
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
