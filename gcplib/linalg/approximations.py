"""What the iterative square roots compute: each is a function of one normalized eigenvalue.

``C = sqrt(t) p(S / t)`` with t the trace or the Frobenius norm of S. Evaluated on the eigenvalues, an iteration costs
one eigendecomposition whatever its number of steps, and its gradient is as exact as that of the root itself.
"""

from __future__ import annotations

from functools import cache
from math import comb

import torch
from torch import Tensor

from gcplib.linalg.functions import SpectralFunction

__all__ = ["accelerated_function", "newton_schulz_function", "pade_function", "taylor_function"]

# One step multiplies y by ``a + b (1 - w)``. Newton-Schulz is ``(3 - w) / 2``.
Step = tuple[float, float]
NEWTON_SCHULZ: Step = (1.0, 0.5)

# Of MPA, in powers of 1 - x, the highest first.
PADE_NUMERATOR = (-11 / 1024, 55 / 256, -77 / 64, 11 / 4, -11 / 4, 1.0)
PADE_DENOMINATOR = (-1 / 1024, 15 / 256, -35 / 64, 7 / 4, -9 / 4, 1.0)


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


def _iteration_function(name: str, steps: tuple[Step, ...]) -> SpectralFunction:
    """Return what an iteration ``y <- y t``, ``w <- w t^2``, ``t = a + b (1 - w)`` computes from ``y = w = x``."""

    def value(x: Tensor) -> Tensor:
        y = w = x
        for a, b in steps:
            t = a + b * (1 - w)
            y, w = y * t, w * t * t
        return y

    def quotient(first: Tensor, second: Tensor) -> Tensor:
        y1, w1, w2 = first, first, second
        yd = wd = torch.ones_like(first + second)
        for a, b in steps:
            t1, t2, c = a + b * (1 - w1), a + b * (1 - w2), a + b
            # t[., .] = -b w[., .], and w t^2 is a cubic of w.
            yd = yd * t2 - b * y1 * wd
            wd = wd * (c * c - 2 * b * c * (w1 + w2) + b * b * (w1 * w1 + w1 * w2 + w2 * w2))
            y1, w1, w2 = y1 * t1, w1 * t1 * t1, w2 * t2 * t2
        return yd

    return SpectralFunction(name, value, quotient, scale="trace", smooth=True)


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
    return _iteration_function(f"Newton-Schulz, {steps} steps", (NEWTON_SCHULZ,) * steps)


@cache
def accelerated_steps(steps: int, smallest: float) -> tuple[Step, ...]:
    """Return the best cubic steps for eigenvalues from ``smallest`` to 1 of the trace; see ``accelerated_function``."""
    if steps < 1:
        raise ValueError(f"Newton-Schulz needs at least one step, got {steps}")
    if not 0 < smallest < 1:
        raise ValueError(f"the smallest eigenvalue over the trace must lie between 0 and 1, got {smallest}")
    low, high, found = smallest**0.5, 1.0, []
    for _ in range(steps):
        # The cubic 3/2 r x - (r x)^3 / 2 has its least value at both ends of [low, high], and its largest, 1, within.
        rate = (3 / (high * high + high * low + low * low)) ** 0.5
        least = (3 * rate * low - (rate * low) ** 3) / 2
        # Scaled so that 1 lies in the middle: the largest deviation is as small as it can be.
        scale = 2 / (1 + least)
        slope = scale * rate**3 / 2
        found.append((scale * rate * 1.5 - slope, slope))
        low, high = scale * least, scale
    return tuple(found)


@cache
def accelerated_function(steps: int = 4, smallest: float = 1e-3) -> SpectralFunction:
    """Return what ``accelerated_newton_schulz`` computes: the best composition of so many cubics.

    Raises:
        ValueError: fewer than one step, or ``smallest`` not between 0 and 1.

    Source: Polar Express (Amsel et al., 2025), degree 3; Chen and Chow (2014).
    """
    return _iteration_function(f"accelerated, {steps} steps from {smallest:g}", accelerated_steps(steps, smallest))


def taylor_coefficients(terms: int) -> tuple[float, ...]:
    """Return those of MTP in powers of x - 1, the highest first: ``|C(1/2, k)| = C(2k, k) / (4^k (2k - 1))``."""
    if terms < 1:
        raise ValueError(f"the Taylor polynomial needs at least one term, got {terms}")
    return (*(-comb(2 * k, k) / (4**k * (2 * k - 1)) * (-1) ** k for k in range(terms, 0, -1)), 1.0)


@cache
def taylor_function(terms: int = 10) -> SpectralFunction:
    """Return MTP: the Taylor polynomial of the root about 1, ``1 - sum_k |C(1/2, k)| (1 - x)^k``, ``x = lam / |S|_F``.

    Zero eigenvalues come out at 0.176 (10 terms) of the root of the norm.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    coefficients = taylor_coefficients(terms)
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
    p, q = PADE_NUMERATOR, PADE_DENOMINATOR

    def value(x: Tensor) -> Tensor:
        return _horner(p, 1 - x) / _horner(q, 1 - x)

    def quotient(a: Tensor, b: Tensor) -> Tensor:
        # (P / Q)[a, b] = (P[a, b] - (P / Q)(b) Q[a, b]) / Q(a), and d(1 - x)/dx = -1.
        slope = _horner_quotient(p, 1 - a, 1 - b) - value(b) * _horner_quotient(q, 1 - a, 1 - b)
        return -slope / _horner(q, 1 - a)

    return SpectralFunction("Pade [5/5]", value, quotient, zero=sum(p) / sum(q), scale="norm", smooth=True)
