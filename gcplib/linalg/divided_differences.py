"""Functions f of an eigenvalue with their divided differences ``(f(a) - f(b)) / (a - b)``, ``f'(a)`` where ``a = b``.

No divided difference subtracts numbers that may be nearly equal: that is what makes the exact gradient of the matrix
square root finite, with no threshold.
"""

from math import comb
from typing import TypeVar

import torch
from torch import Tensor

from gcplib.linalg.calls import check_count, is_number

T = TypeVar("T", Tensor, float)

# One step multiplies y by ``a + b (1 - w)``. Newton-Schulz is ``(3 - w) / 2``.
Step = tuple[float, float]
NEWTON_SCHULZ: Step = (1.0, 0.5)

# Of MPA, in powers of x - 1, the highest first.
PADE_NUMERATOR = (11 / 1024, 55 / 256, 77 / 64, 11 / 4, 11 / 4, 1.0)
PADE_DENOMINATOR = (1 / 1024, 15 / 256, 35 / 64, 7 / 4, 9 / 4, 1.0)


def identity(a: Tensor) -> Tensor:
    return a


def identity_difference(a: Tensor, b: Tensor) -> Tensor:
    return torch.ones_like(a + b)


def root_difference(a: Tensor, b: Tensor) -> Tensor:
    return (a.sqrt() + b.sqrt()).reciprocal_()


def inverse_root_difference(a: Tensor, b: Tensor) -> Tensor:
    return -root_difference(a, b) * a.rsqrt() * b.rsqrt()


def log_difference(a: Tensor, b: Tensor) -> Tensor:
    # With t = log(low / high): (log a - log b) / (a - b) = t / (high expm1(t)), and 1 / a where they are equal.
    high, low = torch.maximum(a, b), torch.minimum(a, b)
    t = torch.log(low / high)
    return torch.where(low == high, torch.ones_like(t), t / torch.expm1(t)) / high


def power(exponent: float, a: Tensor) -> Tensor:
    return a**exponent


def power_difference(exponent: float, a: Tensor, b: Tensor) -> Tensor:
    """With ``a >= b`` and ``t = log(b / a)``, ``a^(p-1) expm1(p t) / expm1(t)``, which is ``a^(p-1)`` at ``b = 0``."""
    high, low = torch.maximum(a, b), torch.minimum(a, b)
    t = torch.log(low / high)
    ratio = torch.expm1(exponent * t) / torch.expm1(t)
    return high ** (exponent - 1) * torch.where(low == high, torch.full_like(ratio, exponent), ratio)


def iteration(steps: tuple[Step, ...], x: T) -> T:
    """Return what ``y <- y t``, ``w <- w t^2``, ``t = a + b (1 - w)`` compute from ``y = w = x``."""
    y = w = x
    for a, b in steps:
        t = a + b * (1 - w)
        y, w = y * t, w * t * t
    return y


def iteration_difference(steps: tuple[Step, ...], first: Tensor, second: Tensor) -> Tensor:
    y1, w1, w2 = first, first, second
    yd = wd = torch.ones_like(first + second)
    for a, b in steps:
        t1, t2, c = a + b * (1 - w1), a + b * (1 - w2), a + b
        # t[., .] = -b w[., .], and w t^2 is a cubic of w.
        yd = yd * t2 - b * y1 * wd
        wd = wd * (c * c - 2 * b * c * (w1 + w2) + b * b * (w1 * w1 + w1 * w2 + w2 * w2))
        y1, w1, w2 = y1 * t1, w1 * t1 * t1, w2 * t2 * t2
    return yd


def newton_schulz_steps(steps: int) -> tuple[Step, ...]:
    return (NEWTON_SCHULZ,) * check_count("the number of Newton-Schulz steps", steps)


def accelerated_steps(steps: int, smallest: float, least_ratio: float = 0.0) -> tuple[Step, ...]:
    """Return the best cubic steps for eigenvalues from ``smallest`` to 1 of the trace; see ``accelerated_function``.

    The best step for a wide interval takes its upper end down to where the lower one goes, and digits are lost; no step
    is made for roots further apart than ``least_ratio``.
    """
    check_count("the number of Newton-Schulz steps", steps)
    if not (is_number(smallest) and 0 < smallest < 1):
        raise ValueError(f"the smallest eigenvalue over the trace must lie between 0 and 1, got {smallest!r}")
    low, high, found = smallest**0.5, 1.0, []
    for _ in range(steps):
        smallest_root, low = low, max(low, least_ratio * high)
        # The cubic 3/2 r x - (r x)^3 / 2 has its least value at both ends of [low, high], and its largest, 1, within.
        rate = (3 / (high * high + high * low + low * low)) ** 0.5
        least = (3 * rate * low - (rate * low) ** 3) / 2
        # Scaled so that 1 lies in the middle: the largest deviation is as small as it can be.
        scale = 2 / (1 + least)
        slope = scale * rate**3 / 2
        found.append((scale * rate * 1.5 - slope, slope))
        least = min(least, (3 * rate * smallest_root - (rate * smallest_root) ** 3) / 2)
        low, high = scale * least, scale
    return tuple(found)


def horner(coefficients: tuple[float, ...], center: float, a: T) -> T:
    """Return the polynomial in powers of ``a - center`` with these coefficients, of the highest power first."""
    x = a - center
    value = 0 * x + coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def horner_difference(coefficients: tuple[float, ...], center: float, a: Tensor, b: Tensor) -> Tensor:
    x, y = a - center, b - center
    value, difference = torch.full_like(a, coefficients[0]), torch.zeros_like(a + b)
    for coefficient in coefficients[1:]:
        # Horner's rule for both at once: (r x + c)[x, y] = r(x) + r[x, y] y.
        difference = value + difference * y
        value = value * x + coefficient
    return difference


def taylor_coefficients(terms: int) -> tuple[float, ...]:
    """Return those of MTP in powers of x - 1, the highest first: ``|C(1/2, k)| = C(2k, k) / (4^k (2k - 1))``."""
    check_count("the number of Taylor terms", terms)
    return (*(-comb(2 * k, k) / (4**k * (2 * k - 1)) * (-1) ** k for k in range(terms, 0, -1)), 1.0)


def pade(a: Tensor) -> Tensor:
    return horner(PADE_NUMERATOR, 1, a) / horner(PADE_DENOMINATOR, 1, a)


def pade_difference(a: Tensor, b: Tensor) -> Tensor:
    # (P / Q)[a, b] = (P[a, b] - (P / Q)(b) Q[a, b]) / Q(a)
    of_denominator = pade(b) * horner_difference(PADE_DENOMINATOR, 1, a, b)
    return (horner_difference(PADE_NUMERATOR, 1, a, b) - of_denominator) / horner(PADE_DENOMINATOR, 1, a)
