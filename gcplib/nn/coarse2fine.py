"""Coarse2Fine: attention on the feature map says where to look in the image, and a second, closer look follows.

Of the paper only the abstract could be read: a differentiable path from the image to the attended feature maps, a
learned inverse mapping from these maps to the informative region of the raw image, attention weights that start
orthogonal, and training in two stages. **Everything else here is our own design.** With features F ``(C, h, w)`` of the
image x, f = F / rms(F), and k = 1 ... K,

    A_k = sigmoid(a_k . f + b_k)            attention maps
    coarse = head(mean_k A_k * F)           the first look: attended features, pooled
    p = softmax(mean_k d_k . (A_k * f))     the decoder: a density over the positions, that is, over the image
    region = the rectangle that, filled evenly, has the mean and the variance of p along either side
    fine = head(mean_k A'_k * F')           the second look: F' and A' of the region, enlarged to the size of x

The region is a spatial transformer with scale and shift alone: it needs no threshold, and its four numbers per image
carry the gradient. A flat density gives the whole image, one on a single cell exactly that cell. At the scale of
ImageNet features, not divided by their root mean square, the maps would start saturated, and the gradient of the region
drown all others. The loss of the fine look reaches the attention through the region alone, a way that ``path=False``
cuts: where attention is applied again, to F', its weights count as constants.

Source: Eshratifar, Eigen, Gormish, Pedram, Coarse2Fine (arXiv 1909.02680; Machine Vision and Applications 2021).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcplib.linalg import spectral_dtype
from gcplib.nn.base import Network
from gcplib.nn.options import check_known, check_positive
from gcplib.nn.views import laid_out_as

__all__ = ["Attention", "Coarse2Fine", "Decoder", "Look", "attend", "crop", "region_of"]


class Attention(nn.Module):
    """K attention maps ``A_k = sigmoid(a_k . f + b_k)``, f = F / rms(F): ``(B, C, h, w)`` to ``(B, K, h, w)``.

    Args:
        channels: ``C``.
        maps: ``K``.
        init: ``orthogonal``, rows a_k of unit norm at right angles; ``kaiming``, of that norm on average, at any angle.
        place: ``device`` and ``dtype``.

    Raises:
        ValueError: fewer than one map, more orthonormal rows than channels, or an unknown init.

    >>> weight = Attention(12, maps=3).weight.flatten(1)
    >>> torch.allclose(weight @ weight.mT, torch.eye(3), atol=1e-5)
    True
    """

    def __init__(self, channels: int, *, maps: int = 8, init: str = "orthogonal", **place):
        super().__init__()
        check_positive("maps", maps)
        check_known("init of the attention weights", init, ("orthogonal", "kaiming"))
        if init == "orthogonal" and maps > channels:
            raise ValueError(
                f"{channels} channels have no {maps} orthonormal rows; take at most {channels} maps, or init 'kaiming'"
            )
        self.weight = nn.Parameter(torch.empty(maps, channels, 1, 1, **place))
        self.bias = nn.Parameter(torch.zeros(maps, **place))
        if init == "orthogonal":
            nn.init.orthogonal_(self.weight)
        else:
            nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    def forward(self, features: Tensor, constant: bool = False) -> Tensor:
        """Return the maps; with ``constant`` no gradient reaches the weights, while the features get theirs."""
        weight, bias = (self.weight.detach(), self.bias.detach()) if constant else (self.weight, self.bias)
        return functional.conv2d(_scaled(features), weight, bias).sigmoid()


class Decoder(nn.Module):
    """From attended features to a density over the image, ``(B, h, w)``: the softmax of ``mean_k A_k (d_k . f)``."""

    def __init__(self, channels: int, *, maps: int = 8, **place):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(maps, channels, 1, 1, **place))
        # Not zero, for then no gradient would pass; small enough for first regions that are nearly the whole image.
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        energy = (maps * functional.conv2d(_scaled(features), self.weight)).mean(1)
        # Positions that weigh less than a half-precision number can tell apart still move the region.
        energy = energy.to(spectral_dtype(energy.dtype))
        return energy.flatten(1).softmax(1).view_as(energy)


def _scaled(features: Tensor) -> Tensor:
    """Return the features of every image with a mean square of 1."""
    return functional.rms_norm(features, features.shape[1:])


def attend(features: Tensor, maps: Tensor) -> Tensor:
    """Return the attended features ``mean_k A_k * F``, ``(B, C, h, w)``."""
    return features * maps.mean(1, keepdim=True)


def region_of(density: Tensor) -> Tensor:
    """Return center and half sides ``(x, y, half width, half height)`` of the regions, ``(B, 4)``.

    The image goes from -1 to 1. An even density over a rectangle of cells gives this rectangle; weight at opposite ends
    gives more than the image.

    >>> region_of(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]))
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """
    centers, halves = [], []
    for axis in (1, 2):  # summed away: rows first, which leaves the distribution along x
        mass = density.sum(axis)
        cells = mass.shape[1]
        place = (2 * torch.arange(cells, device=mass.device, dtype=mass.dtype) + 1) / cells - 1
        center = (mass * place).sum(1)
        variance = (mass * (place - center[:, None]).square()).sum(1)
        centers.append(center)
        # An even density of half side s has the variance s^2 / 3; within a cell, of half side 1 / cells, it is even.
        halves.append((3 * variance + 1 / cells**2).sqrt())
    return torch.stack(centers + halves, 1)


def crop(x: Tensor, region: Tensor) -> Tensor:
    """Return the regions of images ``(B, C, H, W)``, enlarged to their size; beyond the image its edge is repeated."""
    center, halves = region.split(2, 1)
    transform = torch.cat((torch.diag_embed(halves), center[..., None]), 2)
    grid = functional.affine_grid(transform, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


class Look(NamedTuple):
    """What both looks saw and said."""

    attention: Tensor  # (B, K, h, w)
    density: Tensor  # (B, h, w)
    region: Tensor  # (B, 4), see region_of
    image: Tensor  # enlarged, (B, 3, H, W)
    coarse: Tensor  # logits of the first look
    fine: Tensor  # logits of the second


class Coarse2Fine(Network):
    """A backbone and a head that look twice; normalized images ``(B, 3, H, W)`` of any size in, logits out.

    In training it returns logits in a tuple: ``(coarse,)`` in the first stage, ``(coarse, fine)`` in the second; in
    evaluation always the mean of both.

    Args:
        backbone: with ``out_channels``, such as ``gcplib.create_backbone`` makes.
        head: from its features to logits.
        maps: ``K``.
        init: of the attention weights, see ``Attention``.
        first: epochs of the first stage, which trains the coarse look alone; a new network is in epoch 0.
        path: whether the fine look's loss reaches the attention by way of the region; the decoder learns all the same.

    Raises:
        ValueError: as ``Attention``; a bad ``first`` or ``path``; a head for views, or with class maps to diversify.

    Source: our design after the abstract of arXiv 1909.02680; see the module.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        maps: int = 8,
        init: str = "orthogonal",
        first: int = 1,
        path: bool = True,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if isinstance(first, bool) or not isinstance(first, int) or first < 0:
            raise ValueError(f"first counts epochs of coarse training, an integer from 0, got {first!r}")
        if not isinstance(path, bool):
            raise ValueError(f"path must be true or false, got {path!r}")
        if others := [name for name in ("views", "diversify") if getattr(head, name, None) is not None]:
            raise ValueError(f"Coarse2Fine does not go together with {' and '.join(others)} in its head")
        self.backbone, self.head = backbone, head
        shape = {"channels": backbone.out_channels, "maps": maps, "device": device, "dtype": dtype}
        self.attention, self.decoder = Attention(**shape, init=init), Decoder(**shape)
        self.first, self.path = first, path
        self.enter_epoch(0)

    def enter_epoch(self, epoch: int) -> None:
        """Choose the stage of training, which depends on the epoch (from 0) alone."""
        self.coarse_only = epoch < self.first

    def look(self, x: Tensor) -> Look:
        """Return what both looks saw and said."""
        features = self.backbone(x)
        maps = self.attention(features)
        coarse = self.head(attend(features, maps))
        density = self.decoder(features, maps) if self.path else self.decoder(features.detach(), maps.detach())
        region = region_of(density)
        with torch.autocast(x.device.type, enabled=False):
            image = laid_out_as(x, crop(x.to(density.dtype), region).to(x.dtype))
        closer = self.backbone(image)
        fine = self.head(attend(closer, self.attention(closer, constant=True)))
        return Look(maps, density, region, image, coarse, fine)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.training and self.coarse_only:
            features = self.backbone(x)
            coarse = self.head(attend(features, self.attention(features)))
            # Where several devices train, each waits for the gradient of every parameter: here it is zero.
            return (coarse + 0 * self.decoder.weight.sum(),)
        seen = self.look(x)
        return (seen.coarse, seen.fine) if self.training else (seen.coarse + seen.fine) / 2

    def extra_repr(self) -> str:
        return f"first={self.first}, path={self.path}"
