"""Spectral maps in differentiable operations: what their gradients are differentiated by, as often as anyone likes.

The fast forward and backward passes of ``autograd`` know the first derivative alone. For more, the map is written here
in products and in two functions that call themselves: the root C of A and the solution Y of ``C Y + Y C = H``, with

    dC = Y(dA),    dY = Y(dH - dC Y - Y dC).

All of it is done in the eigenvectors of the matrix, where every factor is diagonal, so nothing is inverted that
could be badly conditioned, and eigenvalues may repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function

from gcplib.linalg import divided_differences as formulas
from gcplib.linalg.products import product
from gcplib.linalg.transforms import batched, exporting, look, run

if TYPE_CHECKING:
    from gcplib.linalg.functions import SpectralFunction

# Roots taken of a matrix before its logarithm is a short series. After eight, eigenvalues that are 15 digits apart
# differ by 15 %, and terms of the series fall off by 0.005.
LOG_ROOTS, LOG_TERMS = 8, 8


@batched
class _Lyapunov(Function):
    """Y of ``C Y + Y C = H`` for C that is diagonal where this is evaluated, though not in its derivatives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(c: Tensor, h: Tensor) -> Tensor:
        root = c.diagonal(dim1=-2, dim2=-1)
        return h / (root.unsqueeze(-1) + root.unsqueeze(-2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        c, y = ctx.saved_tensors
        z = run(_Lyapunov, c, g)
        return -(product(z, y.mT) + product(y.mT, z)), z

    @staticmethod
    def push(ctx: Any, dc: Tensor, dh: Tensor) -> Tensor:
        c, y = ctx.saved_tensors
        return run(_Lyapunov, c, dh - product(dc, y) - product(y, dc))


@batched
class _Root(Function):
    """The root C, given as its eigenvalues, of a matrix that is diagonal where this is evaluated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, root: Tensor) -> Tensor:
        return torch.diag_embed(root)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        return run(_Lyapunov, ctx.saved_tensors[0], g), None

    @staticmethod
    def push(ctx: Any, da: Tensor, _: None) -> Tensor:
        return run(_Lyapunov, ctx.saved_tensors[0], da)


@batched
class _Inverse(Function):
    """The inverse R, given as its eigenvalues, of a matrix that is diagonal where this is evaluated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, inverse: Tensor) -> Tensor:
        return torch.diag_embed(inverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        r = ctx.saved_tensors[0].mT
        return -product(product(r, g), r), None

    @staticmethod
    def push(ctx: Any, da: Tensor, _: None) -> Tensor:
        (r,) = ctx.saved_tensors
        return -product(product(r, da), r)


def identity(a: Tensor, lam: Tensor | None) -> Tensor:
    return a


def root(a: Tensor, lam: Tensor) -> Tensor:
    """Return the root of A, which is ``diag(lam)`` up to its derivatives; so for the functions below."""
    return run(_Root, a, lam.sqrt())


def inverse_root(a: Tensor, lam: Tensor) -> Tensor:
    return run(_Inverse, root(a, lam), lam.rsqrt())


def log(a: Tensor, lam: Tensor) -> Tensor:
    """Return the logarithm by roots, and a series for the rest."""
    middle = lam.log().mean(-1, keepdim=True)
    a, lam = a * (-middle).exp().unsqueeze(-1), lam * (-middle).exp()
    for _ in range(LOG_ROOTS):
        lam = lam.sqrt()
        a = run(_Root, a, lam)
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    y = product(a - eye, run(_Inverse, a + eye, (lam + 1).reciprocal()))
    return 2**LOG_ROOTS * log_series(y) + middle.unsqueeze(-1) * eye


def log_series(y: Tensor) -> Tensor:
    """Return ``log X = 2 (Y + Y^3 / 3 + ...)`` from ``Y = (X - I) (X + I)^-1``."""
    eye, square = torch.eye(y.shape[-1], dtype=y.dtype, device=y.device), product(y, y)
    series = eye / (2 * LOG_TERMS + 1)
    for term in range(LOG_TERMS - 1, -1, -1):
        series = product(square, series) + eye / (2 * term + 1)
    return 2 * product(y, series)


def power(exponent: float, a: Tensor, lam: Tensor) -> Tensor:
    return torch.matrix_exp(exponent * log(a, lam))


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


def of_matrix(fn: SpectralFunction, s: Tensor, u: Tensor, lam: Tensor, null: Tensor) -> Tensor:
    """Return ``f(S)`` of symmetric ``(n, d, d)`` in operations that autograd can differentiate again and again.

    Args:
        fn: f, with ``matrix``.
        s: S.
        u: its eigenvectors, ``(n, d, k)``; constants, as the next two.
        lam: its eigenvalues, ``(n, k)``.
        null: which of them are zero.
    """
    assert fn.matrix is not None
    if fn.smooth:
        return scaled(fn.matrix, fn.scale, s)
    if fn.positive or (u.shape[-1] == s.shape[-1] and not _any(null)):
        return product(product(u, fn.matrix(product(product(u.mT, s), u), lam)), u.mT)
    u = u * ~null.unsqueeze(-2)
    su = product(s, u)
    return _on_range(fn, su, product(u.mT, su), lam, null)


def of_features(fn: SpectralFunction, x: Tensor, u: Tensor, lam: Tensor, null: Tensor, back: Tensor) -> Tensor:
    """Return ``f(X X^T)`` of ``(n, d, M)``, where positions are fewer than channels; see ``of_matrix``.

    Args:
        fn, u, lam, null: as there, of X X^T.
        x: X.
        back: ``lam^(1/2) V^T``, V the eigenvectors of X^T X.
    """
    assert fn.matrix is not None
    if fn.smooth:
        return of_matrix(fn, product(x, x.mT), u, lam, null)
    if not _any(null):
        x = product(x, back.mT * lam.rsqrt().unsqueeze(-2))
        return product(product(x, _over(fn, product(x.mT, x), lam)), x.mT)
    y = product(x.mT, u)
    return _on_range(fn, product(x, y), product(y.mT, y), lam, null)


def _any(null: Tensor) -> bool:
    found = []
    look(lambda values: found.append(bool(values.any())), null)
    return found[0]


def _over(fn: SpectralFunction, a: Tensor, lam: Tensor) -> Tensor:
    """Return ``f(A) / A``."""
    if fn.matrix == root:
        return inverse_root(a, lam)
    assert fn.matrix is not None
    return product(run(_Inverse, a, lam.reciprocal()), fn.matrix(a, lam))


def _on_range(fn: SpectralFunction, su: Tensor, usu: Tensor, lam: Tensor, null: Tensor) -> Tensor:
    """Return f(S) from ``S U`` and ``U^T S U``, U the eigenvectors of the range, for changes of S that keep its rank.

    There ``S = X X^T`` with ``X = S U (U^T S U)^(-1/2)`` and ``f(S) = X h(X^T X) X^T``, ``h(lam) = f(lam) / lam``: a
    smooth function of S, although f may have no derivative at 0. Changes between null directions do not enter, which is
    the choice of the first derivative, too.
    """
    lam, pad = torch.where(null, torch.ones_like(lam), lam), torch.diag_embed(null.to(lam.dtype))
    x = product(su, inverse_root(usu + pad, lam))
    return product(product(x, _over(fn, product(x.mT, x) + pad, lam)), x.mT)
