"""The autograd functions under the spectral maps: decompose, apply f to the eigenvalues, compose; and the way back."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from gcplib.linalg.covariance import (
    center,
    covariance,
    push_covariance,
    second_moment,
    twice_symmetric_product,
)
from gcplib.linalg.differentiable import of_features, of_matrix
from gcplib.linalg.eigen import eigh, svd
from gcplib.linalg.eigenvalues import not_noise, outputs, require_semidefinite
from gcplib.linalg.functions import SpectralFunction
from gcplib.linalg.gradient import weighted_gradient
from gcplib.linalg.gradient_rules import GradientRule
from gcplib.linalg.parallel import batch_parts, over_batch
from gcplib.linalg.products import product
from gcplib.linalg.tolerance import one_look
from gcplib.linalg.transforms import batched, pull_back, push_forward, run

THIN = ("thin", "svd")


def _decompose(s: Tensor, rank: int, fn: SpectralFunction, rule: GradientRule) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, lam and which directions are null, none where f is smooth, of symmetric matrices."""
    lam, u = eigh(s)
    require_semidefinite(fn, lam)
    if rule.clamps_forward:
        lam = lam.clamp(min=torch.finfo(lam.dtype).eps)
    elif not fn.smooth:
        keep = not_noise(lam, rank, fn)
        return u, torch.where(keep, lam, torch.zeros_like(lam)), ~keep
    return u, lam, torch.zeros_like(lam, dtype=torch.bool)


def _from_gram(x: Tensor, rank: int, fn: SpectralFunction) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return U, lam, V, keep of centered features from ``X^T X / M``."""
    positions = x.shape[-1]
    lam, v = eigh(product(x.mT, x).div_(positions))
    keep = not_noise(lam, rank, fn)
    inverse_root = torch.where(keep, lam * positions, torch.ones_like(lam)).rsqrt() * keep
    return product(x, v * inverse_root.unsqueeze(-2)), torch.where(keep, lam, torch.zeros_like(lam)), v, keep


def _from_svd(x: Tensor, rank: int, fn: SpectralFunction) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the same from X itself: no product is formed, so the condition number is not squared."""
    u, s, v = svd(x * x.shape[-1] ** -0.5)
    keep = not_noise(s, rank, fn)
    return u * keep.unsqueeze(-2), torch.where(keep, s, torch.zeros_like(s)).square(), v, keep


def _compose(u: Tensor, f: Tensor, out: Tensor | None) -> Tensor:
    c = product(u * f.unsqueeze(-2), u.mT)
    return c if out is None else out.copy_(c)


@batched
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

    Returns:
        C, and what the gradient needs, without a gradient of its own: U, lam, which directions are null, and more.
    """

    @staticmethod
    def forward(x: Tensor, fn: SpectralFunction, rule: GradientRule, route: str, centered: bool) -> tuple[Tensor, ...]:
        x = x.detach()
        batch, channels, positions = x.shape
        rank = _rank(x, route, centered)

        def work(part: slice, out: Tensor | None) -> tuple[Tensor, ...]:
            features = center(x[part]) if centered else x[part]
            if route in THIN:
                decomposed = (_from_gram if route == "thin" else _from_svd)(features, rank, fn)
                return _thin_forward(decomposed, positions, centered, fn, rule, rank, out)
            s = features if route == "matrix" else product(features, features.mT).div_(positions)
            u, lam, null = _decompose(s, rank, fn, rule)
            c = _compose(u, outputs(fn, rule, lam, rank), out)
            return c, u, lam, null, *([features] if centered else [])

        parts = batch_parts(x, positions if route in THIN else channels)
        return over_batch(work, parts, x, (batch, channels, channels))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, *ctx.call = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *output[1:])
        ctx.save_for_forward(x, *output[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: None) -> tuple:
        if g is None:
            return (None,) * 5
        x, *saved = ctx.saved_tensors
        return run(SpectralGradient, g, x, *saved, *ctx.call, False), None, None, None, None

    @staticmethod
    def push(ctx: Any, dx: Tensor, *_: None) -> tuple:
        x, *saved = ctx.saved_tensors
        fn, rule, route, centered = ctx.call
        if fn.gain is not None or (route in THIN and fn.matrix is None):
            raise NotImplementedError(f"{fn} has no forward mode; use reverse mode, such as torch.func.vjp or jacrev")
        if route in THIN:
            dc = push_forward(partial(_differentiable, saved, ctx.call), (x,), (dx,))
        else:
            if route == "full":
                x, dx = push_covariance(x, dx, centered)
            dc = run(SpectralGradient, dx, x, *saved[:3], fn, rule, "matrix", False, True)
        return dc, None, *([None] * (len(saved) - 1))


def _rank(x: Tensor, route: str, centered: bool) -> int:
    channels, positions = x.shape[-2:]
    return channels if route == "matrix" else min(channels, positions - 1 if centered else positions)


def _differentiable(saved: list[Tensor], call: tuple, x: Tensor) -> Tensor:
    """Return the same C in the operations of ``differentiable``, from what the fast forward pass has saved."""
    (u, lam, null, *others), (fn, _, route, centered) = saved, call
    if route == "matrix":
        return of_matrix(fn, x, u, lam, null)
    if route == "full":
        return of_matrix(fn, covariance(x) if centered else second_moment(x), u, lam, null)
    rank = _rank(x, route, centered)
    # Where X is centered one direction of its positions is null whatever X is, and needs no care.
    u, lam, null, back = u[..., -rank:], lam[..., -rank:], null[..., -rank:], others[1][..., -rank:, :]
    x = (center(x) if centered else x) * x.shape[-1] ** -0.5
    return of_features(fn, x, u, lam, null, back * x.shape[-1] ** 0.5)


@batched
class SpectralGradient(Function):
    """``dl/dX`` from ``dl/dC``, or with ``forward_mode`` dC from dS, which differs where f has a scale.

    Its own derivatives are those of the same map in the differentiable operations of ``differentiable``.
    """

    @staticmethod
    def forward(g: Tensor, x: Tensor, u: Tensor, lam: Tensor, null: Tensor, *rest: Any) -> Tensor:
        *saved, fn, rule, route, centered, forward_mode = rest
        rank = _rank(x, route, centered)
        with torch.autocast(g.device.type, enabled=False), one_look():
            if route in THIN:
                to_null, back = saved
                return _thin_backward(g, u, lam, null, to_null, back, fn, rule, rank)
            inner = product(u.mT, product(g, u))
            grad = product(product(u, weighted_gradient(fn, rule, inner, lam, null, rank, forward_mode)), u.mT)
            if route == "matrix":
                return torch.add(grad, grad.mT).mul_(0.5)
            return product(grad.add(grad.mT).div_(x.shape[-1]), saved[0] if saved else x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, fn, rule, route, centered, ctx.forward_mode = inputs
        ctx.call = fn, rule, route, centered
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple:
        g, x, *saved = ctx.saved_tensors
        return *pull_back(_linear(ctx, saved), (g, x), v), *([None] * (len(saved) + 5))

    @staticmethod
    def push(ctx: Any, dg: Tensor | None, dx: Tensor | None, *_: None) -> Tensor:
        g, x, *saved = ctx.saved_tensors
        tangents = tuple(torch.zeros_like(a) if t is None else t for a, t in ((g, dg), (x, dx)))
        return push_forward(_linear(ctx, saved), (g, x), tangents)


def _linear(ctx: Any, saved: list[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the gradient as a differentiable function of dl/dC and X, if it has derivatives."""
    fn, rule = ctx.call[:2]
    if not rule.exact or fn.matrix is None:
        what = f"gradient rule {rule}" if not rule.exact else f"spectral function {fn}"
        raise NotImplementedError(
            f"{what} has no second derivative; use the exact rule with a function that has one (sqrt, invsqrt, log, "
            "power, newton_schulz, accelerated, taylor, pade), or detach the gradient"
        )
    f = partial(_differentiable, saved, ctx.call)
    if ctx.forward_mode:
        return lambda g, x: push_forward(f, (x,), (g,))
    return lambda g, x: pull_back(f, (x,), g)[0]


def _thin_forward(decomposed, positions, centered, fn, rule, rank, out):
    u, lam, v, keep = decomposed
    c = _compose(u, outputs(fn, rule, lam, rank), out)
    # Null directions have u = 0: any finite number will do for them.
    to_null = outputs(fn, rule, lam, rank, "backward") / torch.where(keep, lam, torch.ones_like(lam))
    back = (v * (lam / positions).sqrt().unsqueeze(-2)).mT
    # Over positions, here and once; then so is the gradient.
    return c, u, lam, ~keep, to_null, center(back) if centered else back


def _thin_backward(g, u, lam, null, to_null, back, fn, rule, rank):
    to_null, gu = to_null.unsqueeze(-2), twice_symmetric_product(g, u)
    inner = product(u.mT, gu)
    if fn.smooth:
        null = torch.zeros_like(null)
    weighted = weighted_gradient(fn, rule, inner, lam, null, rank).sub_(inner * to_null)
    return product(gu.mul_(to_null).add_(product(u, weighted)), back)
