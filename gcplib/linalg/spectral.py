"""Functions of a symmetric positive semi-definite matrix, and of a covariance straight from its features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from gcplib.linalg.covariance import center, check_features, covariance, symmetric
from gcplib.linalg.functions import SpectralFunction, get_function, power
from gcplib.linalg.gradients import get_rule
from gcplib.linalg.tolerance import raise_non_finite, rank_tolerance

__all__ = ["ROUTES", "check_map", "covariance_map", "powm", "spectral_map", "sqrtm"]

ROUTES = ("auto", "full", "thin", "svd")


class _NotFiniteInside(ValueError):
    """Raised inside, turned by the public functions into a NonFiniteError that says where in their own input."""


def _eigh(s: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues in ascending order and eigenvectors; everything finite, or ``_NotFiniteInside``."""
    try:
        lam, u = torch.linalg.eigh(s)
        # On a GPU non-finite input gives non-finite output instead of an error.
        if torch.isfinite(lam).all() & torch.isfinite(u).all():
            return lam, u
    except torch.linalg.LinAlgError:
        pass
    if not torch.isfinite(s).all():
        raise _NotFiniteInside
    # LAPACK's divide and conquer gives up, or returns NaN without a word, on some harmless float32 matrices (seen in
    # training at rank 9 of 64, entries between 4e-7 and 5, where dead channels make zero rows). In float64 it works.
    lam, u = (value.to(s.dtype) for value in torch.linalg.eigh(s.double()))
    if not (torch.isfinite(lam).all() & torch.isfinite(u).all()):
        raise _NotFiniteInside
    return lam, u


def _clean(lam: Tensor, rank: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Set to zero what is rounding noise, and say what is kept; ``lam`` ascends, ``rank`` is the largest possible.

    Which null eigenvectors an eigendecomposition returns is arbitrary, so nothing may depend on them.
    """
    keep = lam > tolerance * lam[..., -1:]
    keep[..., : lam.shape[-1] - rank] = False
    return torch.where(keep, lam, torch.zeros_like(lam)), keep


def _scale(fn: SpectralFunction, lam: Tensor) -> Tensor:
    """Return the t of ``C = sqrt(t) f(S / t)``, shape ``(..., 1)``; 1 for functions without one."""
    if fn.scale is None:
        return torch.ones_like(lam[..., :1])
    return lam.sum(-1, keepdim=True) if fn.scale == "trace" else lam.square().sum(-1, keepdim=True).sqrt()


def _values(fn: SpectralFunction, lam: Tensor, t: Tensor) -> Tensor:
    """Return ``sqrt(t) f(lam / t)``; a zero matrix has no scale and gives zeros."""
    return fn.value(lam / torch.where(t > 0, t, torch.ones_like(t))) * t.sqrt()


def _weighted(
    fn: SpectralFunction, rule: str, inner: Tensor, lam: Tensor, keep: Tensor, t: Tensor, f: Tensor
) -> Tensor:
    """Return ``A * W``, and for functions with a scale what reaches S through it, in the basis of the eigenvectors.

    With ``C = sqrt(t) f(S / t)``, dC/dt has the eigenvalues ``f_i / (2 t) - lam_i f'_i / t``.
    """
    t = torch.where(t > 0, t, torch.ones_like(t))
    # Between null directions f may have no derivative; 0 is the smallest choice. Smooth functions keep all.
    either = keep.unsqueeze(-1) | keep.unsqueeze(-2)
    weights = get_rule(rule)(fn, lam / t) / t.unsqueeze(-1).sqrt()
    weights = torch.where(either, weights, torch.zeros_like(weights))
    weighted = inner * weights
    if fn.scale is not None:
        diagonal = inner.diagonal(dim1=-2, dim2=-1)
        slope = weights.diagonal(dim1=-2, dim2=-1)
        through_scale = (diagonal * (f / 2 - lam * slope) / t).sum(-1, keepdim=True)
        toward = torch.ones_like(lam) if fn.scale == "trace" else lam / t
        weighted = weighted + torch.diag_embed(through_scale * toward)
    return weighted


class _MatrixMap(Function):
    @staticmethod
    def forward(ctx, s, fn, rule, tolerance, rank):
        lam, u = _eigh(s)
        if fn.smooth:
            keep = torch.ones_like(lam, dtype=torch.bool)
        else:
            lam, keep = _clean(lam, rank, tolerance)
        t = _scale(fn, lam)
        f = _values(fn, lam, t)
        ctx.save_for_backward(u, lam, keep, t, f)
        ctx.fn, ctx.rule = fn, rule
        return (u * f.unsqueeze(-2)) @ u.mT

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        u, lam, keep, t, f = ctx.saved_tensors
        inner = u.mT @ symmetric(g) @ u
        return u @ _weighted(ctx.fn, ctx.rule, inner, lam, keep, t, f) @ u.mT, None, None, None, None


class _ThinMap(Function):
    """The covariance's spectral function from the smaller side.

    With centred X and ``X^T X / M = V diag(lam) V^T``, ``U = X V lam^(-1/2) / sqrt(M)``; where ``f(0) = 0``,

        C = U f(lam) U^T
        dl/dX = (2 / sqrt(M)) [U (W * A) + (I - U U^T) sym(G) U (f / lam)] lam^(1/2) V^T,   A = U^T sym(G) U

    The second term is the derivative towards the null space, ``f[lam_i, 0] = f(lam_i) / lam_i``.
    """

    @staticmethod
    def forward(ctx, x, fn, rule, tolerance, svd):
        x = center(x)
        channels, positions = x.shape[-2:]
        rank = min(channels, positions - 1)
        if svd:
            # No product X X^T is formed, so the condition number is not squared.
            if not torch.isfinite(x).all():
                raise _NotFiniteInside
            u, s, vt = torch.linalg.svd(x.mul(positions**-0.5), full_matrices=False)
            u, s, v = u.flip(-1), s.flip(-1), vt.mT.flip(-1)
            s, keep = _clean(s, rank, tolerance)
            lam = s.square()
            u = u * keep.unsqueeze(-2)
        else:
            lam, v = _eigh(x.mT @ x / positions)
            lam, keep = _clean(lam, rank, tolerance)
            inverse_root = torch.where(keep, lam, torch.ones_like(lam)).rsqrt() * keep
            u = x @ (v * (inverse_root * positions**-0.5).unsqueeze(-2))
        t = _scale(fn, lam)
        f = _values(fn, lam, t)
        ctx.save_for_backward(u, lam, v, keep, t, f)
        ctx.fn, ctx.rule, ctx.positions = fn, rule, positions
        return (u * f.unsqueeze(-2)) @ u.mT

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        u, lam, v, keep, t, f = ctx.saved_tensors
        gu = symmetric(g) @ u
        inner = u.mT @ gu
        to_null = (torch.where(keep, f / lam, torch.zeros_like(f))).unsqueeze(-2)
        weighted = _weighted(ctx.fn, ctx.rule, inner, lam, keep, t, f)
        left = u @ (weighted - inner * to_null) + gu * to_null
        scale = 2 * ctx.positions**-0.5 * lam.sqrt()
        return center(left * scale.unsqueeze(-2) @ v.mT), None, None, None, None


def spectral_map(s: Tensor, fn: str | SpectralFunction = "sqrt", rule: str = "exact") -> Tensor:
    """Return ``f(S) = U f(lam) U^T`` of symmetric positive semi-definite matrices.

    Args:
        s: ``(..., d, d)``, float32 or float64; only its symmetric part is used.
        fn: a name of ``list_functions()`` or a ``SpectralFunction``.
        rule: how to differentiate: a name of ``list_rules()``. ``exact`` is finite at repeated and zero eigenvalues.

    Returns:
        ``(..., d, d)``. Eigenvalues under ``rank_tolerance`` of the largest count as zero.

    Raises:
        ValueError: not square, unknown function or rule. NonFiniteError: NaN or infinity. TypeError: half precision.

    Source: Daleckii-Krein; matrix back-propagation (Ionescu et al., ICCV 2015).

    >>> spectral_map(torch.diag(torch.tensor([4.0, 9.0])))
    tensor([[2., 0.],
            [0., 3.]])
    """
    if s.dim() < 2 or s.shape[-1] != s.shape[-2]:
        raise ValueError(f"expected square matrices (..., d, d), got {tuple(s.shape)}")
    get_rule(rule)
    size = s.shape[-1]
    tolerance = rank_tolerance(s.dtype)
    try:
        return _MatrixMap.apply(symmetric(s), get_function(fn), rule, tolerance, size)
    except _NotFiniteInside:
        raise_non_finite("matrices", s)


def sqrtm(s: Tensor, rule: str = "exact") -> Tensor:
    """Return the positive semi-definite square root of ``(..., d, d)``; see ``spectral_map``."""
    return spectral_map(s, "sqrt", rule)


def powm(s: Tensor, exponent: float, rule: str = "exact") -> Tensor:
    """Return the matrix power of ``(..., d, d)`` for a positive exponent (MPN-COV, eq. 2); see ``spectral_map``."""
    return spectral_map(s, power(exponent), rule)


def check_map(fn: str | SpectralFunction, rule: str, route: str) -> SpectralFunction:
    """Return the spectral function, or raise ``ValueError`` for an unknown name or a route it cannot take."""
    fn = get_function(fn)
    get_rule(rule)
    if route not in ROUTES:
        raise ValueError(f"unknown route {route!r}; known: {', '.join(ROUTES)}")
    if fn.zero != 0 and route in ("thin", "svd"):
        raise ValueError(f"route {route!r} needs a function with f(0) = 0, but {fn.name} has f(0) = {fn.zero}")
    return fn


def covariance_map(x: Tensor, fn: str | SpectralFunction = "sqrt", rule: str = "exact", route: str = "auto") -> Tensor:
    """Return a spectral function of the covariance, ``f(X I_bar X^T)``, straight from the features.

    Args:
        x: uncentred features ``(..., d, M)``, float32 or float64.
        fn: a name of ``list_functions()`` or a ``SpectralFunction``.
        rule: a gradient rule of ``list_rules()``.
        route: ``full`` decomposes the covariance (d x d); ``thin`` the Gram matrix (M x M), much cheaper where
            positions are few; ``svd`` the features themselves, slower but without squaring their condition number;
            ``auto`` takes the smaller of the first two.

    Returns:
        ``(..., d, d)``. All routes compute the same matrix and, with the exact rule, the same gradient. At
        rank-deficient covariances the derivative between null directions is taken as zero.

    Raises:
        ValueError: bad shape, unknown function, rule or route, or ``f(0) != 0`` on a route that needs it.
        NonFiniteError: NaN or infinity in the features, with their place. TypeError: half precision or integers.

    Source: MPN-COV (Li et al., ICCV 2017); the thin gradient is derived in ``_ThinMap``.

    >>> covariance_map(torch.tensor([[1.0, 5.0], [2.0, 2.0]])).round(decimals=4)
    tensor([[2., 0.],
            [0., 0.]])
    """
    check_features(x)
    fn = check_map(fn, rule, route)
    channels, positions = x.shape[-2:]
    tolerance = rank_tolerance(x.dtype)
    if fn is get_function("identity"):
        return covariance(x)
    if route == "auto":
        route = "thin" if positions <= channels and fn.zero == 0 else "full"
    try:
        if route == "full":
            return _MatrixMap.apply(covariance(x), fn, rule, tolerance, min(channels, positions - 1))
        return _ThinMap.apply(x, fn, rule, tolerance, route == "svd")
    except _NotFiniteInside:
        raise_non_finite("features", x)
