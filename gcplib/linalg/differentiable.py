"""Spectral maps in differentiable operations: what their gradients are differentiated by.

The fast forward and backward passes of ``autograd`` know the first derivative alone. Here the same map is written in
products, and in the functions of ``diagonal`` in its own eigenvectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gcplib.linalg import diagonal
from gcplib.linalg.polynomials import scaled
from gcplib.linalg.products import product
from gcplib.linalg.transforms import look

if TYPE_CHECKING:
    from gcplib.linalg.functions import SpectralFunction


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
    if fn.matrix == diagonal.root:
        return diagonal.inverse_root(a, lam)
    assert fn.matrix is not None
    return product(diagonal.invert(a, lam), fn.matrix(a, lam))


def _on_range(fn: SpectralFunction, su: Tensor, usu: Tensor, lam: Tensor, null: Tensor) -> Tensor:
    """Return f(S) from ``S U`` and ``U^T S U``, U the eigenvectors of the range, for changes of S that keep its rank.

    There ``S = X X^T`` with ``X = S U (U^T S U)^(-1/2)`` and ``f(S) = X h(X^T X) X^T``, ``h(lam) = f(lam) / lam``: a
    smooth function of S, although f may have no derivative at 0. Changes between null directions do not enter, which is
    the choice of the first derivative, too.
    """
    lam, pad = torch.where(null, torch.ones_like(lam), lam), torch.diag_embed(null.to(lam.dtype))
    x = product(su, diagonal.inverse_root(usu + pad, lam))
    return product(product(x, _over(fn, product(x.mT, x) + pad, lam)), x.mT)
