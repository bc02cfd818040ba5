"""What becomes of the eigenvalues in a spectral map; the eigenvectors play no part."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from gcplib.linalg.functions import SpectralFunction
from gcplib.linalg.tolerance import STRUCTURE_TOLERANCE, NonFiniteError, rank_tolerance, require

if TYPE_CHECKING:
    from gcplib.linalg.gradient_rules import GradientRule


def not_noise(lam: Tensor, rank: int, fn: SpectralFunction) -> Tensor:
    """Say which eigenvalues are not rounding noise; ``lam`` ascends, ``rank`` is the largest possible.

    Which null eigenvectors an eigendecomposition returns is arbitrary, so nothing may depend on them.
    """
    keep = lam > rank_tolerance(lam.dtype) * lam[..., -1:]
    keep[..., : lam.shape[-1] - rank] = False
    if fn.positive:
        require(keep.all(), f"{fn.name} of a singular matrix", partial(_raise_singular, fn, lam))
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
    require_finite(f, fn.name, lam)
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
    parts = lam[..., 0] / lam[..., -1].clamp(min=torch.finfo(lam.dtype).tiny)
    raise NonFiniteError(
        f"{fn} needs positive definite matrices, but in number {int(parts.argmin())} of {len(lam)} the smallest "
        f"eigenvalue is {parts.min().item():.2g} of the largest; add a multiple "
        "of the identity first; one without variance has no multiple of its trace to add"
    )


def require_semidefinite(fn: SpectralFunction, lam: Tensor) -> None:
    """Raise a ValueError where an eigenvalue is negative by more than rounding noise."""
    if lam.numel():
        ok = (lam[..., 0] >= -STRUCTURE_TOLERANCE * lam[..., -1]).all()
        require(ok, "matrices are not positive semi-definite", partial(_raise_indefinite, fn, lam))


def _raise_indefinite(fn: SpectralFunction, lam: Tensor) -> NoReturn:
    worst = int((lam[..., 0] / lam.abs().amax(-1)).argmin())
    raise NonFiniteError(
        f"{fn} needs positive semi-definite matrices, but number {worst} of {len(lam)} has eigenvalues from "
        f"{lam[worst, 0].item():.3g} to {lam[worst, -1].item():.3g}"
    )


def _raise_overflow(what: str, lam: Tensor) -> NoReturn:
    raise NonFiniteError(
        f"{what} overflows {lam.dtype}, with eigenvalues from {lam.min().item():.3g} to {lam.max().item():.3g}"
    )
