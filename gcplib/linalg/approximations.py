"""What the iterative square roots compute: each is a function of one normalised eigenvalue.

``C = sqrt(t) p(S / t)`` with t the trace or the Frobenius norm of S. Evaluated on the eigenvalues, an iteration costs
one eigendecomposition whatever its number of steps, and its gradient is as exact as that of the root itself.
"""

from __future__ import annotations

from functools import cache
from math import comb

import torch
from torch import Tensor

from gcplib.linalg.functions import SpectralFunction

__all__ = ["newton_schulz_function", "pade_function", "taylor_function"]


def _horner(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Return the polynomial with these coefficients, of the highest power first."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _horner_quotient(coefficients: tuple[float, ...], a: Tensor, b: Tensor) -> Tensor:
    """Return the divided difference of the polynomial; Horner's rule for both at once, with no subtraction."""
    value, quotient = torch.full_like(a, coefficients[0]), torch.zeros_like(a + b)
    for coefficient in coefficients[1:]:
        # (r x + c)[a, b] = r(a) + r[a, b] b
        quotient = value + quotient * b
        value = value * a + coefficient
    return quotient


@cache
def newton_schulz_function(steps: int = 5) -> SpectralFunction:
    """Return what ``steps`` Newton-Schulz steps compute, as a function of ``x = lam / tr(S)``.

    ``w_0 = y_0 = x``; ``t = (3 - w) / 2``, ``y <- y t``, ``w <- w t^2``: the iteration with ``w = z y``.

    Raises:
        ValueError: fewer than one step.

    Source: iSQRT-COV (Li et al., CVPR 2018).
    """
    if steps < 1:
        raise ValueError(f"Newton-Schulz needs at least one step, got {steps}")

    def value(x: Tensor) -> Tensor:
        y = w = x
        for _ in range(steps):
            t = (3 - w) / 2
            y, w = y * t, w * t * t
        return y

    def quotient(a: Tensor, b: Tensor) -> Tensor:
        ya, wa, wb = a, a, b
        yd = wd = torch.ones_like(a + b)
        for _ in range(steps):
            ta, tb = (3 - wa) / 2, (3 - wb) / 2
            # t[a, b] = -w[a, b] / 2, and w t^2 is a cubic of w.
            yd = yd * tb - ya * wd / 2
            wd = wd * (9 - 6 * (wa + wb) + wa * wa + wa * wb + wb * wb) / 4
            ya, wa, wb = ya * ta, wa * ta * ta, wb * tb * tb
        return yd

    return SpectralFunction(f"Newton-Schulz, {steps} steps", value, quotient, scale="trace", smooth=True)


@cache
def taylor_function(terms: int = 10) -> SpectralFunction:
    """Return MTP: the Taylor polynomial of the root about 1, ``1 - sum_k |C(1/2, k)| (1 - x)^k``, ``x = lam / |S|_F``.

    Zero eigenvalues come out at 0.176 (10 terms) of the root of the norm.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    if terms < 1:
        raise ValueError(f"the Taylor polynomial needs at least one term, got {terms}")
    # |C(1/2, k)| = C(2k, k) / (4^k (2k - 1)); highest power first, in x - 1.
    coefficients = [-comb(2 * k, k) / (4**k * (2 * k - 1)) * (-1) ** k for k in range(terms, 0, -1)]
    coefficients = (*coefficients, 1.0)
    return SpectralFunction(
        f"Taylor, {terms} terms",
        lambda x: _horner(coefficients, x - 1),
        lambda a, b: _horner_quotient(coefficients, a - 1, b - 1),
        zero=float(_horner(coefficients, torch.tensor(-1.0, dtype=torch.float64))),
        scale="norm",
        smooth=True,
    )


@cache
def pade_function() -> SpectralFunction:
    """Return MPA: the [5/5] Pade approximant of the root about 1, ``P(1 - x) / Q(1 - x)``, ``x = lam / |S|_F``.

    Zero eigenvalues come out at 0.091 of the root of the norm.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    # Powers of 1 - x, the highest first.
    p = (-11 / 1024, 55 / 256, -77 / 64, 11 / 4, -11 / 4, 1.0)
    q = (-1 / 1024, 15 / 256, -35 / 64, 7 / 4, -9 / 4, 1.0)

    def value(x: Tensor) -> Tensor:
        return _horner(p, 1 - x) / _horner(q, 1 - x)

    def quotient(a: Tensor, b: Tensor) -> Tensor:
        # (P / Q)[a, b] = (P[a, b] - (P / Q)(b) Q[a, b]) / Q(a), and d(1 - x)/dx = -1.
        slope = _horner_quotient(p, 1 - a, 1 - b) - value(b) * _horner_quotient(q, 1 - a, 1 - b)
        return -slope / _horner(q, 1 - a)

    return SpectralFunction("Pade [5/5]", value, quotient, zero=sum(p) / sum(q), scale="norm", smooth=True)
