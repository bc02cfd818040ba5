"""The published gradient rules of the eigendecomposition, one entry each; what a rule is stands in ``rule``."""

from __future__ import annotations

import re
from functools import cache, partial
from math import inf

import torch
from torch import Tensor

from gcplib.linalg.approximations import newton_schulz_function
from gcplib.linalg.eigensets import all_but_smallest
from gcplib.linalg.rule import (
    GradientRule,
    check_count,
    exact_weights,
    inverse_difference,
    larger_and_ratio,
    lyapunov_weights,
    no_weights,
    weights_from_k,
)

__all__ = [
    "GradientRule",
    "clip",
    "get_rule",
    "list_rules",
    "newton",
    "pade",
    "pade_released",
    "power_iteration",
    "taylor",
    "top_n",
]


@cache
def clip(bound: float = 1e10) -> GradientRule:
    """SVD-Trunc: K clipped to ``[-bound, bound]``.

    Trap: where eigenvalues coincide ``1 / 0`` is ``+bound`` on both sides, so ``W = 2 f bound`` in place of f': it does
    bound K, but not the gradient in any useful sense.

    Raises:
        ValueError: the bound is not positive and finite.

    Source: Song et al., ICCV 2021 (``bound=1e10`` is theirs).
    """
    if not 0 < bound < inf:
        raise ValueError(f"the bound on K must be positive and finite, got {bound}")
    name = "clip" if bound == 1e10 else f"clip({bound:g})"
    return GradientRule(name, partial(weights_from_k, lambda a, b: inverse_difference(a, b).clamp(-bound, bound)))


@cache
def top_n(drop: int = 50) -> GradientRule:
    """SVD-TopN: the ``drop`` smallest eigenvalues are set to ``eps`` in the forward pass, K as in ``original``.

    Trap: all dropped eigenvalues coincide, and where they do K is the largest finite entry on both sides.

    Raises:
        ValueError: ``drop`` is not an integer from 1.

    Source: Song et al., ICCV 2021 (50 of 256).
    """
    check_count("the number of eigenvalues to drop", drop, 1)
    name = "top_n" if drop == 50 else f"top_n({drop})"
    return GradientRule(name, partial(weights_from_k, inverse_difference), keep=all_but_smallest(drop))


@cache
def taylor(degree: int = 100, name: str | None = None) -> GradientRule:
    """SVD-Taylor: ``K = (1 + r + ... + r^degree) / lam_i`` with r the ratio of the smaller to the larger eigenvalue.

    Bounded by ``(degree + 1) / lam``. Trap: where eigenvalues coincide the bound is reached with the same sign on both
    sides, so that ``W = 2 (degree + 1) / sqrt(lam)``, for degree 100 404 times the exact one; close to it, where the
    signs differ, W is too small instead.

    Args:
        degree: of the polynomial. name: shown in place of ``taylor(degree)``.

    Raises:
        ValueError: the degree is not an integer from 0.

    Source: Song et al., ICCV 2021 (degree 100); robust differentiable SVD (Wang et al., TPAMI 2021).
    """
    check_count("the degree of the Taylor polynomial", degree, 0)

    def k(a: Tensor, b: Tensor) -> Tensor:
        first, ratio = larger_and_ratio(a, b)
        t = ratio.log()
        # The geometric sum without cancellation; at r = 1 it is degree + 1.
        total = torch.where(ratio == 1, torch.full_like(t, degree + 1), torch.expm1((degree + 1) * t) / torch.expm1(t))
        return first * total

    return GradientRule(name or ("taylor" if degree == 100 else f"taylor({degree})"), partial(weights_from_k, k))


def power_iteration(terms: int = 20) -> GradientRule:
    """SVD-PI as it was meant: power iteration for the gradient equals a Taylor polynomial of low degree.

    The released code multiplies by ``I - U U^T`` with all eigenvectors in U, and drops the eigenvalues' part: its
    gradient is zero up to rounding, which is the rule ``power_iteration_released``.

    Raises:
        ValueError: ``terms`` is not an integer from 0.

    Source: Song et al., ICCV 2021 (20 terms); Wang et al., NeurIPS 2019; the equality: Wang et al., TPAMI 2021.
    """
    return taylor(terms, "power_iteration" if terms == 20 else f"power_iteration({terms})")


@cache
def newton(steps: int = 10) -> GradientRule:
    """SVD-Newton: the forward pass of the exact root, the gradient of ``steps`` Newton-Schulz steps.

    Trap: it is the gradient of another function, whose slope levels off at ``1.5^steps / sqrt(tr S)`` where that of
    the root grows without bound.

    Raises:
        ValueError: ``steps`` is not an integer from 1.

    Source: Song et al., ICCV 2021 (10 steps).
    """
    check_count("the number of Newton-Schulz steps", steps, 1)
    name = "newton" if steps == 10 else f"newton({steps})"
    return GradientRule(name, exact_weights, surrogate=newton_schulz_function(steps))


@cache
def pade(bound: float = 101.0) -> GradientRule:
    """SVD-Pade as it was meant: the exact quotient up to a bound, ``K = 1 / (lam_i max(1 - r, 1 / bound))``.

    The [50/50] approximant of ``1 / (1 - r)`` *is* ``1 / (1 - r)``, a rational function already, and caps nothing but
    by rounding (``pade_released``). Here the cap is that of the degree-100 Taylor polynomial, so the two differ only in
    how they get there. Where eigenvalues coincide K is ``bound / lam`` on both sides, as with ``taylor``.

    Raises:
        ValueError: the bound is not finite or below 1.

    Source: Song et al., ICCV 2021; the ratio clamp is the simple alternative of Wang et al., TPAMI 2021.
    """
    if not 1 <= bound < inf:
        raise ValueError(f"the bound on K lam must be finite and at least 1, got {bound}")

    def k(a: Tensor, b: Tensor) -> Tensor:
        first, _ = larger_and_ratio(a, b)
        return first / ((a - b).abs() / torch.maximum(a, b)).clamp(min=1 / bound)

    return GradientRule("pade" if bound == 101 else f"pade({bound:g})", partial(weights_from_k, k))


@cache
def _pade_coefficients(degree: int, digits: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # mpmath comes with torch. The linear system is singular and its solution rounding noise, as in the released code.
    import mpmath

    with mpmath.workdps(digits):
        series = mpmath.taylor(lambda r: 1 / (1 - r), 0, 2 * degree)
        return tuple(tuple(map(float, c)) for c in mpmath.pade(series, degree, degree))


@cache
def pade_released(degree: int = 50, digits: int = 20) -> GradientRule:
    """SVD-Pade as released: the [50/50] approximant of ``1 / (1 - r)`` with coefficients solved for in 20 digits.

    Traps: its numerator and denominator share their other roots up to rounding, so it equals the exact quotient to
    1e-11 up to r = 0.9999 and caps only near 1e15, wherever rounding happens to; other digits give other coefficients.
    At r = 1 it is infinite or arbitrary.

    Raises:
        ValueError: degree or digits are not integers from 1.

    Source: Song et al., ICCV 2021.
    """

    check_count("the degree of the Pade approximant", degree, 1)
    check_count("the number of digits", digits, 1)

    def horner(coefficients: tuple[float, ...], r: Tensor) -> Tensor:
        value = torch.full_like(r, coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            value = value * r + coefficient
        return value

    def k(a: Tensor, b: Tensor) -> Tensor:
        p, q = _pade_coefficients(degree, digits)
        first, ratio = larger_and_ratio(a, b)
        return first * horner(p, ratio) / horner(q, ratio)

    name = "pade_released" if (degree, digits) == (50, 20) else f"pade_released({degree}, {digits})"
    return GradientRule(name, partial(weights_from_k, k))


# The published variants, with the papers' settings. `exact` is the Daleckii-Krein theorem, `lyapunov` what the
# iterative solver for `C X + X C = G` converges to: exact for the square root, and how MPA and MTP are published.
# `original` (MPN-COV) trusts K; where eigenvalues coincide it takes the largest finite entry, on both sides.
RULES: dict[str, GradientRule] = {
    rule.name: rule
    for rule in (
        GradientRule("exact", exact_weights, released=False),
        GradientRule("lyapunov", lyapunov_weights, released=False, through_scale=False),
        GradientRule("original", partial(weights_from_k, inverse_difference)),
        clip(),
        top_n(),
        power_iteration(),
        GradientRule("power_iteration_released", no_weights),
        newton(),
        taylor(),
        pade(),
        pade_released(),
    )
}


FACTORIES = {make.__name__: make for make in (clip, top_n, power_iteration, newton, taylor, pade, pade_released)}


def list_rules() -> list[str]:
    """Return the names ``get_rule`` knows."""
    return list(RULES)


def get_rule(rule: str | GradientRule) -> GradientRule:
    """Return ``rule`` itself, or the gradient rule of that name, with the papers' setting or one in brackets.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.

    >>> get_rule("taylor(9)").name
    'taylor(9)'
    """
    if isinstance(rule, GradientRule):
        return rule
    if rule in RULES:
        return RULES[rule]
    setting = re.fullmatch(r"(\w+)\(([-+]?[\d.]+(?:e[-+]?\d+)?)\)", rule)
    if setting and setting[1] in FACTORIES:
        number = float(setting[2])
        return FACTORIES[setting[1]](int(number) if number.is_integer() else number)
    raise ValueError(
        f"unknown gradient rule {rule!r}; known: {', '.join(list_rules())}, with a setting for example top_n(12)"
    )
