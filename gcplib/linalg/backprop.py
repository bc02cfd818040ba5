"""The autograd functions under the spectral maps: decompose, apply f to the eigenvalues, compose; and the way back.

All take one batch dimension, share it out over the CPU threads, and save what the gradient needs.
"""

from __future__ import annotations

from functools import partial
from typing import NoReturn

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gcplib.linalg.covariance import center, twice_symmetric_product
from gcplib.linalg.eigen import eigh
from gcplib.linalg.functions import SpectralFunction
from gcplib.linalg.gradients import GradientRule
from gcplib.linalg.parallel import batch_parts, over_batch
from gcplib.linalg.tolerance import NonFiniteError, raise_non_finite, rank_tolerance, require

__all__ = ["FullMap", "MatrixMap", "ThinMap", "from_gram", "from_svd"]


def _kept(lam: Tensor, rank: int, fn: SpectralFunction) -> Tensor:
    """Say which eigenvalues are not rounding noise; ``lam`` ascends, ``rank`` is the largest possible.

    Which null eigenvectors an eigendecomposition returns is arbitrary, so nothing may depend on them.
    """
    keep = lam > rank_tolerance(lam.dtype) * lam[..., -1:]
    keep[..., : lam.shape[-1] - rank] = False
    if fn.positive:
        require(keep.all(), f"{fn.name} of a singular matrix", partial(_raise_singular, fn, lam))
    return keep


def _scale(fn: SpectralFunction, lam: Tensor) -> Tensor | None:
    """Return the t of ``C = sqrt(t) f(S / t)``, shape ``(..., 1)``, 1 for zero matrices; None for functions without."""
    if fn.scale is None:
        return None
    if fn.scale == "trace":
        t = lam.sum(-1, keepdim=True)
    else:
        # Divided by the largest first: the squares of small numbers are zero in float32.
        top = torch.where(lam[..., -1:] > 0, lam[..., -1:], torch.ones_like(lam[..., -1:]))
        t = top * (lam / top).square().sum(-1, keepdim=True).sqrt()
    return torch.where(t > 0, t, torch.ones_like(t))


def _raise_singular(fn: SpectralFunction, lam: Tensor) -> NoReturn:
    worst = (lam[..., 0] / lam[..., -1].clamp(min=torch.finfo(lam.dtype).tiny)).min()
    raise NonFiniteError(
        f"{fn.name} needs positive definite matrices, but the smallest eigenvalue is {worst.item():.2g} of the "
        "largest; add a multiple of the identity first"
    )


def _raise_overflow(what: str, lam: Tensor) -> NoReturn:
    raise NonFiniteError(
        f"{what} overflows {lam.dtype}, with eigenvalues from {lam.min().item():.3g} to {lam.max().item():.3g}"
    )


def _values(fn: SpectralFunction, lam: Tensor) -> Tensor:
    """Return ``sqrt(t) f(lam / t)``; a zero matrix has no scale and gives zeros."""
    t = _scale(fn, lam)
    f = fn.value(lam) if t is None else fn.value(lam / t) * t.sqrt() * (lam[..., -1:] > 0)
    require(torch.isfinite(f).all(), f"{fn.name} overflows", partial(_raise_overflow, fn.name, lam))
    return f


def _weighted(fn: SpectralFunction, rule: GradientRule, inner: Tensor, lam: Tensor, keep: Tensor | None) -> Tensor:
    """Return ``A * W``, and for functions with a scale what reaches S through it, in the basis of the eigenvectors.

    With ``C = sqrt(t) f(S / t)``, dC/dt has the eigenvalues ``f_i / (2 t) - lam_i f'_i / t``.
    """
    fn = rule.surrogate or fn
    t = _scale(fn, lam)
    weights = rule.weights(fn, lam) if t is None else rule.weights(fn, lam / t) / t.sqrt().unsqueeze(-1)
    if keep is not None:
        # Between null directions f may have no derivative; 0 is the smallest choice.
        weights = weights.masked_fill_(~(keep.unsqueeze(-1) | keep.unsqueeze(-2)), 0)
    slope = weights.diagonal(dim1=-2, dim2=-1)
    what = f"the gradient of {fn.name}"
    require(torch.isfinite(slope).all(), f"{what} overflows", partial(_raise_overflow, what, lam))
    weighted = inner * weights
    if t is not None and rule.through_scale:
        diagonal = inner.diagonal(dim1=-2, dim2=-1)
        through_scale = (diagonal * (_values(fn, lam) / 2 - lam * slope) / t).sum(-1, keepdim=True)
        toward = torch.ones_like(lam) if fn.scale == "trace" else lam / t
        weighted = weighted + torch.diag_embed(through_scale * toward)
    return weighted


def _decompose(s: Tensor, rank: int, fn: SpectralFunction, rule: GradientRule) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return U, lam and what is kept (None: everything) of symmetric matrices."""
    lam, u = eigh(s)
    if rule.released:
        eps = torch.finfo(lam.dtype).eps
        lam = lam.clamp(min=eps)
        lam[..., : rule.drop] = eps
    elif not fn.smooth:
        keep = _kept(lam, rank, fn)
        if not torch.compiler.is_compiling() and bool(keep.all()):
            return u, lam, None
        return u, torch.where(keep, lam, torch.zeros_like(lam)), keep
    return u, lam, None


def _compose(u: Tensor, f: Tensor, out: Tensor | None) -> Tensor:
    return torch.bmm(u * f.unsqueeze(-2), u.mT, out=out)


def _matrix_gradient(
    fn: SpectralFunction, rule: GradientRule, g: Tensor, u: Tensor, lam: Tensor, keep: Tensor | None
) -> Tensor:
    """Return ``U [(U^T G U) * W] U^T``; its symmetric part is ``dl/dS``."""
    return u @ _weighted(fn, rule, u.mT @ (g @ u), lam, keep) @ u.mT


class MatrixMap(Function):
    """``C = U f(lam) U^T`` of symmetric matrices."""

    @staticmethod
    def forward(ctx, s, fn, rule):
        s = s.detach()

        def work(index: int, part: slice, out: Tensor | None) -> tuple:
            u, lam, keep = _decompose(s[part], s.shape[-1], fn, rule)
            return _compose(u, _values(fn, lam), out), u, lam, keep

        ctx.parts, ctx.fn, ctx.rule = batch_parts(s, s.shape[-1]), fn, rule
        out, saved = over_batch(work, ctx.parts, s, s.shape)
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        saved, fn, rule = ctx.saved_tensors, ctx.fn, ctx.rule

        def work(index: int, part: slice, out: Tensor | None) -> tuple:
            grad = _matrix_gradient(fn, rule, g[part], *saved[3 * index : 3 * index + 3])
            return (torch.add(grad, grad.mT, out=out).mul_(0.5),)

        with torch.autocast(g.device.type, enabled=False):
            return over_batch(work, ctx.parts, g, g.shape)[0], None, None


class FullMap(Function):
    """The covariance's spectral function from the covariance itself: ``dl/dX = 2 sym(dl/dS) X_c / M``."""

    @staticmethod
    def forward(ctx, x, fn, rule):
        x = x.detach()
        batch, channels, positions = x.shape
        rank = min(channels, positions - 1)

        def work(index: int, part: slice, out: Tensor | None) -> tuple:
            centred = center(x[part])
            s = (centred @ centred.mT).div_(positions)
            u, lam, keep = _decompose(s, rank, fn, rule)
            return _compose(u, _values(fn, lam), out), centred, u, lam, keep

        ctx.parts, ctx.fn, ctx.rule = batch_parts(x, channels), fn, rule
        out, saved = over_batch(work, ctx.parts, x, (batch, channels, channels))
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        saved, fn, rule = ctx.saved_tensors, ctx.fn, ctx.rule

        def work(index: int, part: slice, out: Tensor | None) -> tuple:
            centred, *spectrum = saved[4 * index : 4 * index + 4]
            grad = _matrix_gradient(fn, rule, g[part], *spectrum)
            return (torch.bmm((grad + grad.mT).div_(centred.shape[-1]), centred, out=out),)

        with torch.autocast(g.device.type, enabled=False):
            return over_batch(work, ctx.parts, g, (*g.shape[:-1], saved[0].shape[-1]))[0], None, None


def from_gram(x: Tensor, rank: int, fn: SpectralFunction) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return U, lam, V, keep of centred features from ``X^T X / M``."""
    positions = x.shape[-1]
    lam, v = eigh((x.mT @ x).div_(positions))
    keep = _kept(lam, rank, fn)
    inverse_root = torch.where(keep, lam * positions, torch.ones_like(lam)).rsqrt() * keep
    return x @ (v * inverse_root.unsqueeze(-2)), torch.where(keep, lam, torch.zeros_like(lam)), v, keep


def from_svd(x: Tensor, rank: int, fn: SpectralFunction) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the same from X itself: no product is formed, so the condition number is not squared."""
    require(torch.isfinite(x).all(), "features are not finite", partial(raise_non_finite, "centred features", x))
    u, s, vt = torch.linalg.svd(x * x.shape[-1] ** -0.5, full_matrices=False)
    u, s, v = u.flip(-1), s.flip(-1), vt.mT.flip(-1)
    keep = _kept(s, rank, fn)
    return u * keep.unsqueeze(-2), torch.where(keep, s, torch.zeros_like(s)).square(), v, keep


class ThinMap(Function):
    """The covariance's spectral function from the smaller side.

    With centred X and ``X^T X / M = V diag(lam) V^T``, ``U = X V lam^(-1/2) / sqrt(M)``; where ``f(0) = 0``,

        C = U f(lam) U^T
        dl/dX = (2 / sqrt(M)) [U (W * A) + (I - U U^T) sym(G) U (f / lam)] lam^(1/2) V^T,   A = U^T sym(G) U

    The second term is the derivative towards the null space, ``f[lam_i, 0] = f(lam_i) / lam_i``.
    """

    @staticmethod
    def forward(ctx, x, fn, rule, decompose):
        x = x.detach()
        batch, channels, positions = x.shape
        rank = min(channels, positions - 1)

        def work(index: int, part: slice, out: Tensor | None) -> tuple:
            u, lam, v, keep = decompose(center(x[part]), rank, fn)
            f = _values(fn, lam)
            c = torch.bmm(u * f.unsqueeze(-2), u.mT, out=out)
            # Null directions have u = 0: any finite number will do for them, and 1 is one for every function.
            safe = torch.where(keep, lam, torch.ones_like(lam))
            # Centred over positions here, once; then so is the gradient.
            back = center((v * (lam / positions).sqrt().unsqueeze(-2)).mT)
            return c, u, lam if fn.smooth else safe, f / safe, back

        ctx.parts, ctx.fn, ctx.rule = batch_parts(x, positions), fn, rule
        out, saved = over_batch(work, ctx.parts, x, (batch, channels, channels))
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        saved, fn, rule = ctx.saved_tensors, ctx.fn, ctx.rule

        def work(index: int, part: slice, out: Tensor | None) -> tuple:
            u, lam, to_null, back = saved[4 * index : 4 * index + 4]
            to_null = to_null.unsqueeze(-2)
            gu = twice_symmetric_product(g[part], u)
            inner = u.mT @ gu
            weighted = _weighted(fn, rule, inner, lam, None).sub_(inner * to_null)
            return (torch.bmm(torch.baddbmm(gu.mul_(to_null), u, weighted), back, out=out),)

        with torch.autocast(g.device.type, enabled=False):
            shape = (g.shape[0], g.shape[-1], saved[3].shape[-1])
            return over_batch(work, ctx.parts, g, shape)[0], None, None, None
