"""Bilinear pooling and its compact sketch: second moments without a spectral function."""

import torch
from torch import Tensor, nn

from gcplib.linalg import second_moment
from gcplib.nn.base import AveragePool, MatrixPool
from gcplib.nn.options import check_positive


def signed_root(vectors: Tensor, offset: float = 1e-8) -> Tensor:
    """Return ``sign(v) sqrt(|v| + offset)`` of ``(B, n)``, scaled to unit norm.

    The slope of the root is infinite at zero, which the offset prevents; the default is that of B-CNN's code.
    """
    return nn.functional.normalize(vectors.sign() * (vectors.abs() + offset).sqrt())


class BilinearPool(MatrixPool):
    """Bilinear pooling (B-CNN, ICCV 2015): ``X X^T / M``, signed square root, division by its Frobenius norm.

    The published vector holds every off-diagonal entry twice, this one once, after the same normalization.

    Args:
        in_channels: ``C``; the vector has ``C (C + 1) / 2`` entries.
        common: see ``MatrixPool``.
    """

    def matrix(self, x: Tensor) -> Tensor:
        moment = second_moment(x)
        return signed_root(moment.flatten(1)).view_as(moment)


class CompactBilinearPool(AveragePool):
    """Compact bilinear pooling (CVPR 2016): the tensor sketch of the second moment, signed root, unit norm.

    ``y_k = sum of s_i t_j (X X^T / M)_ij over g(i) + h(j) = k mod n``, with random hashes g, h and signs s, t, in one
    pass over the moments, where the published code has a product of Fourier transforms at every position.

    Args:
        in_channels: ``C``.
        sketch: length n of the vector; the paper uses 8192 for 512 channels.
        seed: of the hashes, which are part of the checkpoint.
        common: see ``AveragePool``.

    Source: compact bilinear pooling (Gao et al., CVPR 2016), tensor sketch (Pham and Pagh, KDD 2013).
    """

    def __init__(self, in_channels: int, *, sketch: int = 8192, seed: int = 0, **common):
        super().__init__(in_channels, **common)
        check_positive("sketch", sketch)
        self.sketch = self.settings["sketch"] = sketch
        # Drawn on the CPU whatever the default device is, so that a seed means the same hashes everywhere.
        draw = {"generator": torch.Generator("cpu").manual_seed(seed), "device": "cpu"}
        bins = torch.randint(sketch, (2, self.channels), **draw)
        signs = torch.randint(2, (2, self.channels), **draw) * 2 - 1
        place = common.get("device") or torch.get_default_device()
        self.register_buffer("bins", ((bins[0][:, None] + bins[1]).flatten() % sketch).to(place))
        self.register_buffer("signs", (signs[0][:, None] * signs[1]).flatten().to(place))

    @property
    def out_features(self) -> int:
        return self.sketch

    def pool(self, x: Tensor) -> Tensor:
        moments = second_moment(x).flatten(1) * self.signs
        sketches = x.new_zeros(x.shape[0], self.sketch)
        return signed_root(sketches.scatter_add(1, self.bins.expand_as(moments), moments))
