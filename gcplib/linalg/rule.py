"""What a gradient rule is: one matrix W between the eigenvectors.

For ``C = U f(lam) U^T``, every rule computes ``dl/dS = U [(U^T sym(G) U) * W] U^T`` and differs only in W. The
published ones replace ``K_ij = 1 / (lam_i - lam_j)`` in the textbook gradient of the eigendecomposition, which makes

    W_ij = f_i K_ij + f_j K_ji,    W_ii = f'(lam_i).

The exact K is antisymmetric and W the divided difference ``(f_i - f_j) / (lam_i - lam_j)``: K cancels, and the exact
rule never forms it. Approximations that are not antisymmetric where eigenvalues coincide do not cancel there; each
entry of ``gradients`` says what it does instead. All published layers run in float64 and set eigenvalues up to
``eps`` to ``eps``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gcplib.linalg.eigensets import EigenvalueSet
from gcplib.linalg.functions import SpectralFunction

__all__ = [
    "GradientRule",
    "check_count",
    "exact_weights",
    "inverse_difference",
    "larger_and_ratio",
    "lyapunov_weights",
    "no_weights",
    "truncate",
    "truncated_weights",
    "weights_from_k",
]

PASSES = ("both", "forward", "backward")


@dataclass(frozen=True)
class GradientRule:
    """How to differentiate a spectral map.

    Args:
        name: shown in errors and plots.
        weights: ``W(fn, lam)``, ``(..., n)`` to ``(..., n, n)``, in units of ``f / lam``.
        released: work as the published code does: eigenvalues up to ``eps`` of the dtype are set to ``eps``, and every
            direction takes part, null ones too. Needs the full matrix.
        keep: the eigenvalues that take part, all by default; see ``truncate``.
        where: whether ``keep`` counts in the ``forward`` pass, the ``backward`` one or ``both``.
        surrogate: the function that is differentiated in place of f.
        through_scale: whether a function with a scale is differentiated through it as well.
    """

    name: str
    weights: Callable[[SpectralFunction, Tensor], Tensor]
    released: bool = True
    keep: EigenvalueSet | None = None
    where: str = "both"
    surrogate: SpectralFunction | None = None
    through_scale: bool = True

    def __post_init__(self) -> None:
        if self.where not in PASSES:
            raise ValueError(f"a truncation is in one of the passes {', '.join(PASSES)}, got {self.where!r}")

    def __str__(self) -> str:
        return self.name

    @property
    def any_route(self) -> bool:
        """Whether the gradient is that of the forward pass's own eigenvectors, which every route has."""
        return self.weights is exact_weights and not self.released and self.surrogate is None

    def kept(self, lam: Tensor, rank: int, direction: str) -> Tensor | None:
        """Say which eigenvalues take part in the ``forward`` or ``backward`` pass; None for all."""
        if self.keep is None or self.where not in ("both", direction):
            return None
        # As released, null directions take part like all others.
        return self.keep.mask(lam, lam.shape[-1] if self.released else rank)


def truncate(rule: GradientRule, keep: EigenvalueSet, where: str = "both") -> GradientRule:
    """Return the rule for ``C = sum_{i in I} f(lam_i) u_i u_i^T``: only the eigenvalues of the set I are kept.

    With the exact rule the others are zero, and the gradient is that of this function: ``W_ij = f_i / (lam_i - lam_j)``
    between a kept i and a dropped j, which does not cancel, and 0 between two that are dropped. Rules as released set
    the others to ``eps`` and go on as always.

    Args:
        where: ``both`` passes; or only the ``forward`` one, with the gradient of the full function; or only the
            ``backward`` one, with the value of the full function. The last two compute no function's gradient: they
            tell causes apart.

    Raises:
        ValueError: the rule truncates already or cannot, or ``where`` is unknown.
    """
    if rule.keep is not None:
        raise ValueError(f"gradient rule {rule} truncates already, to {rule.keep}")
    if not (rule.released or rule.weights is exact_weights):
        raise ValueError(f"gradient rule {rule} is of the whole function; truncate exact, or a rule as released")
    return replace(rule, name=f"{rule.name}, {keep} {where}", keep=keep, where=where)


def truncated_weights(fn: SpectralFunction, lam: Tensor, kept: Tensor, weights: Tensor) -> Tensor:
    """Return the divided differences of f where ``kept``, 0 elsewhere, from those of f."""
    f = fn.value(lam) * kept
    rows, columns = kept.unsqueeze(-1), kept.unsqueeze(-2)
    rise = f.unsqueeze(-1) - f.unsqueeze(-2)
    across = torch.where(rise == 0, rise, rise / (lam.unsqueeze(-1) - lam.unsqueeze(-2)))
    within = torch.where(rows & columns, weights, torch.zeros_like(weights))
    return torch.where(rows ^ columns, across, within)


def exact_weights(fn: SpectralFunction, lam: Tensor) -> Tensor:
    return fn.quotient(lam.unsqueeze(-1), lam.unsqueeze(-2))


def lyapunov_weights(fn: SpectralFunction, lam: Tensor) -> Tensor:
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


def larger_and_ratio(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``1 / a`` or ``-1 / b``, of the larger one, and the ratio r of the two: ``K = first / (1 - r)``."""
    high = torch.maximum(a, b)
    return torch.where(a >= b, 1 / high, -1 / high), torch.minimum(a, b) / high


def check_count(what: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{what} must be an integer from {least}, got {value!r}")
