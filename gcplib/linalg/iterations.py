"""Square roots by matrix products alone: Newton-Schulz and its accelerated form, MPA and MTP.

What each computes, eigenvalue by eigenvalue, is in ``functions``. All take symmetric positive semi-definite matrices
``(..., d, d)`` and raise a ValueError where they are neither square nor symmetric or a setting is out of range, and a
NonFiniteError at NaN or infinity. A zero matrix stays zero.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from gcplib.linalg import divided_differences as formulas
from gcplib.linalg import matrix_functions
from gcplib.linalg.covariance import center, covariance, second_moment, symmetric
from gcplib.linalg.functions import LOG, SQRT, SpectralFunction
from gcplib.linalg.products import add_product, product
from gcplib.linalg.tolerance import ROOT_STEPS, check_symmetric, rank_tolerance
from gcplib.linalg.transforms import batched, exporting, fresh, look, pull_back, push_forward, run

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
        t = matrix_functions.scale(s, "trace")
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
        tangent = push_forward(partial(matrix_functions.root_by_steps, steps, inverse), ctx.saved_tensors[:1], (ds,))
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
        f = partial(matrix_functions.root_by_steps, ctx.steps, ctx.inverse)
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


def _iterate(s: Tensor, steps: Steps, inverse: bool = False) -> Tensor:
    """Return ``sqrt(t) p(S / t)`` of matrices ``(..., d, d)``, or ``inverse``, that divided by S."""
    if exporting():
        return matrix_functions.root_by_steps(steps, inverse, s)
    batch = s.flatten(0, -3) if s.dim() > 2 else s.unsqueeze(0)
    return run(_Iteration, batch, steps, inverse)[0].view(s.shape)


def _exact(s: Tensor, inverse: bool = False) -> Tensor:
    """Return the root, or the inverse root, in as many steps as the precision needs."""
    t = matrix_functions.scale(s, "trace")
    root, inverse_root = matrix_functions.root_and_inverse(formulas.accelerated_steps(*ROOT_STEPS[s.dtype]), s / t)
    return symmetric(inverse_root) * t.rsqrt() if inverse else symmetric(root) * t.sqrt()


def _log(s: Tensor) -> Tensor:
    """Return the logarithm, for eigenvalues in the range of ``ROOT_STEPS``: roots, and a series for the rest."""
    t = matrix_functions.scale(s, "trace")
    most, smallest, ratio = ROOT_STEPS[s.dtype]
    a, roots = s / t, 0
    while smallest < 0.7:
        for count in range(1, most + 1):
            steps = formulas.accelerated_steps(count, smallest, ratio)
            if abs(formulas.iteration(steps, smallest) / smallest**0.5 - 1) < torch.finfo(s.dtype).eps:
                break
        a, smallest, roots = symmetric(matrix_functions.root_and_inverse(steps, a)[0]), smallest**0.5, roots + 1
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    y = product(a - eye, matrix_functions.inverse((a + eye) / 2, (1 + smallest) / 2)) / 2
    return 2**roots * matrix_functions.log_series(y) + t.log() * eye


def map_by_products(s: Tensor, fn: SpectralFunction) -> Tensor:
    """Return ``f(S)`` of symmetric ``(..., d, d)`` without eigenvalues.

    The square root takes as many of the best cubic steps as the precision needs (``ROOT_STEPS``): relative to the exact
    root, an eigenvalue above 1e-5 of the trace comes out right to 2e-6 in float32; smaller ones come out smaller, with
    a slope that does not grow. Null eigenvalues stay null. Other functions take the products that define them. The
    logarithm, for ``by_products`` alone, has the same range, and nothing that tells whether a matrix is within it.

    Raises:
        ValueError: f has no form by products.
    """
    with torch.autocast(s.device.type, enabled=False):
        if fn == SQRT:
            return _exact(s)
        if fn == LOG:
            return _log(s)
        if (steps := steps_of(fn)) is not None:
            return _iterate(s, steps)
        assert fn.matrix is not None
        return matrix_functions.scaled(fn.matrix, fn.scale, s)


def features_by_products(x: Tensor, fn: SpectralFunction, centered: bool) -> Tensor:
    """Return ``f(S)`` of the covariance or second moment S of features ``(..., d, M)`` without eigenvalues.

    Where positions are fewer than channels, with the smaller ``G = X^T X / M``: ``C = X h(G) X^T / M``, ``h(lam) =
    f(lam) / lam``, which is the inverse root of the iteration. Centered features have ``G 1 = 0`` and ``X 1 = 0``, so
    the mean eigenvalue is put in that place, and nothing else changes.
    """
    positions = x.shape[-1]
    steps = None if fn == LOG else steps_of(fn)
    if (fn != SQRT and steps is None) or positions > x.shape[-2]:
        return map_by_products(covariance(x) if centered else second_moment(x), fn)
    with torch.autocast(x.device.type, enabled=False):
        x = center(x) if centered else x
        gram = product(x.mT, x) / positions
        if steps is not None:
            inverse = _iterate(gram, steps, inverse=True)
        else:
            inverse = _exact(gram + matrix_functions.scale(gram, "trace") / positions**2 if centered else gram, True)
        return product(product(x, inverse), x.mT) / positions


def steps_of(fn: SpectralFunction) -> Steps | None:
    """Return the steps of the iteration that f is, or None: a root, or a function that takes other products.

    Raises:
        ValueError: f has no form by products.
    """
    if getattr(fn.value, "func", None) is formulas.iteration and fn.gain is None and fn.base is None:
        return fn.value.args[0]  # type: ignore[attr-defined]
    if fn == SQRT or (fn.smooth and fn.matrix is not None):
        return None
    raise ValueError(
        f"route 'products' has the square root (sqrt, newton_schulz, accelerated, taylor, pade), not {fn}; use auto"
    )


def newton_schulz(s: Tensor, steps: int = 5) -> Tensor:
    """Approximate the square root of ``S`` by coupled Newton-Schulz iteration after division by the trace.

    ``Y_0 = S / tr(S)``, ``Z_0 = I``; ``T = (3 I - Z Y) / 2``, ``Y <- Y T``, ``Z <- T Z``; ``C = sqrt(tr(S)) Y``.
    With few steps this is a function of its own, not the square root (``newton_schulz_function``): eigenvalues below
    about 1 % of the trace come out too small (34 % at 1 % of the trace, 76 % at 0.1 %, five steps). Their gradients are
    too large first (24 % at 3 %), and too small below 0.6 % (53 % at 0.1 %).

    Args:
        s: ``(..., d, d)``.
        steps: number of iterations; the papers use 5.

    Source: iSQRT-COV (Li et al., CVPR 2018), eqs. 1-6.
    """
    look(check_symmetric, s)
    with torch.autocast(s.device.type, enabled=False):
        return _iterate(s, formulas.newton_schulz_steps(steps))


def taylor_root(s: Tensor, terms: int = 10) -> Tensor:
    """Return MTP, the matrix Taylor polynomial of the root about the identity: ``terms - 1`` products.

    The same function as ``spectral_map(s, taylor_function(terms))``; differentiated by autograd.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    look(check_symmetric, s)
    with torch.autocast(s.device.type, enabled=False):
        polynomial = partial(matrix_functions.polynomial, formulas.taylor_coefficients(terms), 1)
        return matrix_functions.scaled(polynomial, "norm", s)


def pade_root(s: Tensor) -> Tensor:
    """Return MPA, the matrix Pade approximant [5/5] of the root about the identity: eight products and one solve.

    The same function as ``spectral_map(s, pade_function())``; differentiated by autograd.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    rank_tolerance(s.dtype)  # the solver has no half precision
    look(check_symmetric, s)
    with torch.autocast(s.device.type, enabled=False):
        return matrix_functions.scaled(matrix_functions.pade, "norm", s)
