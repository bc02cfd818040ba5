"""What all pools share: the reduction before them, the checks of their input, and the order of their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gcplib.linalg import VECTOR_ORDER, center, spectral_dtype, triu_vector

__all__ = ["AveragePool", "MatrixPool", "Reduction", "laid_out_as"]

# By name, so that a pool's options are plain values and can stand in a file. None: as the features are.
COMPUTE_DTYPES = {None: None, "float32": torch.float32, "float64": torch.float64}


class Reduction(nn.Sequential):
    """1x1 convolution, batch norm, ReLU: fewer channels before a second-order pool (iSQRT-COV, section 4.1).

    Args:
        in_channels: C. out_channels: channels d; or several numbers, progressively: one convolution, batch norm and
            ReLU each, for instance ``(96, 64)``.
        groups: of the channels, each with convolutions of its own, which have 1 / groups of the weights together.

    Raises:
        ValueError: a number of channels is not a positive integer, there is none, or the groups do not divide one.

    Source: progressive 1x1 and group convolutions before covariance pooling: Wang et al., TPAMI 2020. Which numbers
    of channels and groups the paper takes could not be checked.

    >>> Reduction(112, (96, 64), groups=4)[3].weight.shape
    torch.Size([64, 24, 1, 1])
    """

    def __init__(self, in_channels: int, out_channels: int | Sequence[int], groups: int = 1):
        widths = check_widths(out_channels)
        for width in (in_channels, *widths):
            check_parts("reduction_groups", groups, width)
        layers = []
        for before, after in pairwise((in_channels, *widths)):
            convolution = nn.Conv2d(before, after, 1, groups=groups, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        super().__init__(*layers)
        self.widths = widths
        for convolution in layers[::3]:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            if groups > 1:
                # torch counts the outputs of all groups, but an input reaches those of its own only. So filters are as
                # long as without groups, and batch norm after them gives steps on them the same effect.
                with torch.no_grad():
                    convolution.weight.mul_(groups**0.5)


def laid_out_as(x: Tensor, images: Tensor) -> Tensor:
    """Return the images with their channels last in memory where those of x are; cropping and turning lose it.

    Convolutions on a CPU are several times faster so.
    """
    if x.is_contiguous(memory_format=torch.channels_last):
        return images.contiguous(memory_format=torch.channels_last)
    return images


def check_widths(reduction: int | Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of channels after each step of a reduction."""
    widths = tuple(reduction) if isinstance(reduction, Sequence) and not isinstance(reduction, str) else (reduction,)
    if not widths:
        raise ValueError(
            "reduction must be a positive integer or several, got none; None leaves the channels as they are"
        )
    for width in widths:
        check_positive("reduction", width)
    return widths


def check_positive(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_parts(name: str, count: int, channels: int) -> None:
    """Raise ``ValueError`` unless the channels can be cut into ``count`` equal parts."""
    check_positive(name, count)
    if channels % count:
        raise ValueError(f"{name} must divide the channels, but {channels} channels make no {count} equal parts")


class AveragePool(nn.Module):
    """Global average pooling, the first-order baseline: ``(B, C, H, W)`` to ``(B, d)``.

    Every pool also takes features ``(B, V, C, H, W)`` of V views of each image, and pools them as one: the mean of
    the views' averages here, the mean of their second moments, or covariances, in the pools built on those.

    Args:
        in_channels: C. reduction: channels d after an optional 1x1 reduction, or those after each of several, in turn
            (``Reduction``); None keeps C. reduction_groups: of its convolutions.
    """

    min_positions = 1
    # Whether each view is centered by itself before its positions are pooled together with those of the others. Then
    # the covariance of all positions is the mean of the views' covariances.
    centered = False

    def __init__(self, in_channels: int, reduction: int | Sequence[int] | None = None, reduction_groups: int = 1):
        super().__init__()
        check_positive("in_channels", in_channels)
        check_positive("reduction_groups", reduction_groups)
        self.in_channels = in_channels
        self.channels = in_channels if reduction is None else check_widths(reduction)[-1]
        if reduction is None and reduction_groups != 1:
            raise ValueError(f"reduction_groups {reduction_groups} needs a reduction to group, got reduction None")
        self.reduction = nn.Identity() if reduction is None else Reduction(in_channels, reduction, reduction_groups)

    @property
    def out_features(self) -> int:
        """Length of the pooled vector: what the classifier needs to know."""
        return self.channels

    def pool(self, x: Tensor) -> Tensor:
        """Pool reduced features ``(B, d, M)`` in a dtype the spectral part can run in."""
        return x.mean(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``(B, C, H, W)``, or views ``(B, V, C, H, W)``, to ``(B, out_features)``.

        Half-precision features are pooled in float32, also under autocast; the vector is returned in float32 then.

        Raises:
            ValueError: wrong number of dimensions or channels, or too few positions to pool.
        """
        if x.dim() not in (4, 5) or x.shape[-3] != self.in_channels:
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
                x = (center(x) if self.centered else x).unflatten(0, views).transpose(1, 2).flatten(2)
            return self.pool(x)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, out_features={self.out_features}"


class MatrixPool(AveragePool):
    """What the second-order pools share: a matrix ``(B, d, d)``, vectorized by its upper triangle in row order.

    Args:
        in_channels: C. reduction, reduction_groups: channels d after an optional 1x1 reduction; see ``AveragePool``.
        compute_dtype: ``float32`` or ``float64`` for everything between features and vector; None takes the features'.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int | Sequence[int] | None = None,
        compute_dtype: str | None = None,
        reduction_groups: int = 1,
    ):
        super().__init__(in_channels, reduction, reduction_groups)
        if compute_dtype not in COMPUTE_DTYPES:
            raise ValueError(
                f"compute_dtype must be one of {', '.join(map(str, COMPUTE_DTYPES))}, got {compute_dtype!r}"
            )
        self.compute_dtype = compute_dtype
        self.register_buffer("vector_order", torch.tensor(VECTOR_ORDER))

    @property
    def out_features(self) -> int:
        return self.channels * (self.channels + 1) // 2

    def matrix(self, x: Tensor) -> Tensor:
        """Return the representation ``(B, d, d)`` of reduced features ``(B, d, M)``."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        return triu_vector(self.matrix(x.to(COMPUTE_DTYPES[self.compute_dtype]))).to(x.dtype)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        stored = state_dict.get(prefix + "vector_order")
        if stored is not None and int(stored) != VECTOR_ORDER:
            raise RuntimeError(
                f"the checkpoint was written with vector order {int(stored)}, this version uses {VECTOR_ORDER}: "
                "its classifier weights would be read in the wrong order"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
