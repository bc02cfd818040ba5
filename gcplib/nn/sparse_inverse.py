"""iSICE: the sparse inverse of the covariance, which holds partial correlations, in a few differentiable steps."""

import torch
from torch import Tensor

from gcplib.linalg import covariance_map, sparse_inverse
from gcplib.linalg.inverse import check_sparse_inverse
from gcplib.nn.base import MatrixPool


class SparseInversePool(MatrixPool):
    """iSICE: the sparse inverse P of the covariance with trace 1, divided by the root of its trace.

    ``P / sqrt(tr P)``, ``P = sparse_inverse(C / tr C)`` (``gcplib.linalg.sparse_inverse``). Of the exact
    inverse, ``-P_ij / sqrt(P_ii P_jj)`` is the partial correlation: of two channels with all others held fixed. With
    fewer positions than channels there is none, and null directions of C have ``(9/4)^newton_steps``, 292 by default.

    What the released code does, and this layer does not: it adds a ridge with random numbers, ``1e-10 + 1e-9 u_i`` on
    the diagonal and 1e-10 in *every* other entry, before every inverse, so no two passes are alike. Its last step has
    length zero, so 5 steps are 4; and 1 step divides by zero. The paper's second form, whose step size and sparsity
    a small network decides (SICE_MLP.py), is not built.

    Args:
        in_channels: channels of the feature map.
        steps: of the sparse inverse, at least 2; the paper's scripts use 5.
        step_size: of the first step, from which they fall to 0; the scripts use 1.
        sparsity: the price of an entry's magnitude; the scripts use 0.01.
        newton_steps: Newton-Schulz steps of every inverse.
        common: see ``MatrixPool``.

    Raises:
        ValueError: a setting out of range.
        NonFiniteError: features that are not finite, or settings with which nothing finite is left.

    Source: iSICE (Rahman et al., CVPR 2023) by its released code, SICE.py; the paper's text was not at hand.

    >>> SparseInversePool(112, reduction=64).extra_repr()
    '112, out_features=2080, steps=5, step_size=1.0, sparsity=0.01, newton_steps=7'
    """

    min_positions = 2
    centered = True

    def __init__(
        self,
        in_channels: int,
        *,
        steps: int = 5,
        step_size: float = 1.0,
        sparsity: float = 0.01,
        newton_steps: int = 7,
        **common,
    ):
        super().__init__(in_channels, **common)
        check_sparse_inverse(steps, step_size, sparsity, newton_steps)
        self.own = {"steps": steps, "step_size": step_size, "sparsity": sparsity, "newton_steps": newton_steps}
        self.settings = self.own | self.settings

    def matrix(self, x: Tensor) -> Tensor:
        """Return ``P / sqrt(tr P)``, ``(B, d, d)``, of features ``(B, d, M)``; without variance C is zero."""
        c = covariance_map(x, "identity")
        total = _trace(c)
        p = sparse_inverse(c / torch.where(total > 0, total, torch.ones_like(total)), **self.own)
        return p / _trace(p).sqrt()


def _trace(s: Tensor) -> Tensor:
    return s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
