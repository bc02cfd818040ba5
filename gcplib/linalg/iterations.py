"""The coupled Newton-Schulz iteration as one autograd function, with fewer products than its parts would take."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from gcplib.linalg import divided_differences as formulas
from gcplib.linalg.covariance import symmetric
from gcplib.linalg.polynomials import root_by_steps, scale
from gcplib.linalg.products import add_product, product
from gcplib.linalg.transforms import batched, exporting, fresh, pull_back, push_forward, run

Steps = tuple[formulas.Step, ...]


def _cubic(step: formulas.Step) -> tuple[float, float, float, float]:
    """Return the coefficients of ``1 - (1 - v) (a + b v)^2`` by rising powers of v."""
    a, b = step
    return 1 - a * a, a * a - 2 * a * b, 2 * a * b - b * b, b * b


@batched
class _Iteration(Function):
    """The coupled iteration in three products per step, and its gradient.

    ``C = sqrt(t) y``, t the trace, after the steps ``y <- y (a + b v)``, ``v <- 1 - (1 - v) (a + b v)^2`` from
    ``y = S / t``, ``v = I - S / t``; starting at ``y = I`` and divided by sqrt(t) the inverse root. With v in place of
    ``w = z y = I - v`` nothing cancels: v goes to zero where the iteration has converged.

    The backward pass needs no adjoint recursion. Given t, the result is a polynomial of one symmetric matrix, and the
    derivative of such a map is self-adjoint: its gradient is its derivative *in the direction* sym(G), the same
    iteration once more, with tangents. All iterates are symmetric and commute, so ``d(v v) = v dv + (v dv)^T`` is one
    product. That makes five products per step, and one for each y, which is computed again and not stored: 25 for five
    steps, with five matrices stored, where the published recursion takes 40 and stores eleven.
    """

    @staticmethod
    def forward(s: Tensor, steps: Steps, inverse: bool) -> tuple[Tensor, ...]:
        s = s.detach()
        t = scale(s, "trace")
        a = s / t
        square = product(a, a)
        (first, slope), *rest = steps
        y = _plus_identity(-slope * a, first + slope) if inverse else (first + slope) * a - slope * square
        vs: list[Tensor] = []
        for number, (constant, slope) in enumerate(rest):
            # v of the step before, squared, is at hand.
            v = vs[-1] if vs else _plus_identity(-a)
            square = product(v, v) if vs else _plus_identity(square - 2 * a)
            k0, k1, k2, k3 = _cubic(steps[number])
            v = _plus_identity(add_product(square, square, v, beta=k2, alpha=k3).add_(v, alpha=k1), k0)
            vs.append(v)
            y = add_product(y, y, v, beta=constant, alpha=slope)
        return fresh(y.mul_(t.rsqrt() if inverse else t.sqrt())), t, *vs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        s, *ctx.call = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(s, *output[1:])
        ctx.save_for_forward(s)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: None) -> tuple:
        if g is None:
            return None, None, None
        return run(_IterationGradient, g, *ctx.saved_tensors, *ctx.call), None, None

    @staticmethod
    def push(ctx: Any, ds: Tensor, *_: None) -> tuple:
        steps, inverse = ctx.call
        tangent = push_forward(partial(root_by_steps, steps, inverse), ctx.saved_tensors[:1], (ds,))
        return tangent, *([None] * len(steps))


@batched
class _IterationGradient(Function):
    """The gradient of the iteration, whose own derivatives are those of plain products."""

    @staticmethod
    def forward(g: Tensor, s: Tensor, t: Tensor, *rest: Any) -> Tensor:
        *vs, steps, inverse = rest
        with torch.autocast(g.device.type, enabled=False):
            a, e, (constant, slope) = s / t, symmetric(g), steps[0]
            square, dsquare = product(a, a), product(a, e)
            dsquare = dsquare + dsquare.mT
            if inverse:
                y, dy = _plus_identity(-slope * a, constant + slope), -slope * e
            else:
                y, dy = (constant + slope) * a - slope * square, (constant + slope) * e - slope * dsquare
            if vs:
                v, dv = _plus_identity(-a), -e
                square_dv = product(_plus_identity(square - 2 * a), dv)
                dv = _cubic_tangent(_cubic(steps[0]), v, dv, dsquare - 2 * e, square_dv)
            for number, v in enumerate(vs, 1):
                constant, slope = steps[number]
                dy = add_product(add_product(dy, dy, v, beta=constant, alpha=slope), y, dv, alpha=slope)
                y = add_product(y, y, v, beta=constant, alpha=slope)
                if number < len(vs):
                    half = product(v, dv)
                    dv = _cubic_tangent(_cubic((constant, slope)), v, dv, half + half.mT, product(v, half))
            # What reaches S through t: once as the factor of C, once as the divisor of S.
            half = -_inner(e, y) / 2 if inverse else _inner(e, y) / 2
            dy.diagonal(dim1=-2, dim2=-1).add_((half - _inner(dy, a)).squeeze(-1))
            return dy.div_(t**1.5 if inverse else t.sqrt())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        g, s, *rest = inputs
        *_, ctx.steps, ctx.inverse = rest
        ctx.others = len(rest)
        ctx.save_for_backward(g, s)
        ctx.save_for_forward(g, s)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple:
        return *pull_back(_IterationGradient._linear(ctx), ctx.saved_tensors, v), *([None] * ctx.others)

    @staticmethod
    def push(ctx: Any, dg: Tensor | None, ds: Tensor | None, *_: None) -> Tensor:
        tangents = tuple(
            torch.zeros_like(x) if t is None else t for x, t in zip(ctx.saved_tensors, (dg, ds), strict=True)
        )
        return push_forward(_IterationGradient._linear(ctx), ctx.saved_tensors, tangents)

    @staticmethod
    def _linear(ctx: Any) -> Callable[[Tensor, Tensor], Tensor]:
        f = partial(root_by_steps, ctx.steps, ctx.inverse)
        return lambda g, s: pull_back(f, (s,), symmetric(g))[0]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)


def _cubic_tangent(k: tuple[float, ...], v: Tensor, dv: Tensor, dsquare: Tensor, square_dv: Tensor) -> Tensor:
    """Return the tangent of ``k0 + k1 v + k2 v^2 + k3 v^3``, with ``d(v^3) = d(v^2) v + v^2 dv``."""
    tangent = add_product(k[2] * dsquare, dsquare, v, alpha=k[3]).add_(square_dv, alpha=k[3])
    return tangent.add_(dv, alpha=k[1]) if k[1] else tangent


def _plus_identity(s: Tensor, number: float = 1.0) -> Tensor:
    """Add a multiple of the identity in place."""
    s.diagonal(dim1=-2, dim2=-1).add_(number)
    return s


def iterate(s: Tensor, steps: Steps, inverse: bool = False) -> Tensor:
    """Return ``sqrt(t) p(S / t)`` of matrices ``(..., d, d)``, or ``inverse``, that divided by S."""
    if exporting():
        return root_by_steps(steps, inverse, s)
    batch = s.flatten(0, -3) if s.dim() > 2 else s.unsqueeze(0)
    return run(_Iteration, batch, steps, inverse)[0].view(s.shape)
