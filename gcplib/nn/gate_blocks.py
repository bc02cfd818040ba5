"""The blocks of GSoP: factors for channels or positions, made of their covariance; and their first-order peer."""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional, init

from gcplib.linalg import covariance, spectral_dtype
from gcplib.nn.options import check_known, check_positive

# Entries that the row-wise convolution makes of a row of the covariance, as published.
PER_ROW = 4
# Weights as the released code starts them.
start_random = partial(init.kaiming_normal_, mode="fan_out", nonlinearity="relu")


def _start_zero(layer: nn.Module) -> None:
    init.zeros_(layer.weight)
    init.zeros_(layer.bias)


class Gate(nn.Module):
    """What a gate does: ``y = s * x`` with factors s made of x, ``(B, C, H, W)`` to the same shape.

    Args:
        channels: ``C``.
        start: ``paper`` is the released block: ``s = sigmoid(z)``, made of ``ReLU(x)``, with random weights. About
            half of x passes, which a pretrained network minds. ``identity`` is ours: ``s = 2 sigmoid(z)``, made of x,
            and zeros in the last layer, so ``y = x`` exactly before the first step, as in Goyal et al. 2017.
        device: of the weights that a gate has, here as in all gates.
        dtype: of the same.

    Raises:
        ValueError: unknown start, or a size that is not a positive integer; later, features of another shape.
    """

    # The optimizer gives it the learning rate of the pool, wherever in the backbone it stands.
    learns_as_pool = True

    def __init__(self, channels: int, *, start: str = "identity", device=None, dtype=None):
        super().__init__()
        check_positive("channels", channels)
        check_known("start", start, ("identity", "paper"))
        self.channels, self.start, self.released = channels, start, start == "paper"

    def logits(self, x: Tensor) -> Tensor:
        """Return z, that is, the factors before the sigmoid."""
        raise NotImplementedError

    def factors(self, x: Tensor) -> Tensor:
        """Return s: ``(B, C, 1, 1)`` of a gate for channels, ``(B, 1, H, W)`` of one for positions."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"expected features (B, {self.channels}, H, W), got {tuple(x.shape)}")
        s = self.logits(x).sigmoid()
        return s if self.released else 2 * s

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors(x).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, start={self.start!r}"


class RowWise(nn.Module):
    """Batch norm over rows, 4 entries per row by its own weights, a linear map: ``(B, n, n)`` to ``(B, out)``.

    Published as a convolution with kernels n x 1 in n groups; batched products take a sixth of its time on a CPU.
    """

    def __init__(self, size: int, out: int, *, rectify: bool, zero: bool, **place):
        super().__init__()
        self.norm = nn.BatchNorm1d(size, **place)
        self.weight = nn.Parameter(torch.empty(PER_ROW * size, size, **place))
        self.bias = nn.Parameter(torch.empty(PER_ROW * size, **place).uniform_(-(size**-0.5), size**-0.5))
        self.activation = nn.ReLU() if rectify else nn.Identity()
        self.mix = nn.Linear(PER_ROW * size, out, **place)
        start_random(self.mix.weight)
        if zero:
            _start_zero(self.mix)
            # The released weights, counted over the outputs of all groups, make entries so small (0.06 of 128 channels)
            # that a last layer of zeros hardly gets a gradient. These make entries of variance 1.
            init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="linear")
        else:
            start_random(self.weight[:, None])

    def forward(self, matrix: Tensor) -> Tensor:
        matrix = self.norm(matrix.to(self.norm.weight.dtype))
        entries = torch.einsum("brj,rkj->brk", matrix, self.weight.unflatten(0, (-1, PER_ROW))).flatten(1) + self.bias
        return self.mix(self.activation(entries))


def _reduce(channels: int, width: int, stride: int = 1, **place) -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(channels, width, 1, stride, **place), nn.BatchNorm2d(width, **place))
    start_random(layers[0].weight)
    return layers


class ChannelGate(Gate):
    """The channel block of GSoP: one factor per channel, of the covariance of a few channels over positions.

    ``z = W RC(BN(cov(ReLU(BN(conv(x))))))``: 1x1 convolution to d channels, covariance d x d without a root, row-wise
    convolution RC to 4 entries per row, linear map W to C.

    Args:
        channels: ``C``.
        width: d, at most C; 128 in the paper.
        stride: of the 1x1 convolution; the released code has 2 in the first stage of a ResNet, for its many positions.
        start: see ``Gate``.
        place: ``device`` and ``dtype``.

    Raises:
        ValueError: as ``Gate``; fewer than 2 positions.

    Source: Gao, Xie, Wang, Li: global second-order pooling (CVPR 2019), and its released code.

    >>> x = torch.randn(2, 8, 5, 5)
    >>> torch.equal(ChannelGate(8)(x), x)
    True
    """

    def __init__(self, channels: int, *, width: int = 128, stride: int = 1, start: str = "identity", **place):
        super().__init__(channels, start=start, **place)
        check_positive("width", width)
        check_positive("stride", stride)
        width, self.stride = min(width, channels), stride
        self.reduce = _reduce(channels, width, stride, **place)
        self.rows = RowWise(width, channels, rectify=False, zero=not self.released, **place)

    def matrix(self, x: Tensor) -> Tensor:
        """Return the covariance ``(B, d, d)`` that the factors are made of."""
        height, width = (math.ceil(size / self.stride) for size in x.shape[2:])
        if height * width < 2:
            raise ValueError(
                f"a covariance needs at least 2 positions, got a map of {height} x {width} behind stride "
                f"{self.stride}; use larger images or an earlier stage"
            )
        x = self.reduce(x.relu() if self.released else x).relu()
        return covariance(x.flatten(2).to(spectral_dtype(x.dtype)))

    def logits(self, x: Tensor) -> Tensor:
        return self.rows(self.matrix(x))[..., None, None]


class PositionGate(Gate):
    """The position block of GSoP: one factor per position, of the covariance of positions over channels.

    1x1 convolution to d channels, batch norm, average pooling to a grid of G x G, covariance of its G^2 positions over
    the d channels, row-wise convolution, ReLU, linear map; adaptive average pooling of the factors to H x W.

    The covariance is ``X^T (1 - 1 1^T / d) X / d``. The released code has ``M = G^2`` in place of both d: that is
    ``(d / M) (cov + (1 - d / M) m m^T)``, m the means over channels, with negative eigenvalues where d = 128, M = 64.

    Args:
        channels: ``C``.
        width: d, at most C.
        grid: G, 8 in the paper.
        start: see ``Gate``; ``paper`` adds the ReLU that the released code has behind this block.
        place: ``device`` and ``dtype``.
    """

    def __init__(self, channels: int, *, width: int = 128, grid: int = 8, start: str = "identity", **place):
        super().__init__(channels, start=start, **place)
        check_positive("width", width)
        check_positive("grid", grid)
        self.grid = grid
        self.reduce = _reduce(channels, min(width, channels), **place)
        self.rows = RowWise(grid**2, grid**2, rectify=True, zero=not self.released, **place)

    def matrix(self, x: Tensor) -> Tensor:
        """Return the covariance ``(B, G^2, G^2)`` that the factors are made of."""
        x = self.reduce(x.relu() if self.released else x)
        cells = functional.adaptive_avg_pool2d(x, self.grid).flatten(2)
        return covariance(cells.mT.to(spectral_dtype(cells.dtype)))

    def logits(self, x: Tensor) -> Tensor:
        return self.rows(self.matrix(x)).unflatten(1, (1, self.grid, self.grid))

    def factors(self, x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(super().factors(x), x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y.relu() if self.released else y


class SqueezeExcitation(Gate):
    """The first-order peer: one factor per channel, of the means of all, ``z = W2 ReLU(W1 mean(x))``.

    Args:
        channels: ``C``.
        hidden: length of ``W1 mean(x)``; None takes C / 16, as the paper.
        start: see ``Gate``; the factors are made of x in both cases.
        place: ``device`` and ``dtype``.

    Source: squeeze-and-excitation networks (Hu et al., CVPR 2018); with start ``paper`` it is timm's ``SEModule``.
    """

    def __init__(self, channels: int, *, hidden: int | None = None, start: str = "identity", **place):
        super().__init__(channels, start=start, **place)
        hidden = max(1, channels // 16) if hidden is None else hidden
        check_positive("hidden", hidden)
        self.squeeze = nn.Linear(channels, hidden, **place)
        self.excite = nn.Linear(hidden, channels, **place)
        if not self.released:
            _start_zero(self.excite)

    def logits(self, x: Tensor) -> Tensor:
        return self.excite(self.squeeze(x.mean((2, 3))).relu())[..., None, None]
