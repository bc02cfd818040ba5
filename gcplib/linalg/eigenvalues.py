"""What becomes of the eigenvalues in a spectral map; the eigenvectors play no part."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from gcplib.linalg.functions import SpectralFunction
from gcplib.linalg.tolerance import NonFiniteError, rank_tolerance, require

if TYPE_CHECKING:
    from gcplib.linalg.gradient_rules import GradientRule


def not_noise(lam: Tensor, rank: int, fn: SpectralFunction) -> Tensor:
    """Say which eigenvalues are not rounding noise; ``lam`` ascends, ``rank`` is the largest possible.

    Which null eigenvectors an eigendecomposition returns is arbitrary, so nothing may depend on them.
    """
    keep = lam > rank_tolerance(lam.dtype) * lam[..., -1:]
    keep[..., : lam.shape[-1] - rank] = False
    if fn.positive:
        require(keep.all(), f"{fn} of a singular matrix", partial(_raise_singular, fn, lam))
    return keep


def scale_of(fn: SpectralFunction, lam: Tensor) -> Tensor | None:
    """Return the t of ``C = sqrt(t) f(S / t)``, shape ``(..., 1)``, 1 for zero matrices; None for functions without."""
    if fn.scale is None:
        return None
    if fn.scale == "trace":
        t = lam.sum(-1, keepdim=True)
    else:
        # Divided by the largest first: the squares of small numbers are zero in float32.
        top = torch.where(lam[..., -1:] > 0, lam[..., -1:], torch.ones_like(lam[..., -1:]))
        t = top * (lam / top).square().sum(-1, keepdim=True).sqrt()
    return torch.where(t > 0, t, torch.ones_like(t))


def seen(rule: GradientRule, lam: Tensor, rank: int, direction: str) -> tuple[Tensor, Tensor | None]:
    """Return the eigenvalues as a truncated rule sees them in one pass, and which of them count (None: all)."""
    if rule.keep is None or rule.where not in ("both", direction):
        return lam, None
    if rule.clamps_forward:
        # Null directions take part like all others.
        kept = rule.keep.mask(lam, lam.shape[-1])
        return torch.where(kept, lam, torch.full_like(lam, torch.finfo(lam.dtype).eps)), None
    return lam, rule.keep.mask(lam, rank)


def values(fn: SpectralFunction, lam: Tensor, kept: Tensor | None) -> Tensor:
    """Return ``sqrt(t) f(lam / t)``, 0 where not kept; a zero matrix has no scale and gives zeros."""
    t = scale_of(fn, lam)
    f = fn.value(lam) if t is None else fn.value(lam / t) * t.sqrt() * (lam[..., -1:] > 0)
    require_finite(f, f"{fn}", lam)
    return f if kept is None else f * kept


def outputs(fn: SpectralFunction, rule: GradientRule, lam: Tensor, rank: int, direction: str = "forward") -> Tensor:
    """Return the eigenvalues of the result."""
    lam, kept = seen(rule, lam, rank, direction)
    f = values(fn, lam, kept)
    return f if fn.gain is None else f * fn.gain(f, lam)[0]


def require_finite(value: Tensor, what: str, lam: Tensor) -> None:
    """Raise ``NonFiniteError`` unless what was made of the eigenvalues is finite."""
    require(torch.isfinite(value).all(), f"{what} overflows", partial(_raise_overflow, what, lam))


def _raise_singular(fn: SpectralFunction, lam: Tensor) -> NoReturn:
    worst = (lam[..., 0] / lam[..., -1].clamp(min=torch.finfo(lam.dtype).tiny)).min()
    raise NonFiniteError(
        f"{fn} needs positive definite matrices, but the smallest eigenvalue is {worst.item():.2g} of the "
        "largest; add a multiple of the identity first"
    )


def _raise_overflow(what: str, lam: Tensor) -> NoReturn:
    raise NonFiniteError(
        f"{what} overflows {lam.dtype}, with eigenvalues from {lam.min().item():.3g} to {lam.max().item():.3g}"
    )
