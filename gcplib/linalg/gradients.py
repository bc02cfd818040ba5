"""Gradient rules of the eigendecomposition: each is one matrix W between the eigenvectors.

For ``C = U f(lam) U^T``, every rule computes ``dl/dS = U [(U^T sym(G) U) * W] U^T`` and differs only in W.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gcplib.linalg.functions import SpectralFunction

__all__ = ["GradientRule", "get_rule", "list_rules"]

GradientRule = Callable[[SpectralFunction, Tensor], Tensor]


def exact(fn: SpectralFunction, lam: Tensor) -> Tensor:
    """Return the Daleckii-Krein weights ``W_ij = f[lam_i, lam_j]``, ``W_ii = f'(lam_i)``, from ``(..., n)``.

    For the square root this is ``1 / (sqrt(lam_i) + sqrt(lam_j))``: no difference of eigenvalues anywhere.
    """
    return fn.quotient(lam.unsqueeze(-1), lam.unsqueeze(-2))


RULES: dict[str, GradientRule] = {"exact": exact}


def list_rules() -> list[str]:
    """Return the names ``get_rule`` knows."""
    return sorted(RULES)


def get_rule(rule: str) -> GradientRule:
    """Return the gradient rule of that name.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    if rule not in RULES:
        raise ValueError(f"unknown gradient rule {rule!r}; known: {', '.join(list_rules())}")
    return RULES[rule]
