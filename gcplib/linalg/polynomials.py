"""Functions of symmetric matrices in plain products, which autograd differentiates as often as anyone likes."""

from collections.abc import Callable

import torch
from torch import Tensor

from gcplib.linalg import divided_differences as formulas
from gcplib.linalg.products import product
from gcplib.linalg.transforms import exporting


def iteration(steps: tuple[formulas.Step, ...], s: Tensor, lam: Tensor | None, inverse: bool = False) -> Tensor:
    """Return ``formulas.iteration`` of any symmetric matrix; ``inverse`` divides it by the matrix."""
    eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device).expand_as(s)
    y, w = eye if inverse else s, s
    for a, b in steps:
        t = (a + b) * eye - b * w
        y, w = product(y, t), product(product(t, w), t)
    return y


def root_and_inverse(steps: tuple[formulas.Step, ...], s: Tensor) -> tuple[Tensor, Tensor]:
    """Return the root and the inverse root by the coupled iteration, of matrices of trace 1.

    As ``w = z y`` is formed anew in every step, rounding noise of small eigenvalues is not amplified by later steps, as
    it would be in ``iteration``: at ``tr / lam_min = 1e5`` in float32 the root is right to 8e-6, and to 1.7e-4 there.
    """
    eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device).expand_as(s)
    y, z = s, eye
    for a, b in steps:
        w = product(z, y)
        t = (a + b) * eye - (b / 2) * (w + w.mT)
        y, z = product(y, t), product(t, z)
    return y, z


def polynomial(coefficients: tuple[float, ...], center: float, s: Tensor, lam: Tensor | None) -> Tensor:
    """Return ``formulas.horner`` of any symmetric matrix."""
    eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    x = s - center * eye
    value = coefficients[0] * x + coefficients[1] * eye
    for coefficient in coefficients[2:]:
        value = product(value, x) + coefficient * eye
    return value


def pade(s: Tensor, lam: Tensor | None) -> Tensor:
    above, below = (polynomial(c, 1, s, None) for c in (formulas.PADE_NUMERATOR, formulas.PADE_DENOMINATOR))
    # The denominator is positive definite, with eigenvalues up to 1, and everything commutes.
    if exporting():
        return product(inverse(below, formulas.horner(formulas.PADE_DENOMINATOR, 1, 0.0)), above)
    return torch.linalg.solve(below, above)


def inverse(a: Tensor, smallest: float) -> Tensor:
    """Return the inverse of matrices with eigenvalues from ``smallest`` to 1 by Newton's iteration, ``R (2 - A R)``."""
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    error, r = (1 - smallest) / (1 + smallest), 2 / (1 + smallest) * eye
    while error > torch.finfo(a.dtype).eps / 4:
        r, error = product(r, 2 * eye - product(a, r)), error**2
    return r


def scale(s: Tensor, kind: str) -> Tensor:
    """Return the trace or the Frobenius norm of symmetric matrices, ``(..., 1, 1)``; 1 for zero matrices."""
    if kind == "trace":
        t = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    else:
        # Divided by the largest entry first: the squares of small numbers are zero in float32.
        largest = s.detach().abs().amax((-2, -1), keepdim=True)
        largest = torch.where(largest > 0, largest, torch.ones_like(largest))
        square = (s / largest).square().sum((-2, -1), keepdim=True)
        t = largest * torch.where(square > 0, square, torch.ones_like(square)).sqrt()
    return torch.where(t > 0, t, torch.ones_like(t))


def root_by_steps(steps: tuple[formulas.Step, ...], inverse: bool, s: Tensor) -> Tensor:
    """Return ``sqrt(t) p(S / t)`` with p the iteration and t the trace, or ``p(S / t) (S / t)^-1 / sqrt(t)``."""
    t = scale(s, "trace")
    return iteration(steps, s / t, None, inverse) * (t.rsqrt() if inverse else t.sqrt())


def scaled(f: Callable[[Tensor, None], Tensor], kind: str | None, s: Tensor) -> Tensor:
    """Return ``f(S)``, or ``sqrt(t) f(S / t)`` with the scale t of that kind, for smooth f and any symmetric S."""
    if kind is None:
        return f(s, None)
    t, nonzero = scale(s, kind), (s != 0).any(-1, keepdim=True).any(-2, keepdim=True)
    return f(s / t, None) * (t.sqrt() * nonzero)
