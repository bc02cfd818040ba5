"""The gradient of a spectral map, such as the matrix square root: one matrix W between the eigenvectors.

For ``C = U f(lam) U^T``, every rule computes ``dl/dS = U [(U^T sym(G) U) * W] U^T`` and differs only in W. The
published ones replace ``K_ij = 1 / (lam_i - lam_j)`` in the textbook gradient of the eigendecomposition, which makes

    W_ij = f_i K_ij + f_j K_ji,    W_ii = f'(lam_i).

The exact K is antisymmetric and W the divided difference ``(f_i - f_j) / (lam_i - lam_j)``: K cancels, and the exact
rule never forms it. Approximations that are not antisymmetric where eigenvalues coincide do not cancel there; each
entry of ``gradient_rules`` says what it does instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from gcplib.linalg.divided_differences import horner
from gcplib.linalg.eigenvalues import require_finite, scale_of, seen, values
from gcplib.linalg.functions import SpectralFunction
from gcplib.linalg.tolerance import NonFiniteError, require

if TYPE_CHECKING:
    from gcplib.linalg.gradient_rules import GradientRule


def exact_weights(fn: SpectralFunction, lam: Tensor) -> Tensor:
    """Return the divided differences (Daleckii-Krein)."""
    return fn.quotient(lam.unsqueeze(-1), lam.unsqueeze(-2))


def lyapunov_weights(fn: SpectralFunction, lam: Tensor) -> Tensor:
    """Return what solves ``C X + X C = G``."""
    f = fn.value(lam)
    return 1 / (f.unsqueeze(-1) + f.unsqueeze(-2))


def no_weights(fn: SpectralFunction, lam: Tensor) -> Tensor:
    return lam.new_zeros(*lam.shape, lam.shape[-1])


def weights_from_k(k: Callable[[Tensor, Tensor], Tensor], fn: SpectralFunction, lam: Tensor) -> Tensor:
    """Return W from an approximation of ``1 / (a - b)``."""
    matrix = k(lam.unsqueeze(-1), lam.unsqueeze(-2))
    matrix = _repair(matrix.masked_fill(torch.eye(lam.shape[-1], dtype=torch.bool, device=lam.device), 0))
    rows = fn.value(lam).unsqueeze(-1) * matrix
    return rows + rows.mT + torch.diag_embed(fn.quotient(lam, lam))


def _repair(k: Tensor) -> Tensor:
    """Replace infinities by the largest and smallest finite entry of the matrix, and NaN by the largest.

    The published code does this over the whole batch, so that one image's gradient depends on its neighbors; here
    every matrix has its own.
    """
    finite = torch.where(torch.isfinite(k), k, torch.zeros_like(k))
    high, low = finite.amax((-2, -1), keepdim=True), finite.amin((-2, -1), keepdim=True)
    k = torch.where(torch.isposinf(k) | torch.isnan(k), high, k)
    return torch.where(torch.isneginf(k), low, k)


def inverse_difference(a: Tensor, b: Tensor) -> Tensor:
    return 1 / (a - b)


def _larger_and_ratio(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``1 / a`` or ``-1 / b``, of the larger one, and the ratio r of the two: ``K = first / (1 - r)``."""
    high = torch.maximum(a, b)
    return torch.where(a >= b, 1 / high, -1 / high), torch.minimum(a, b) / high


def clipped(bound: float, a: Tensor, b: Tensor) -> Tensor:
    return inverse_difference(a, b).clamp(-bound, bound)


def capped(bound: float, a: Tensor, b: Tensor) -> Tensor:
    first, _ = _larger_and_ratio(a, b)
    return first / ((a - b).abs() / torch.maximum(a, b)).clamp(min=1 / bound)


def geometric_sum(degree: int, a: Tensor, b: Tensor) -> Tensor:
    first, ratio = _larger_and_ratio(a, b)
    t, terms = ratio.log(), degree + 1
    # Without cancellation; at r = 1 it is degree + 1.
    return first * torch.where(ratio == 1, torch.full_like(t, terms), torch.expm1(terms * t) / torch.expm1(t))


def pade_quotient(degree: int, digits: int, a: Tensor, b: Tensor) -> Tensor:
    first, ratio = _larger_and_ratio(a, b)
    numerator, denominator = _pade_coefficients(degree, digits)
    return first * horner(numerator, 0, ratio) / horner(denominator, 0, ratio)


@cache
def _pade_coefficients(degree: int, digits: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # mpmath comes with torch. The linear system is singular and its solution rounding noise, as in the released code.
    import mpmath

    with mpmath.workdps(digits):
        series = mpmath.taylor(lambda r: 1 / (1 - r), 0, 2 * degree)
        above, below = mpmath.pade(series, degree, degree)
        return tuple(map(float, reversed(above))), tuple(map(float, reversed(below)))


def _truncated_weights(fn: SpectralFunction, lam: Tensor, kept: Tensor, weights: Tensor) -> Tensor:
    """Return the divided differences of f where ``kept``, 0 elsewhere, from those of f."""
    f = fn.value(lam) * kept
    rows, columns = kept.unsqueeze(-1), kept.unsqueeze(-2)
    rise = f.unsqueeze(-1) - f.unsqueeze(-2)
    across = torch.where(rise == 0, rise, rise / (lam.unsqueeze(-1) - lam.unsqueeze(-2)))
    within = torch.where(rows & columns, weights, torch.zeros_like(weights))
    return torch.where(rows ^ columns, across, within)


def weighted_gradient(
    fn: SpectralFunction,
    rule: GradientRule,
    inner: Tensor,
    lam: Tensor,
    null: Tensor,
    rank: int,
    forward_mode: bool = False,
) -> Tensor:
    """Return ``A * W``, and what reaches S through a scale or a gain, in the basis of the eigenvectors.

    With ``C = sqrt(t) f(S / t)``, dC/dt has the eigenvalues ``f_i / (2 t) - lam_i f'_i / t``. ``forward_mode`` gives
    the transposed map, from a change of S to one of C, where f has no gain.
    """
    fn = rule.surrogate or fn
    lam, kept = seen(rule, lam, rank, "backward")
    through_gain = None
    if fn.gain is not None:
        f = values(fn, lam, kept)
        gain, by_f, by_lam = fn.gain(f, lam)
        along = (inner.diagonal(dim1=-2, dim2=-1) * f).sum(-1, keepdim=True)
        inner, through_gain = inner * gain.unsqueeze(-1) + torch.diag_embed(along * by_f), along * by_lam
    t = scale_of(fn, lam)
    scaled = lam if t is None else lam / t
    weights = rule.weights(fn, scaled)
    if kept is not None:
        weights = _truncated_weights(fn, scaled, kept, weights)
    if t is not None:
        weights = weights / t.sqrt().unsqueeze(-1)
    if not _none(null):
        # Between null directions f may have no derivative; 0 is the smallest choice.
        weights = weights.masked_fill_(null.unsqueeze(-1) & null.unsqueeze(-2), 0)
    slope = weights.diagonal(dim1=-2, dim2=-1)
    require_finite(slope, f"the gradient of {fn.name}", lam)
    if kept is not None:
        require(torch.isfinite(weights).all(), "a truncation between equals", partial(_raise_tie, rule))
    weighted = inner * weights
    if t is not None and rule.through_scale:
        by_scale = (values(fn, lam, kept) / 2 - lam * slope) / t
        of_scale = torch.ones_like(lam) if fn.scale == "trace" else lam / t
        before, after = (of_scale, by_scale) if forward_mode else (by_scale, of_scale)
        through_scale = (inner.diagonal(dim1=-2, dim2=-1) * before).sum(-1, keepdim=True)
        weighted = weighted + torch.diag_embed(through_scale * after)
    return weighted if through_gain is None else weighted + torch.diag_embed(through_gain)


def _none(null: Tensor) -> bool:
    """Say whether no direction is null, where looking costs nothing: on a CPU."""
    return null.device.type == "cpu" and not torch.compiler.is_compiling() and not bool(null.any())


def _raise_tie(rule: GradientRule) -> NoReturn:
    raise NonFiniteError(
        f"an eigenvalue inside the set {rule.keep} equals one outside: which eigenvectors are kept is not defined "
        "there, and the gradient infinite"
    )
