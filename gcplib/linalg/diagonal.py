"""Roots, inverses, logarithms and powers of matrices that are diagonal where they are evaluated.

Their derivatives are not diagonal, and can be taken as often as anyone likes: the root C of A and the solution Y of
``C Y + Y C = H`` call themselves,

    dC = Y(dA),    dY = Y(dH - dC Y - Y dC).

In its eigenvectors every matrix is diagonal; then nothing is inverted that could be badly conditioned, and eigenvalues
may repeat.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from gcplib.linalg.products import product
from gcplib.linalg.transforms import batched, run

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


def invert(a: Tensor, lam: Tensor) -> Tensor:
    return run(_Inverse, a, lam.reciprocal())


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
