"""Moment probing: average or class token, and cross-covariances between heads, for a classifier on frozen features."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcplib.linalg import center
from gcplib.nn.base import AveragePool
from gcplib.nn.options import check_parts, check_positive


class MomentProbingPool(AveragePool):
    """Moment probing: first moments of the features, and condensed second moments between heads of their projection.

    With ``Y = W X + b`` cut into heads ``Y_1, ..., Y_H`` of n channels, each normalized at every position by a layer
    norm that all heads share,

        K_h = Y_h I_bar Y_(h+1)^T,  columns of unit norm,  h = 1, ..., H - 1;
        vector = [m, conv(GELU(conv(K)))] / 2,

    with m the average of the features or the class token, and 3 x 3 convolutions of stride 2 among the H - 1 matrices.
    The published head has a classifier for either part and takes the mean of their logits: with the factor 1/2, that is
    one classifier of this vector, with the same gradients.

    Trap: the layer norm's bias, which the released code trains, vanishes because the mean over positions is subtracted
    after it; here it has none. Ours: the heads are consecutive channels, as in the released head for tokens (the one
    for maps takes every H-th, which the projection can learn as well); the average is not normalized once more, as the
    released head for maps of ConvNeXt does; views ``(B, V, C, H, W)`` are one set of positions with one mean.

    Args:
        in_channels: ``C``.
        width: channels of all heads together; the released code has 512.
        heads: H, at least 2, of at least 7 channels each; the released code has 4, and works with no other number.
        common: see ``AveragePool``.

    Raises:
        ValueError: heads that do not divide the width, too few, or too narrow for the convolutions.

    Source: Moment Probing (Gao et al., ICCV 2023) by its released code, MP.py, with ``cross_type="near"``; the paper's
    text was not at hand. The recalibration of the backbone, MP+, is not part of it.

    >>> MomentProbingPool(112).extra_repr()
    '112, out_features=2995, width=512, heads=4'
    """

    min_positions = 2

    def __init__(self, in_channels: int, *, width: int = 512, heads: int = 4, **common):
        super().__init__(in_channels, **common)
        check_positive("width", width)
        check_parts("heads", heads, width)
        if heads < 2 or width // heads < 7:
            raise ValueError(
                "moment probing needs at least two heads, to have covariances between them, and 7 channels in each, "
                f"for two convolutions; got {heads} heads of {width // heads} channels"
            )
        place = {name: common.get(name) for name in ("device", "dtype")}
        self.width, self.heads = width, heads
        self.project = nn.Linear(self.channels, width, **place)
        self.norm = nn.LayerNorm(width // heads, bias=False, **place)
        self.first, self.second = (nn.Conv2d(heads - 1, heads - 1, 3, 2, bias=False, **place) for _ in range(2))
        self.settings = {"width": width, "heads": heads}

    @property
    def out_features(self) -> int:
        side = ((self.width // self.heads - 1) // 2 - 1) // 2
        return self.channels + (self.heads - 1) * side**2

    def cross_covariances(self, x: Tensor) -> Tensor:
        """Return ``K_1, ..., K_(H-1)``, columns of unit norm, ``(B, H - 1, n, n)`` of features ``(B, d, M)``."""
        weight, bias, scale = (p.to(x.dtype) for p in (self.project.weight, self.project.bias, self.norm.weight))
        y = functional.linear(x.mT, weight, bias).unflatten(-1, (self.heads, -1))
        y = center(functional.layer_norm(y, scale.shape, scale, eps=self.norm.eps).permute(0, 2, 3, 1))
        return functional.normalize(y[:, :-1] @ y[:, 1:].mT / x.shape[-1], dim=-2)

    def pool(self, x: Tensor) -> Tensor:
        first, second = (layer.weight.to(x.dtype) for layer in (self.first, self.second))
        k = functional.gelu(functional.conv2d(self.cross_covariances(x), first, stride=2))
        return torch.cat([x.mean(-1), functional.conv2d(k, second, stride=2).flatten(1)], 1) / 2

    def forward(self, x: Tensor, class_token: Tensor | None = None) -> Tensor:
        """Pool ``(B, C, H, W)``, views ``(B, V, C, H, W)`` or tokens ``(B, N, C)`` to ``(B, out_features)``.

        Args:
            x: features; tokens without the class token.
            class_token: ``(B, C)``, which takes the place of the average; in the published head for a vision
                transformer, the one after its last norm.

        Raises:
            ValueError: other shapes, or a class token with a reduction, which it does not go through.
        """
        if x.dim() == 3:
            if x.shape[-1] != self.in_channels:
                raise ValueError(f"expected tokens (B, N, {self.in_channels}), got {tuple(x.shape)}")
            x = x.mT.unsqueeze(-1)
        vectors = super().forward(x)
        if class_token is None:
            return vectors
        if self.channels != self.in_channels or not isinstance(self.reduction, nn.Identity):
            raise ValueError("a class token has no place beside reduced features; make the pool with reduction=None")
        if class_token.shape != (len(x), self.in_channels):
            expected = f"({len(x)}, {self.in_channels})"
            raise ValueError(f"expected one class token for each image, {expected}, got {tuple(class_token.shape)}")
        return torch.cat([class_token.to(vectors.dtype) / 2, vectors[:, self.channels :]], 1)
