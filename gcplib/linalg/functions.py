"""Spectral functions by name: functions of one eigenvalue, with all that a spectral map needs to know of them.

What the iterative square roots compute is such a function of a normalized eigenvalue: ``C = sqrt(t) p(S / t)`` with t
the trace or the Frobenius norm of S. Evaluated on the eigenvalues, an iteration costs one eigendecomposition whatever
its number of steps, and its gradient is as exact as that of the root itself.

All raise a ValueError at a setting out of range.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor

from gcplib.linalg import diagonal, polynomials
from gcplib.linalg import divided_differences as formulas
from gcplib.linalg.calls import Partial, is_number, resolve, write_call


@dataclass(frozen=True)
class SpectralFunction:
    """A function f of an eigenvalue, with what is needed to differentiate ``U f(lam) U^T`` exactly.

    A plain value: equal to another if all of this is, and fit to be copied, pickled and sent to other processes if made
    of functions of a module, or of ``gcplib.linalg.calls.Partial`` of them.

    Args:
        name: shown in errors and plots; of those in the library the text that ``get_function`` reads.
        value: ``f(lam)``, element-wise.
        quotient: the divided difference ``f[a, b] = (f(a) - f(b)) / (a - b)``, and ``f'(a)`` where ``a = b``,
            computed without subtracting nearly equal numbers.
        zero: ``f(0)``. Only functions with ``f(0) = 0`` can take the thin route.
        scale: None, or ``trace`` or ``norm`` (Frobenius): then ``C = sqrt(t) f(S / t)`` with t that of the matrix, and
            the gradient runs through t as well.
        smooth: whether f is defined and differentiable around 0, as polynomials are. If not, eigenvalues at rounding
            noise count as zero, and the derivative between null directions is taken as zero.
        positive: whether f needs positive eigenvalues, as the logarithm does: a singular matrix is then an error.
        gain: None, or from the eigenvalues of C and those of S, ``(..., n)`` both, to a factor g of the whole matrix,
            ``(..., 1)``, and its derivatives by both, ``(..., n)``: then the map is ``g C``.
        base: the function that this one was made of by amplifying small eigenvalues, or None.
        matrix: f of a matrix in differentiable operations, for derivatives of the gradient, or None without: from A and
            its eigenvalues, where A is diagonal up to its derivatives; smooth functions take any A, and None.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    quotient: Callable[[Tensor, Tensor], Tensor]
    zero: float = 0.0
    scale: str | None = None
    smooth: bool = False
    positive: bool = False
    gain: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
    base: "SpectralFunction | None" = None
    matrix: Callable[[Tensor, Any], Tensor] | None = None

    def __str__(self) -> str:
        return self.name


SQRT = SpectralFunction("sqrt", torch.sqrt, formulas.root_difference, matrix=diagonal.root)
INVSQRT = SpectralFunction(
    "invsqrt", torch.rsqrt, formulas.inverse_root_difference, inf, positive=True, matrix=diagonal.inverse_root
)
IDENTITY = SpectralFunction(
    "identity", formulas.identity, formulas.identity_difference, smooth=True, matrix=diagonal.identity
)
LOG = SpectralFunction("log", torch.log, formulas.log_difference, -inf, positive=True, matrix=diagonal.log)


def power(exponent: float) -> SpectralFunction:
    """Return ``f(lam) = lam ** exponent``, not 0; negative exponents need positive definite matrices.

    >>> power(0.5).quotient(torch.tensor(4.0), torch.tensor(9.0))
    tensor(0.2000)
    """
    if not (is_number(exponent) and exponent != 0):
        raise ValueError(f"the matrix power must be a finite number other than 0, got {exponent!r}")
    if exponent in (0.5, -0.5, 1):
        return {0.5: SQRT, -0.5: INVSQRT, 1: IDENTITY}[exponent]
    value, quotient = Partial(formulas.power, float(exponent)), Partial(formulas.power_difference, float(exponent))
    name, negative = write_call("power", exponent), exponent < 0
    matrix = Partial(diagonal.power, float(exponent))
    return SpectralFunction(name, value, quotient, inf if negative else 0.0, positive=negative, matrix=matrix)


def newton_schulz_function(steps: int = 5) -> SpectralFunction:
    """Return what ``steps`` Newton-Schulz steps, at least one, compute, as a function of ``x = lam / tr(S)``.

    ``w_0 = y_0 = x``; ``t = (3 - w) / 2``, ``y <- y t``, ``w <- w t^2``: the iteration with ``w = z y``.

    Source: iSQRT-COV (Li et al., CVPR 2018).
    """
    return _iteration("newton_schulz", formulas.newton_schulz_steps(steps), steps)


def accelerated_function(steps: int = 4, smallest: float = 1e-3) -> SpectralFunction:
    """Return what ``accelerated_newton_schulz`` computes: the best composition of so many cubics.

    Args:
        steps: at least one.
        smallest: the smallest eigenvalue over the trace that is to come out well, above 0 and below 1.

    Source: Polar Express (Amsel et al., 2025), degree 3; Chen and Chow (2014).
    """
    return _iteration("accelerated", formulas.accelerated_steps(steps, smallest), steps, smallest)


def _iteration(name: str, steps: tuple[formulas.Step, ...], *settings: float) -> SpectralFunction:
    value, quotient = Partial(formulas.iteration, steps), Partial(formulas.iteration_difference, steps)
    matrix = Partial(polynomials.iteration, steps)
    return _approximate_root(write_call(name, *settings), value, quotient, "trace", matrix)


def _approximate_root(name: str, value: Callable, quotient: Callable, scale: str, matrix: Callable) -> SpectralFunction:
    zero = float(value(torch.zeros((), dtype=torch.float64, device="cpu")))
    return SpectralFunction(name, value, quotient, zero, scale, smooth=True, matrix=matrix)


def taylor_function(terms: int = 10) -> SpectralFunction:
    """Return MTP: the Taylor polynomial of the root about 1, ``1 - sum_k |C(1/2, k)| (1 - x)^k``, ``x = lam / |S|_F``.

    Zero eigenvalues come out at 0.176 (10 terms) of the root of the norm.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    coefficients = formulas.taylor_coefficients(terms)
    value, quotient = (Partial(f, coefficients, 1) for f in (formulas.horner, formulas.horner_difference))
    matrix = Partial(polynomials.polynomial, coefficients, 1)
    return _approximate_root(write_call("taylor", terms), value, quotient, "norm", matrix)


def pade_function() -> SpectralFunction:
    """Return MPA: the [5/5] Pade approximant of the root about 1, ``P(1 - x) / Q(1 - x)``, ``x = lam / |S|_F``.

    Zero eigenvalues come out at 0.091 of the root of the norm.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    return _approximate_root("pade", formulas.pade, formulas.pade_difference, "norm", polynomials.pade)


FUNCTIONS: dict[str, SpectralFunction | Callable[..., SpectralFunction]] = {
    **{fn.name: fn for fn in (SQRT, INVSQRT, IDENTITY, LOG, pade_function())},
    "power": power,
    "newton_schulz": newton_schulz_function,
    "accelerated": accelerated_function,
    "taylor": taylor_function,
}


def list_functions() -> list[str]:
    """Return the names ``get_function`` knows; ``power`` needs its exponent, ``power(0.25)``."""
    return list(FUNCTIONS)


def get_function(fn: str | SpectralFunction) -> SpectralFunction:
    """Return ``fn`` itself, or the function of that name, with settings in parentheses (``resolve`` says what fails).

    >>> get_function("power(0.25)") == power(0.25)
    True
    """
    return resolve(SpectralFunction, "spectral function", fn, FUNCTIONS)
