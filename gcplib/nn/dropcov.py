"""DropCov: in training, channels are dropped before the covariance, the fewer the more they agree with it."""

import math

import torch
from torch import Tensor
from torch.nn import Conv1d, functional

from gcplib.linalg import center, covariance_map
from gcplib.linalg.calls import is_number
from gcplib.nn.base import MatrixPool
from gcplib.nn.options import check_positive


def drop_probability(x: Tensor, weights: Tensor, preserve: float = 10.0) -> Tensor:
    """Return the probability that DropCov drops a channel: one number for the whole batch.

    ``p = 1 - preserve / log2(d) * mean over images of cos(w, C 1)`` within 0 and 1: channels whose weights agree with
    how much they vary together with all others are kept.

    Args:
        x: features ``(B, d, M)``, d at least 2.
        weights: w, ``(B, d)``.
        preserve: the factor; larger drops less.

    Returns:
        A tensor of no dimensions. An image without variance counts as cosine 0.

    Source: DropCov (Wang et al., NeurIPS 2022) by its released code, ``balance_rate`` of ResNet_ACD.py.
    """
    x = center(x)
    # C 1 without C: its cost is linear in the channels.
    rows = (x @ x.sum(1).unsqueeze(-1)).squeeze(-1) / x.shape[-1]
    length = rows.norm(dim=1) * weights.norm(dim=1)
    cosine = (rows * weights).sum(1) / torch.where(length == 0, torch.ones_like(length), length)
    return (1 - preserve / math.log2(x.shape[1]) * cosine.mean()).clamp(0, 1)


class DropCovPool(MatrixPool):
    """DropCov: the covariance, in training of weighted features of which channels are dropped at random.

    In training, with w the softmax over channels of a convolution along the channels of the average,

        x <- (1 + w) x,    x_c <- x_c / (1 - p) with probability 1 - p, else 0, for each image and channel,

    and p of ``drop_probability``, a constant for the gradient. In evaluation it is the plain covariance, as released:
    without the dropping, but also without the weights, so entries of the covariance are (1 + w_i) (1 + w_j) as large
    in training. And dropping keeps the mean of entries off the diagonal only; variances grow by 1 / (1 - p).

    p depends on the whole batch, and where batches are shared out over processes on the part of each. It is 0 where
    the mean cosine is above log2(d) / preserve, 0.6 at 64 channels and 0.8 at 256; below a cosine of 0 it is 1, and
    nothing is left.

    Args:
        in_channels: channels of the feature map; at least 2 after the reduction.
        preserve: the factor of the cosine; the released code has 10, for 256 channels.
        kernel: of the convolution, odd; the released code has 3.
        common: see ``MatrixPool``.

    Raises:
        ValueError: fewer than two channels, or a setting out of range.

    Source: DropCov (Wang et al., NeurIPS 2022) by its released code for ResNets; the paper's text was not at hand. The
    code for transformers drops with the fixed probability 0.2 instead; that is not built.

    >>> DropCovPool(112, reduction=64).extra_repr()
    '112, out_features=2080, preserve=10.0, kernel=3'
    """

    min_positions = 2

    def __init__(self, in_channels: int, *, preserve: float = 10.0, kernel: int = 3, **common):
        super().__init__(in_channels, **common)
        if self.channels < 2:
            raise ValueError(f"DropCov needs at least two channels, got {self.channels}: log2(1) is zero")
        if not (is_number(preserve) and preserve > 0):
            raise ValueError(f"preserve must be above 0 and finite, got {preserve!r}")
        check_positive("kernel", kernel)
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that there is one weight for each channel, got {kernel}")
        place = {name: common.get(name) for name in ("device", "dtype")}
        self.attention = Conv1d(1, 1, kernel, padding=kernel // 2, bias=False, **place)
        self.preserve = preserve
        self.settings = {"preserve": preserve, "kernel": kernel} | self.settings

    def join(self, x: Tensor) -> Tensor:
        # Each view is centered by itself, as for every covariance, but the average, from which the weights are, stays.
        return super().join(center(x) + x.mean((1, 3), keepdim=True))

    def weights(self, x: Tensor) -> Tensor:
        """Return the weight of each channel, ``(B, d)``, which sum to 1, of features ``(B, d, M)``."""
        kernel = self.attention.weight
        average = x.mean(-1).unsqueeze(1)
        return functional.conv1d(average, kernel.to(x.dtype), padding=kernel.shape[-1] // 2).squeeze(1).softmax(-1)

    def drop(self, x: Tensor) -> Tensor:
        """Return the features of training, weighted and without the dropped channels, ``(B, d, M)``."""
        weights = self.weights(x)
        x = x * (1 + weights.unsqueeze(-1))
        p = drop_probability(x.detach(), weights.detach(), self.preserve)
        # A p that is not a number keeps everything, so that what overflowed stays and is refused.
        kept = ~(torch.rand_like(weights) < p)
        return x * (kept / torch.where(p < 1, 1 - p, torch.ones_like(p))).unsqueeze(-1)

    def matrix(self, x: Tensor) -> Tensor:
        """Return the covariance ``(B, d, d)`` of features ``(B, d, M)``."""
        return covariance_map(self.drop(x) if self.training else x, "identity")
