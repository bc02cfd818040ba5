"""Gradient rules by name: the exact one, and the published ones with the trap of each.

A rule is first of all the matrix W of ``gradient``. Some change the forward pass as well, and say so: those that
``clamps_forward``, as all published layers do (they run in float64 and set eigenvalues up to ``eps`` to ``eps``), and
truncations, unless they are of the ``backward`` pass alone. All raise a ValueError at a setting out of range.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from gcplib.linalg import gradient
from gcplib.linalg.calls import Partial, check_count, is_number, resolve, unknown, write_call
from gcplib.linalg.eigenvalue_sets import EigenvalueSet, all_but_smallest, get_eigenvalue_set
from gcplib.linalg.functions import SpectralFunction, newton_schulz_function

PASSES = ("both", "forward", "backward")


def _check_pass(where: str) -> None:
    if where not in PASSES:
        raise ValueError(unknown("pass to truncate", where, PASSES))


@dataclass(frozen=True)
class GradientRule:
    """How to differentiate a spectral map, and whether its forward pass is changed; a plain value.

    Args:
        name: shown in errors and plots; of those in the library the text that ``get_rule`` reads.
        weights: ``W(fn, lam)``, ``(..., n)`` to ``(..., n, n)``, in units of ``f / lam``.
        clamps_forward: work as the published code does: eigenvalues up to ``eps`` of the dtype are set to ``eps`` in
            the forward pass, and every direction takes part, null ones too. Needs the full matrix.
        keep: the eigenvalues that take part, all by default; see ``truncate``.
        where: whether ``keep`` counts in the ``forward`` pass, the ``backward`` one or ``both``.
        surrogate: the function that is differentiated in place of f.
        through_scale: whether a function with a scale is differentiated through it as well.
    """

    name: str
    weights: Callable[[SpectralFunction, Tensor], Tensor]
    clamps_forward: bool = True
    keep: EigenvalueSet | None = None
    where: str = "both"
    surrogate: SpectralFunction | None = None
    through_scale: bool = True

    def __post_init__(self) -> None:
        _check_pass(self.where)

    def __str__(self) -> str:
        return self.name

    @property
    def any_route(self) -> bool:
        """Whether the gradient is that of the forward pass's own eigenvectors, which every route has."""
        return self.weights == gradient.exact_weights and not self.clamps_forward and self.surrogate is None

    @property
    def exact(self) -> bool:
        """Whether the gradient is that of the whole function, which has derivatives of its own."""
        return self.any_route and self.keep is None


def truncate(rule: str | GradientRule, keep: str | EigenvalueSet | None, where: str = "both") -> GradientRule:
    """Return the rule for ``C = sum_{i in I} f(lam_i) u_i u_i^T``: only the eigenvalues of the set I are kept.

    With the exact rule the others are zero, and the gradient is that of this function: ``W_ij = f_i / (lam_i - lam_j)``
    between a kept i and a dropped j, which does not cancel, and 0 between two that are dropped. Rules that clamp set
    the others to ``eps`` and go on as always.

    Args:
        rule: to truncate, or its name.
        keep: the set, or its name; None gives the rule as it is.
        where: ``both`` passes; or only the ``forward`` one, with the gradient of the full function; or only the
            ``backward`` one, with the value of the full function. The last two compute no function's gradient: they
            tell causes apart.

    Raises:
        ValueError: unknown names or ``where``, or the rule truncates already or cannot.
    """
    rule = get_rule(rule)
    _check_pass(where)
    if keep is None:
        return rule
    if rule.keep is not None:
        raise ValueError(f"gradient rule {rule} truncates already, to {rule.keep}")
    if not (rule.clamps_forward or rule.any_route):
        raise ValueError(f"gradient rule {rule} is of the whole function; truncate exact, or a rule as released")
    keep = get_eigenvalue_set(keep)
    return replace(rule, name=f"{rule}, {keep} {where}", keep=keep, where=where)


def _name(make: Callable[..., GradientRule], *settings: float) -> str:
    return write_call(make.__name__, *settings, defaults=make.__defaults__)


def _from_k(k: Callable[..., Tensor], *settings: float) -> Callable[[SpectralFunction, Tensor], Tensor]:
    return Partial(gradient.weights_from_k, Partial(k, *settings))


def clip(bound: float = 1e10) -> GradientRule:
    """SVD-Trunc: K clipped to ``[-bound, bound]``.

    Trap: where eigenvalues coincide ``1 / 0`` is ``+bound`` on both sides, so ``W = 2 f bound`` in place of f': it does
    bound K, but not the gradient in any useful sense.

    Source: Song et al., ICCV 2021 (``bound=1e10`` is theirs).
    """
    if not (is_number(bound) and bound > 0):
        raise ValueError(f"the bound on K must be positive and finite, got {bound!r}")
    return GradientRule(_name(clip, bound), _from_k(gradient.clipped, bound))


def top_n(drop: int = 50) -> GradientRule:
    """SVD-TopN: the ``drop`` smallest eigenvalues are set to ``eps`` in the forward pass, K as in ``original``.

    Trap: all dropped eigenvalues coincide, and where they do K is the largest finite entry on both sides.

    Source: Song et al., ICCV 2021 (50 of 256).
    """
    check_count("the number of eigenvalues to drop", drop)
    return GradientRule(_name(top_n, drop), _from_k(gradient.inverse_difference), keep=all_but_smallest(drop))


def taylor(degree: int = 100) -> GradientRule:
    """SVD-Taylor: ``K = s (1 + r + ... + r^degree) / max(lam_i, lam_j)``.

    Here ``r = min / max`` of the two eigenvalues, and s is 1 where ``lam_i >= lam_j``, else -1.

    Bounded by ``(degree + 1) / lam``. Trap: where eigenvalues coincide the bound is reached with the same sign on both
    sides, so that ``W = 2 (degree + 1) / sqrt(lam)``, for degree 100 404 times the exact one; close to it, where the
    signs differ, W is too small instead.

    Source: Song et al., ICCV 2021 (degree 100); robust differentiable SVD (Wang et al., TPAMI 2021).
    """
    check_count("the degree of the Taylor polynomial", degree, 0)
    return GradientRule(_name(taylor, degree), _from_k(gradient.geometric_sum, degree))


def power_iteration(terms: int = 20) -> GradientRule:
    """SVD-PI as it was meant: power iteration for the gradient equals a Taylor polynomial of low degree.

    The released code multiplies by ``I - U U^T`` with all eigenvectors in U, and drops the eigenvalues' part: its
    gradient is zero up to rounding, which is the rule ``power_iteration_released``.

    Source: Song et al., ICCV 2021 (20 terms); Wang et al., NeurIPS 2019; the equality: Wang et al., TPAMI 2021.
    """
    return replace(taylor(terms), name=_name(power_iteration, terms))


def newton(steps: int = 10) -> GradientRule:
    """SVD-Newton: the forward pass of the exact root, the gradient of ``steps`` Newton-Schulz steps.

    Trap: it is the gradient of another function, whose slope levels off at ``1.5^steps / sqrt(tr S)`` where that of
    the root grows without bound.

    Source: Song et al., ICCV 2021 (10 steps).
    """
    return GradientRule(_name(newton, steps), gradient.exact_weights, surrogate=newton_schulz_function(steps))


def pade(bound: float = 101.0) -> GradientRule:
    """SVD-Pade as it was meant: the exact quotient up to a bound, r and s as with ``taylor``.

    ``K = s / (max(lam_i, lam_j) max(1 - r, 1 / bound))``.

    The [50/50] approximant of ``1 / (1 - r)`` *is* ``1 / (1 - r)``, a rational function already, and caps nothing but
    by rounding (``pade_released``). Here the cap is that of the degree-100 Taylor polynomial, so the two differ only in
    how they get there. Where eigenvalues coincide K is ``bound / lam`` on both sides, as with ``taylor``.

    Source: Song et al., ICCV 2021; the ratio clamp is the simple alternative of Wang et al., TPAMI 2021.
    """
    if not (is_number(bound) and bound >= 1):
        raise ValueError(f"the bound on K lam must be finite and at least 1, got {bound!r}")
    return GradientRule(_name(pade, bound), _from_k(gradient.capped, bound))


def pade_released(degree: int = 50, digits: int = 20) -> GradientRule:
    """SVD-Pade as released: the [50/50] approximant of ``1 / (1 - r)`` with coefficients solved for in 20 digits.

    Traps: its numerator and denominator share their other roots up to rounding, so it equals the exact quotient to
    1e-11 up to r = 0.9999 and caps only near 1e15, wherever rounding happens to; other digits give other coefficients.
    At r = 1 it is infinite or arbitrary.

    Source: Song et al., ICCV 2021.
    """
    check_count("the degree of the Pade approximant", degree)
    check_count("the number of digits", digits)
    return GradientRule(_name(pade_released, degree, digits), _from_k(gradient.pade_quotient, degree, digits))


# The published variants, alone with the papers' settings. `exact` is the Daleckii-Krein theorem, `lyapunov` what the
# iterative solver for `C X + X C = G` converges to: exact for the square root, and how MPA and MTP are published.
# `original` (MPN-COV) trusts K; where eigenvalues coincide it takes the largest finite entry, on both sides.
EXACT = GradientRule("exact", gradient.exact_weights, clamps_forward=False)
LYAPUNOV = GradientRule("lyapunov", gradient.lyapunov_weights, clamps_forward=False, through_scale=False)
ORIGINAL = GradientRule("original", _from_k(gradient.inverse_difference))
PI_RELEASED = GradientRule("power_iteration_released", gradient.no_weights)
RULES: dict[str, GradientRule | Callable[..., GradientRule]] = {
    **{rule.name: rule for rule in (EXACT, LYAPUNOV, ORIGINAL, PI_RELEASED)},
    **{make.__name__: make for make in (clip, top_n, power_iteration, newton, taylor, pade, pade_released)},
}


def list_rules() -> list[str]:
    """Return the names ``get_rule`` knows."""
    return list(RULES)


def get_rule(rule: str | GradientRule) -> GradientRule:
    """Return ``rule`` itself, or the gradient rule of that name, with the papers' setting or one in parentheses.

    >>> get_rule("taylor(9)") == taylor(9)
    True
    """
    return resolve(GradientRule, "gradient rule", rule, RULES)
