"""Functions of one eigenvalue, each with its divided difference: all that a spectral map needs to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf, isfinite

import torch
from torch import Tensor

__all__ = ["SpectralFunction", "get_function", "list_functions", "power"]


@dataclass(frozen=True)
class SpectralFunction:
    """A function f of an eigenvalue, with what is needed to differentiate ``U f(lam) U^T`` exactly.

    Args:
        name: shown in errors and plots.
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
    """

    name: str
    value: Callable[[Tensor], Tensor]
    quotient: Callable[[Tensor, Tensor], Tensor]
    zero: float = 0.0
    scale: str | None = None
    smooth: bool = False
    positive: bool = False
    gain: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
    base: SpectralFunction | None = None

    def __str__(self) -> str:
        return self.name


@cache
def power(exponent: float) -> SpectralFunction:
    """Return ``f(lam) = lam ** exponent``; negative exponents need positive definite matrices.

    With ``a >= b`` and ``t = log(b / a)``, ``f[a, b] = a^(p-1) expm1(p t) / expm1(t)``, which keeps full relative
    precision where ``a`` and ``b`` are close or equal, and gives ``a^(p-1)`` at ``b = 0``.

    Raises:
        ValueError: the exponent is zero or not finite.

    >>> power(0.5).quotient(torch.tensor(4.0), torch.tensor(9.0))
    tensor(0.2000)
    """
    if not (exponent != 0 and isfinite(exponent)):
        raise ValueError(f"the matrix power must be a finite number other than 0, got {exponent}")
    if exponent == 0.5:
        return SpectralFunction("sqrt", torch.sqrt, _root_quotient)
    if exponent == -0.5:
        return SpectralFunction("invsqrt", torch.rsqrt, _inverse_root_quotient, inf, positive=True)
    if exponent == 1:
        return SpectralFunction("identity", lambda lam: lam, lambda a, b: torch.ones_like(a + b), smooth=True)

    def quotient(a: Tensor, b: Tensor) -> Tensor:
        high, low = torch.maximum(a, b), torch.minimum(a, b)
        t = torch.log(low / high)
        ratio = torch.expm1(exponent * t) / torch.expm1(t)
        return high ** (exponent - 1) * torch.where(low == high, torch.full_like(ratio, exponent), ratio)

    zero = inf if exponent < 0 else 0.0
    return SpectralFunction(f"power {exponent:g}", lambda lam: lam**exponent, quotient, zero, positive=exponent < 0)


def _root_quotient(a: Tensor, b: Tensor) -> Tensor:
    return (a.sqrt() + b.sqrt()).reciprocal_()


def _inverse_root_quotient(a: Tensor, b: Tensor) -> Tensor:
    return -_root_quotient(a, b) * a.rsqrt() * b.rsqrt()


def _log_quotient(a: Tensor, b: Tensor) -> Tensor:
    # With t = log(low / high): (log a - log b) / (a - b) = t / (high expm1(t)), and 1 / a where they are equal.
    high, low = torch.maximum(a, b), torch.minimum(a, b)
    t = torch.log(low / high)
    return torch.where(low == high, torch.ones_like(t), t / torch.expm1(t)) / high


FUNCTIONS: dict[str, SpectralFunction] = {
    "sqrt": power(0.5),
    "identity": power(1),
    "invsqrt": power(-0.5),
    "log": SpectralFunction("log", torch.log, _log_quotient, -inf, positive=True),
}


def list_functions() -> list[str]:
    """Return the names ``get_function`` knows."""
    return sorted(FUNCTIONS)


def get_function(fn: str | SpectralFunction) -> SpectralFunction:
    """Return ``fn`` itself, or the function of that name.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    if isinstance(fn, SpectralFunction):
        return fn
    if fn not in FUNCTIONS:
        raise ValueError(f"unknown spectral function {fn!r}; known: {', '.join(list_functions())}, or power(p)")
    return FUNCTIONS[fn]
