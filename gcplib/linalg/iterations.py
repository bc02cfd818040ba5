"""Square roots by matrix products alone: Newton-Schulz and its accelerated forms, MPA, MTP, and the Lyapunov solver.

What each computes, eigenvalue by eigenvalue, is in ``functions``. All take symmetric positive semi-definite matrices
``(..., d, d)`` and raise a ValueError where they are not square or a setting is out of range, and a NonFiniteError at
NaN or infinity. A zero matrix stays zero.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gcplib.linalg import divided_differences as formulas
from gcplib.linalg.calls import check_count
from gcplib.linalg.covariance import symmetric
from gcplib.linalg.tolerance import check_matrices, raise_non_finite, rank_tolerance, require


def _cubic(step: formulas.Step) -> tuple[float, float, float, float]:
    """Return the coefficients of ``1 - (1 - v) (a + b v)^2`` by rising powers of v."""
    a, b = step
    return 1 - a * a, a * a - 2 * a * b, 2 * a * b - b * b, b * b


class _Iteration(Function):
    """The coupled iteration in three products per step, and its gradient.

    ``C = sqrt(t) y``, t the trace, after the steps ``y <- y (a + b v)``, ``v <- 1 - (1 - v) (a + b v)^2`` from
    ``y = S / t``, ``v = I - S / t``. With v in place of ``w = z y = I - v`` nothing cancels: v goes to zero where the
    iteration has converged.

    The backward pass needs no adjoint recursion. Given t, the result is a polynomial of one symmetric matrix, and the
    derivative of such a map is self-adjoint: its gradient is its derivative *in the direction* sym(G), the same
    iteration once more, with tangents. All iterates are symmetric and commute, so ``d(v v) = v dv + (v dv)^T`` is one
    product. That makes five products per step, and one for each y, which is computed again and not stored: 25 for five
    steps, with five matrices stored, where the published recursion takes 40 and stores eleven.
    """

    @staticmethod
    def forward(ctx, s, steps):
        t = _scale(s, "trace")
        a = s / t
        saved, square = [a], a @ a
        (first, slope), *rest = steps
        y = (first + slope) * a - slope * square
        for number, (constant, slope) in enumerate(rest):
            # v of the step before, squared, is at hand.
            v = _plus_identity(-a) if number == 0 else saved[-1]
            square = _plus_identity(square - 2 * a) if number == 0 else v @ v
            k0, k1, k2, k3 = _cubic(steps[number])
            v = _plus_identity(torch.baddbmm(square, square, v, beta=k2, alpha=k3).add_(v, alpha=k1), k0)
            saved.append(v)
            y = torch.baddbmm(y, y, v, beta=constant, alpha=slope)
        ctx.save_for_backward(t, *saved)
        ctx.steps = steps
        return y * t.sqrt()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        with torch.autocast(g.device.type, enabled=False):
            t, a, *vs = ctx.saved_tensors
            e, (constant, slope) = symmetric(g), ctx.steps[0]
            square, dsquare = a @ a, a @ e
            dsquare = dsquare + dsquare.mT
            y, dy = (constant + slope) * a - slope * square, (constant + slope) * e - slope * dsquare
            if vs:
                v, dv = _plus_identity(-a), -e
                square_dv = torch.bmm(_plus_identity(square - 2 * a), dv)
                dv = _cubic_tangent(_cubic(ctx.steps[0]), v, dv, dsquare - 2 * e, square_dv)
            for number, v in enumerate(vs, 1):
                constant, slope = ctx.steps[number]
                dy = torch.baddbmm(torch.baddbmm(dy, dy, v, beta=constant, alpha=slope), y, dv, alpha=slope)
                y = torch.baddbmm(y, y, v, beta=constant, alpha=slope)
                if number < len(vs):
                    half = v @ dv
                    dv = _cubic_tangent(_cubic((constant, slope)), v, dv, half + half.mT, v @ half)
            # What reaches S through t: once as the factor of C, once as the divisor of S.
            through_t = _inner(e, y) / 2 - _inner(dy, a)
            dy.diagonal(dim1=-2, dim2=-1).add_(through_t.squeeze(-1))
            return dy.div_(t.sqrt()), None


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)


def _cubic_tangent(k: tuple[float, ...], v: Tensor, dv: Tensor, dsquare: Tensor, square_dv: Tensor) -> Tensor:
    """Return the tangent of ``k0 + k1 v + k2 v^2 + k3 v^3``, with ``d(v^3) = d(v^2) v + v^2 dv``."""
    tangent = torch.baddbmm(k[2] * dsquare, dsquare, v, alpha=k[3]).add_(square_dv, alpha=k[3])
    return tangent.add_(dv, alpha=k[1]) if k[1] else tangent


def _plus_identity(s: Tensor, number: float = 1.0) -> Tensor:
    """Add a multiple of the identity in place."""
    s.diagonal(dim1=-2, dim2=-1).add_(number)
    return s


def _scale(s: Tensor, kind: str) -> Tensor:
    """Return the trace or the norm, ``(..., 1, 1)``; 1 for a zero matrix, which has no scale and stays zero."""
    if kind == "trace":
        t = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    else:
        # Divided by the largest entry first: the squares of small numbers are zero in float32.
        top = s.abs().amax((-2, -1), keepdim=True)
        top = torch.where(top > 0, top, torch.ones_like(top))
        t = top * (s / top).norm(dim=(-2, -1), keepdim=True)
    return torch.where(t > 0, t, torch.ones_like(t))


def _check(s: Tensor) -> None:
    check_matrices(s)
    require(torch.isfinite(s.detach()).all(), "matrices are not finite", partial(raise_non_finite, "matrices", s))


def _iterate(s: Tensor, steps: tuple[formulas.Step, ...]) -> Tensor:
    _check(s)
    with torch.autocast(s.device.type, enabled=False):
        return _Iteration.apply(s.flatten(0, -3) if s.dim() > 2 else s.unsqueeze(0), steps).view(s.shape)


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
    return _iterate(s, formulas.newton_schulz_steps(steps))


def accelerated_newton_schulz(s: Tensor, steps: int = 4, smallest: float = 1e-3) -> Tensor:
    """Approximate the square root as ``newton_schulz`` does, with the best cubic in every step.

    Each step has the coefficients that minimize the largest relative error over eigenvalues from ``smallest`` to 1 of
    the trace: same products per step, fewer steps (``accelerated_function`` tells the error).

    Args:
        s: ``(..., d, d)``.
        steps: number of iterations.
        smallest: the smallest eigenvalue over the trace that should come out right, between 0 and 1.

    Source: Polar Express (Amsel et al., 2025), degree 3, whose optimum is that of Chen and Chow (2014), in closed form.
    """
    return _iterate(s, formulas.accelerated_steps(steps, smallest))


def _about_identity(s: Tensor, root: Callable[[Tensor], Tensor]) -> Tensor:
    """Return ``sqrt(t) root(S / t - I)``, t the norm; 0 for a zero matrix, although f(0) is not."""
    _check(s)
    with torch.autocast(s.device.type, enabled=False):
        t = _scale(s, "norm")
        nonzero = (s != 0).any(-1, keepdim=True).any(-2, keepdim=True)
        return root(_plus_identity(s / t, -1.0)) * (t.sqrt() * nonzero)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Return the polynomial of a matrix with these coefficients, of the highest power first, by Horner's rule."""
    value = _plus_identity(coefficients[0] * x, coefficients[1])
    for coefficient in coefficients[2:]:
        value = _plus_identity(value @ x, coefficient)
    return value


def _pade(x: Tensor) -> Tensor:
    numerator, denominator = (_polynomial(c, x) for c in (formulas.PADE_NUMERATOR, formulas.PADE_DENOMINATOR))
    # The denominator is positive definite, and everything commutes.
    return torch.cholesky_solve(numerator, torch.linalg.cholesky(denominator))


def taylor_root(s: Tensor, terms: int = 10) -> Tensor:
    """Return MTP, the matrix Taylor polynomial of the root about the identity: ``terms - 1`` products.

    The same function as ``spectral_map(s, taylor_function(terms))``; differentiated by autograd.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    return _about_identity(s, partial(_polynomial, formulas.taylor_coefficients(terms)))


def pade_root(s: Tensor) -> Tensor:
    """Return MPA, the matrix Pade approximant [5/5] of the root about the identity: eight products and one solve.

    The same function as ``spectral_map(s, pade_function())``; differentiated by autograd.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    rank_tolerance(s.dtype)  # the solver has no half precision
    return _about_identity(s, _pade)


def lyapunov(root: Tensor, g: Tensor, steps: int = 8) -> Tensor:
    """Solve ``C X + X C = G`` by the sign iteration: the published backward pass of MPA and MTP.

    ``B_0 = C / |C|_F``, ``H_0 = G / |C|_F``; ``H <- (H (3 - B^2) - B^2 H + B H B) / 2``, ``B <- B (3 - B^2) / 2``;
    ``X = H / 2``. Eight steps are exact to 1e-11 for a well-conditioned C, and far from it at condition 1e4. Between
    range and null space of C, X comes out at half its value whatever the number of steps, and between null directions,
    where the equation has no solution, it grows by 3/2 per step. In the eigenbasis the solution is
    ``G_ij / (c_i + c_j)``, which is the rule ``lyapunov``.

    Args:
        root: C, ``(..., d, d)``.
        g: symmetric ``(..., d, d)``.
        steps: number of iterations; the paper uses 8.

    Source: fast differentiable matrix square root (Song et al., ICLR 2022).
    """
    check_count("the number of steps of the Lyapunov solver", steps)
    if root.shape != g.shape:
        raise ValueError(f"root and gradient must have one shape, got {tuple(root.shape)} and {tuple(g.shape)}")
    _check(root)
    _check(g)
    with torch.autocast(root.device.type, enabled=False):
        scale = _scale(root, "norm")
        b, h = root / scale, g / scale
        for _ in range(steps):
            square = b @ b
            left = square @ h
            h = (3 * h - h @ square - left + b @ h @ b) / 2
            b = (3 * b - b @ square) / 2
        return h / 2
