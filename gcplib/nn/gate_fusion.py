"""Both blocks of GSoP side by side, and the ways to make one map of two."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import init

from gcplib.nn.gate_blocks import ChannelGate, PositionGate, start_random
from gcplib.nn.options import check_known

__all__ = ["FusedGate"]

FUSIONS = ("average", "max", "concat")


class FusedGate(nn.Module):
    """Both blocks side by side, c by channels and p by positions, and one of three ways to make one map of two.

    ``average``: ``(c + p) / 2``; released: ``c + p``. ``max``: the larger, element by element. ``concat``: grouped
    vertical convolutions of both, added, batch norm; started as identity, this is added to x with a scale of zero.

    Args:
        channels: C.
        fusion: one of these.
        width: of both blocks; see ``ChannelGate`` and ``PositionGate``.
        stride: of the first.
        grid: of the second.
        start: of both.

    Source: the released code of GSoP. Its groups are ``C / 64`` and its kernels ``2 log2(32 / groups) + 5`` high;
    where C has no such divisor we take the next smaller one.
    """

    learns_as_pool = True

    def __init__(
        self,
        channels: int,
        *,
        fusion: str = "average",
        width: int = 128,
        stride: int = 1,
        grid: int = 8,
        start: str = "identity",
        device=None,
        dtype=None,
    ):
        super().__init__()
        check_known("fusion", fusion, FUSIONS)
        self.channels, self.fusion, self.released = channels, fusion, start == "paper"
        place = {"device": device, "dtype": dtype}
        self.by_channel = ChannelGate(channels, width=width, stride=stride, start=start, **place)
        self.by_position = PositionGate(channels, width=width, grid=grid, start=start, **place)
        if fusion == "concat":
            groups = next(g for g in range(max(1, channels // 64), 0, -1) if channels % g == 0)
            half = max(0, int(math.log2(32 / groups))) + 2
            size = {"kernel_size": (2 * half + 1, 1), "padding": (half, 0), "groups": groups} | place
            self.joined = nn.ModuleList(nn.Conv2d(channels, channels, **size) for _ in range(2))
            self.norm = nn.BatchNorm2d(channels, **place)
            for convolution in self.joined:
                start_random(convolution.weight)
            if not self.released:
                init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        c, p = self.by_channel(x), self.by_position(x)
        if self.fusion == "max":
            return torch.maximum(c, p)
        if self.fusion == "average":
            return c + p if self.released else (c + p) / 2
        both = self.norm(self.joined[0](c) + self.joined[1](p)).to(x.dtype)
        return both if self.released else x + both
