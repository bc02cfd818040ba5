"""The autograd function under the spectral maps: decompose, apply f to the eigenvalues, compose; and the way back."""

from functools import partial

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gcplib.linalg.covariance import center, twice_symmetric_product
from gcplib.linalg.eigen import eigh
from gcplib.linalg.eigenvalues import not_noise, outputs
from gcplib.linalg.functions import SpectralFunction
from gcplib.linalg.gradient import weighted_gradient
from gcplib.linalg.gradient_rules import GradientRule
from gcplib.linalg.parallel import batch_parts, over_batch
from gcplib.linalg.tolerance import raise_non_finite, require


def _decompose(s: Tensor, rank: int, fn: SpectralFunction, rule: GradientRule) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return U, lam and which directions are null (None: no one, or f is smooth there) of symmetric matrices."""
    lam, u = eigh(s)
    if rule.clamps_forward:
        lam = lam.clamp(min=torch.finfo(lam.dtype).eps)
    elif not fn.smooth:
        keep = not_noise(lam, rank, fn)
        if not torch.compiler.is_compiling() and bool(keep.all()):
            return u, lam, None
        return u, torch.where(keep, lam, torch.zeros_like(lam)), ~keep
    return u, lam, None


def _from_gram(x: Tensor, rank: int, fn: SpectralFunction) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return U, lam, V, keep of centered features from ``X^T X / M``."""
    positions = x.shape[-1]
    lam, v = eigh((x.mT @ x).div_(positions))
    keep = not_noise(lam, rank, fn)
    inverse_root = torch.where(keep, lam * positions, torch.ones_like(lam)).rsqrt() * keep
    return x @ (v * inverse_root.unsqueeze(-2)), torch.where(keep, lam, torch.zeros_like(lam)), v, keep


def _from_svd(x: Tensor, rank: int, fn: SpectralFunction) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the same from X itself: no product is formed, so the condition number is not squared."""
    require(torch.isfinite(x).all(), "features are not finite", partial(raise_non_finite, "centered features", x))
    u, s, vt = torch.linalg.svd(x * x.shape[-1] ** -0.5, full_matrices=False)
    u, s, v = u.flip(-1), s.flip(-1), vt.mT.flip(-1)
    keep = not_noise(s, rank, fn)
    return u * keep.unsqueeze(-2), torch.where(keep, s, torch.zeros_like(s)).square(), v, keep


def _compose(u: Tensor, f: Tensor, out: Tensor | None) -> Tensor:
    return torch.bmm(u * f.unsqueeze(-2), u.mT, out=out)


class SpectralMap(Function):
    """``C = U f(lam) U^T`` of a batch of symmetric matrices S, or of ``S = X X^T / M`` of features X.

    Shares the batch out over the CPU threads. From all of S,

        dl/dS = U [(U^T sym(G) U) * W] U^T,    dl/dX = 2 sym(dl/dS) X / M.

    From the smaller side, with ``X^T X / M = V diag(lam) V^T``, ``U = X V lam^(-1/2) / sqrt(M)``; where ``f(0) = 0``,

        dl/dX = (2 / sqrt(M)) [U (W * A) + (I - U U^T) sym(G) U (f / lam)] lam^(1/2) V^T,   A = U^T sym(G) U.

    The second term is the derivative towards the null space, ``f[lam_i, 0] = f(lam_i) / lam_i``.

    Args:
        x: S ``(n, d, d)``, or X ``(n, d, M)``.
        fn: f.
        rule: W.
        route: ``matrix`` for S; of X ``full``, ``thin`` (by ``X^T X``) or ``svd`` (of X itself).
        centered: whether to subtract the mean of X, which makes S the covariance.
    """

    @staticmethod
    def forward(ctx, x, fn, rule, route, centered):
        x = x.detach()
        batch, channels, positions = x.shape
        rank = channels if route == "matrix" else min(channels, positions - 1 if centered else positions)
        thin = {"thin": _from_gram, "svd": _from_svd}.get(route)

        def work(index: int, part: slice, out: Tensor | None) -> tuple:
            features = center(x[part]) if centered else x[part]
            if thin:
                return _thin_forward(thin(features, rank, fn), positions, centered, fn, rule, rank, out)
            s = features if route == "matrix" else (features @ features.mT).div_(positions)
            u, lam, null = _decompose(s, rank, fn, rule)
            c = _compose(u, outputs(fn, rule, lam, rank), out)
            return c, None if route == "matrix" else features, u, lam, null

        ctx.parts, ctx.fn, ctx.rule, ctx.rank = batch_parts(x, positions if thin else channels), fn, rule, rank
        ctx.shape, ctx.back = x.shape, _thin_backward if thin else _full_backward
        out, saved = over_batch(work, ctx.parts, x, (batch, channels, channels))
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        saved, fn, rule, rank, back = ctx.saved_tensors, ctx.fn, ctx.rule, ctx.rank, ctx.back
        count = len(saved) // len(ctx.parts)

        def work(index: int, part: slice, out: Tensor | None) -> tuple:
            return (back(g[part], *saved[count * index : count * (index + 1)], fn, rule, rank, out),)

        with torch.autocast(g.device.type, enabled=False):
            return over_batch(work, ctx.parts, g, ctx.shape)[0], None, None, None, None


def _full_backward(g, features, u, lam, null, fn, rule, rank, out):
    grad = u @ weighted_gradient(fn, rule, u.mT @ (g @ u), lam, null, rank) @ u.mT
    if features is None:
        return torch.add(grad, grad.mT, out=out).mul_(0.5)
    return torch.bmm((grad + grad.mT).div_(features.shape[-1]), features, out=out)


def _thin_forward(decomposed, positions, centered, fn, rule, rank, out):
    u, lam, v, keep = decomposed
    c = _compose(u, outputs(fn, rule, lam, rank), out)
    # Null directions have u = 0: any finite number will do for them.
    to_null = outputs(fn, rule, lam, rank, "backward") / torch.where(keep, lam, torch.ones_like(lam))
    back = (v * (lam / positions).sqrt().unsqueeze(-2)).mT
    # Over positions, here and once; then so is the gradient.
    return c, u, lam, to_null, None if fn.smooth else ~keep, center(back) if centered else back


def _thin_backward(g, u, lam, to_null, null, back, fn, rule, rank, out):
    to_null, gu = to_null.unsqueeze(-2), twice_symmetric_product(g, u)
    inner = u.mT @ gu
    weighted = weighted_gradient(fn, rule, inner, lam, null, rank).sub_(inner * to_null)
    return torch.bmm(torch.baddbmm(gu.mul_(to_null), u, weighted), back, out=out)
