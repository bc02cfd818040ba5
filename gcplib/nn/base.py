"""What all pools share, the reduction before them and the order of their vectors; and what all networks share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gcplib.linalg import VECTOR_ORDER, center, spectral_dtype, triu_vector
from gcplib.linalg.tolerance import SPECTRAL_DTYPES
from gcplib.nn.options import check_known, check_parts, check_positive

# Channels after a 1x1 reduction, or after each of several, or None for no reduction.
Widths = int | Sequence[int] | None

# By name, so that a pool's options are plain values and can stand in a file. None: as the features are.
COMPUTE_DTYPES = {None: None} | {str(dtype).removeprefix("torch."): dtype for dtype in SPECTRAL_DTYPES}


class Reduction(nn.Sequential):
    """1x1 convolution, batch norm, ReLU: fewer channels before a second-order pool (iSQRT-COV, section 4.1).

    Args:
        in_channels: ``C``.
        out_channels: channels d; or several numbers, such as ``(96, 64)``, with a step for each.
        groups: of the channels, each with convolutions of its own, which have 1 / groups of the weights together.
        place: ``device`` and ``dtype``.

    Raises:
        ValueError: a number of channels is not a positive integer, there is none, or the groups do not divide one.

    Source: progressive 1x1 and group convolutions before covariance pooling: Wang et al., TPAMI 2020. Which numbers
    of channels and groups the paper takes could not be checked.

    >>> Reduction(112, (96, 64), groups=4)[3].weight.shape
    torch.Size([64, 24, 1, 1])
    """

    def __init__(self, in_channels: int, out_channels: int | Sequence[int], *, groups: int = 1, **place):
        widths = check_widths(out_channels)
        for width in (in_channels, *widths):
            check_parts("reduction_groups", groups, width)
        layers = []
        for before, after in pairwise((in_channels, *widths)):
            convolution = nn.Conv2d(before, after, 1, groups=groups, bias=False, **place)
            layers += [convolution, nn.BatchNorm2d(after, **place), nn.ReLU(inplace=True)]
        super().__init__(*layers)
        self.widths = widths
        for convolution in layers[::3]:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            if groups > 1:
                # torch counts the outputs of all groups, but an input reaches those of its own only. So filters are as
                # long as without groups, and batch norm after them gives steps on them the same effect.
                with torch.no_grad():
                    convolution.weight.mul_(groups**0.5)


def check_widths(reduction: int | Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of channels after each step of a reduction."""
    widths = tuple(reduction) if isinstance(reduction, Sequence) and not isinstance(reduction, str) else (reduction,)
    if not widths:
        raise ValueError("reduction must be a positive integer or several, got none; None leaves all channels")
    for width in widths:
        check_positive("reduction", width)
    return widths


class AveragePool(nn.Module):
    """Global average pooling, the first-order baseline: ``(B, C, H, W)`` to ``(B, d)``.

    Every pool also takes features ``(B, V, C, H, W)`` of V views of each image, and pools them as one: the mean of
    the views' averages here, the mean of their second moments, or covariances, in the pools built on those.

    Args:
        in_channels: ``C``.
        reduction: channels d after an optional 1x1 reduction, or those after each of several (``Reduction``); 64 to 256
            are usual for second-order pools, whose vector has d (d + 1) / 2 entries. None keeps C.
        reduction_groups: of its convolutions.
        device: of the weights, which only a reduction has; torch's default if None.
        dtype: of the weights.
    """

    min_positions = 1
    # Whether each view is centered by itself, so that the covariance of all positions is the mean of the views'.
    centered = False

    def __init__(
        self, in_channels: int, *, reduction: Widths = None, reduction_groups: int = 1, device=None, dtype=None
    ):
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("reduction_groups", reduction_groups)
        if reduction is None and reduction_groups != 1:
            raise ValueError(f"reduction_groups {reduction_groups} needs a reduction to group, got reduction None")
        self.in_channels, self.channels, self.reduction = in_channels, in_channels, nn.Identity()
        self.settings: dict[str, Any] = {}  # shown by repr
        if reduction is not None:
            self.reduction = Reduction(in_channels, reduction, groups=reduction_groups, device=device, dtype=dtype)
            self.channels = self.reduction.widths[-1]

    @property
    def out_features(self) -> int:
        """Length of the pooled vector, which the classifier needs to know."""
        return self.channels

    def pool(self, x: Tensor) -> Tensor:
        """Pool reduced features ``(B, d, M)`` in a dtype the spectral part can run in."""
        return x.mean(-1)

    def join(self, x: Tensor) -> Tensor:
        """Return the positions of all views ``(B, V, d, M)`` side by side, ``(B, d, V M)``."""
        return (center(x) if self.centered else x).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, H, W)``, or views ``(B, V, C, H, W)``, to ``(B, out_features)``.

        Half-precision features are pooled, and their vectors returned, in float32, also under autocast.

        Raises:
            ValueError: wrong number of dimensions or channels, or too few positions to pool.
        """
        if x.dim() not in (4, 5) or x.shape[-3] != self.in_channels or (x.dim() == 5 and x.shape[1] == 0):
            raise ValueError(f"expected features (B, {self.in_channels}, H, W), got {tuple(x.shape)}")
        if x.shape[-2] * x.shape[-1] < self.min_positions:
            raise ValueError(
                f"{type(self).__name__} needs at least {self.min_positions} positions, got a map of {x.shape[-2]} x "
                f"{x.shape[-1]}; use larger images or features of a smaller stride"
            )
        views = x.shape[:2] if x.dim() == 5 else None
        x = self.reduction(x if views is None else x.flatten(0, 1)).flatten(2)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(spectral_dtype(x.dtype))
            if views is not None:
                x = self.join(x.unflatten(0, views))
            return self.pool(x)

    def extra_repr(self) -> str:
        shown = (f"{name}={value}" for name, value in self.settings.items() if value is not None)
        return ", ".join([str(self.in_channels), f"out_features={self.out_features}", *shown])


class MatrixPool(AveragePool):
    """What the second-order pools share: a matrix ``(B, d, d)``, vectorized by its upper triangle in row order.

    Args:
        in_channels: ``C``.
        compute_dtype: ``float32`` or ``float64`` between features and vector, or None for the features' own.
        common: see ``AveragePool``.
    """

    def __init__(self, in_channels: int, *, compute_dtype: str | torch.dtype | None = None, **common):
        super().__init__(in_channels, **common)
        if isinstance(compute_dtype, torch.dtype):
            compute_dtype = str(compute_dtype).removeprefix("torch.")
        check_known("compute_dtype", compute_dtype, COMPUTE_DTYPES)
        self.compute_dtype = self.settings["compute_dtype"] = compute_dtype
        self.register_buffer("vector_order", torch.tensor(VECTOR_ORDER, device=common.get("device")))

    @property
    def out_features(self) -> int:
        return self.channels * (self.channels + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return the representation ``(B, d, d)``, or several side by side, of reduced features ``(B, d, M)``."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        return triu_vector(self.matrix(x.to(COMPUTE_DTYPES[self.compute_dtype]))).to(x.dtype).flatten(1)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        stored = state_dict.get(prefix + "vector_order")
        if stored is not None and int(stored) != VECTOR_ORDER:
            raise RuntimeError(
                f"the checkpoint was written with vector order {int(stored)}, this version uses {VECTOR_ORDER}: "
                "its classifier weights would be read in the wrong order"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class Network(nn.Module):
    """A network with a ``backbone`` and a ``head``, and the interface of timm's models.

    A subclass adds ``forward_features`` and ``forward_head``.
    """

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 without a classifier."""
        return self.head.num_classes

    @property
    def num_features(self) -> int:
        """The number of channels of the backbone's features."""
        return self.backbone.out_channels

    @property
    def head_hidden_size(self) -> int:
        """The length of the vectors that the classifier sees."""
        return self.head.pool.out_features

    def get_classifier(self) -> nn.Module:
        return self.head.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new classifier in place of the one that is there; with 0 classes the vectors pass as they are."""
        self.head.reset_classifier(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))
