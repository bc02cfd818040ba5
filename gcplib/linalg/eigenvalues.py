"""What becomes of the eigenvalues: those of the result, and the gradient between the eigenvectors.

A spectral function, a gradient rule and a truncation come together here; the eigenvectors play no part.
"""

from __future__ import annotations

from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from gcplib.linalg.functions import SpectralFunction
from gcplib.linalg.rule import GradientRule, truncated_weights
from gcplib.linalg.tolerance import NonFiniteError, rank_tolerance, require

__all__ = ["not_noise", "outputs", "weighted_gradient"]


def not_noise(lam: Tensor, rank: int, fn: SpectralFunction) -> Tensor:
    """Say which eigenvalues are not rounding noise; ``lam`` ascends, ``rank`` is the largest possible.

    Which null eigenvectors an eigendecomposition returns is arbitrary, so nothing may depend on them.
    """
    keep = lam > rank_tolerance(lam.dtype) * lam[..., -1:]
    keep[..., : lam.shape[-1] - rank] = False
    if fn.positive:
        require(keep.all(), f"{fn.name} of a singular matrix", partial(_raise_singular, fn, lam))
    return keep


def _scale(fn: SpectralFunction, lam: Tensor) -> Tensor | None:
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


def _raise_singular(fn: SpectralFunction, lam: Tensor) -> NoReturn:
    worst = (lam[..., 0] / lam[..., -1].clamp(min=torch.finfo(lam.dtype).tiny)).min()
    raise NonFiniteError(
        f"{fn.name} needs positive definite matrices, but the smallest eigenvalue is {worst.item():.2g} of the "
        "largest; add a multiple of the identity first"
    )


def _raise_overflow(what: str, lam: Tensor) -> NoReturn:
    raise NonFiniteError(
        f"{what} overflows {lam.dtype}, with eigenvalues from {lam.min().item():.3g} to {lam.max().item():.3g}"
    )


def _seen(rule: GradientRule, lam: Tensor, rank: int, direction: str) -> tuple[Tensor, Tensor | None]:
    """Return the eigenvalues as a truncated rule sees them in one pass, and which of them count (None: all)."""
    kept = rule.kept(lam, rank, direction)
    if kept is not None and rule.released:
        return torch.where(kept, lam, torch.full_like(lam, torch.finfo(lam.dtype).eps)), None
    return lam, kept


def _values(fn: SpectralFunction, lam: Tensor, kept: Tensor | None) -> Tensor:
    """Return ``sqrt(t) f(lam / t)``, 0 where not kept; a zero matrix has no scale and gives zeros."""
    t = _scale(fn, lam)
    f = fn.value(lam) if t is None else fn.value(lam / t) * t.sqrt() * (lam[..., -1:] > 0)
    require(torch.isfinite(f).all(), f"{fn.name} overflows", partial(_raise_overflow, fn.name, lam))
    return f if kept is None else f * kept


def outputs(fn: SpectralFunction, rule: GradientRule, lam: Tensor, rank: int, direction: str = "forward") -> Tensor:
    """Return the eigenvalues of the result."""
    lam, kept = _seen(rule, lam, rank, direction)
    f = _values(fn, lam, kept)
    return f if fn.gain is None else f * fn.gain(f, lam)[0]


def weighted_gradient(
    fn: SpectralFunction, rule: GradientRule, inner: Tensor, lam: Tensor, null: Tensor | None, rank: int
) -> Tensor:
    """Return ``A * W``, and what reaches S through a scale or a gain, in the basis of the eigenvectors.

    With ``C = sqrt(t) f(S / t)``, dC/dt has the eigenvalues ``f_i / (2 t) - lam_i f'_i / t``.
    """
    fn = rule.surrogate or fn
    lam, kept = _seen(rule, lam, rank, "backward")
    through_gain = None
    if fn.gain is not None:
        f = _values(fn, lam, kept)
        gain, by_f, by_lam = fn.gain(f, lam)
        along = (inner.diagonal(dim1=-2, dim2=-1) * f).sum(-1, keepdim=True)
        inner, through_gain = inner * gain.unsqueeze(-1) + torch.diag_embed(along * by_f), along * by_lam
    t = _scale(fn, lam)
    scaled = lam if t is None else lam / t
    weights = rule.weights(fn, scaled)
    if kept is not None:
        weights = truncated_weights(fn, scaled, kept, weights)
    if t is not None:
        weights = weights / t.sqrt().unsqueeze(-1)
    if null is not None:
        # Between null directions f may have no derivative; 0 is the smallest choice.
        weights = weights.masked_fill_(null.unsqueeze(-1) & null.unsqueeze(-2), 0)
    slope = weights.diagonal(dim1=-2, dim2=-1)
    what = f"the gradient of {fn.name}"
    require(torch.isfinite(slope).all(), f"{what} overflows", partial(_raise_overflow, what, lam))
    if kept is not None:
        require(torch.isfinite(weights).all(), "a truncation between equals", partial(_raise_tie, rule))
    weighted = inner * weights
    if t is not None and rule.through_scale:
        diagonal = inner.diagonal(dim1=-2, dim2=-1)
        through_scale = (diagonal * (_values(fn, lam, kept) / 2 - lam * slope) / t).sum(-1, keepdim=True)
        toward = torch.ones_like(lam) if fn.scale == "trace" else lam / t
        weighted = weighted + torch.diag_embed(through_scale * toward)
    return weighted if through_gain is None else weighted + torch.diag_embed(through_gain)


def _raise_tie(rule: GradientRule) -> NoReturn:
    raise NonFiniteError(
        f"an eigenvalue inside the set {rule.keep} equals one outside: which eigenvectors are kept is not defined "
        "there, and the gradient infinite"
    )
