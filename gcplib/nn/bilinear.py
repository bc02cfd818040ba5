"""Bilinear pooling and its compact sketch: second moments without a spectral function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gcplib.linalg import second_moment
from gcplib.nn.base import AveragePool, MatrixPool

__all__ = ["BilinearPool", "CompactBilinearPool"]

# Under the signed square root of B-CNN: its slope is infinite at zero. The value is the published one.
SIGNED_ROOT_OFFSET = 1e-8


def _signed_root(vectors: Tensor) -> Tensor:
    """Return ``sign(v) sqrt(|v|)`` of ``(B, n)``, scaled to length one."""
    return nn.functional.normalize(vectors.sign() * (vectors.abs() + SIGNED_ROOT_OFFSET).sqrt())


class BilinearPool(MatrixPool):
    """Bilinear pooling (B-CNN, ICCV 2015): ``X X^T / M``, signed square root, division by its Frobenius norm.

    The published vector holds every off-diagonal entry twice; the upper triangle holds each once, after the same
    normalization, so a linear classifier sees the same information.
    """

    def matrix(self, x: Tensor) -> Tensor:
        moment = second_moment(x)
        return _signed_root(moment.flatten(1)).view_as(moment)


class CompactBilinearPool(AveragePool):
    """Compact bilinear pooling (CVPR 2016): the tensor sketch of the second moment, signed root, length one.

    ``y_k = sum of s_i t_j (X X^T / M)_ij over g(i) + h(j) = k mod n``, with random hashes g, h and signs s, t. That is
    what the published product of Fourier transforms computes, position by position; summed over positions first, it is
    one pass over the d x d moments.

    Args:
        in_channels: C. reduction, reduction_groups: channels d after an optional 1x1 reduction; see ``AveragePool``.
        sketch: length n of the vector; the paper uses 8192 for 512 channels.
        seed: of the hashes, which are part of the checkpoint.

    Source: compact bilinear pooling (Gao et al., CVPR 2016), tensor sketch (Pham and Pagh, KDD 2013).
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int | Sequence[int] | None = None,
        sketch: int = 8192,
        seed: int = 0,
        reduction_groups: int = 1,
    ):
        super().__init__(in_channels, reduction, reduction_groups)
        if isinstance(sketch, bool) or not isinstance(sketch, int) or sketch < 1:
            raise ValueError(f"sketch must be a positive integer, got {sketch!r}")
        self.sketch = sketch
        generator = torch.Generator().manual_seed(seed)
        bins = torch.randint(sketch, (2, self.channels), generator=generator)
        signs = torch.randint(2, (2, self.channels), generator=generator) * 2 - 1
        self.register_buffer("bins", (bins[0][:, None] + bins[1]).flatten() % sketch)
        self.register_buffer("signs", (signs[0][:, None] * signs[1]).flatten())

    @property
    def out_features(self) -> int:
        return self.sketch

    def pool(self, x: Tensor) -> Tensor:
        moments = second_moment(x).flatten(1) * self.signs
        return _signed_root(x.new_zeros(len(x), self.sketch).index_add(1, self.bins, moments))
