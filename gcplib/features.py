"""All that a frozen network says of an image: features of every stage, class tokens, and its own pooled vector."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcplib.backbones import (
    OFFLINE_BACKBONE,
    Prepared,
    create_network,
    find_stage,
    fit_to_pixels,
    load_weights,
)

__all__ = ["NetworkFeatures", "create_features"]


class NetworkFeatures(Prepared):
    """A whole timm network without its classifier; one pass gives what it knows at several stages.

    Args:
        network: of timm, made without a classifier (``num_classes=0``).
        name: of the network.
        strides: the stages, each as ``create_backbone`` has it. None: that of stride 16 or nearest to it, and the last.

    Raises:
        ValueError: the network has no such stride.
    """

    def __init__(self, network: nn.Module, name: str, strides: Sequence[int] | None = None):
        super().__init__(network, name)
        if strides is None:
            strides = (None, -1)
        self.last = len(network.feature_info) - 1
        self.indices = sorted({find_stage(network, name, stride) for stride in strides})
        # Blocks of one stride are told apart by their number.
        found = [network.feature_info[index]["reduction"] for index in self.indices]
        self.keys = [
            f"stride{stride}" if found.count(stride) == 1 else f"stage{index}"
            for stride, index in zip(found, self.indices, strict=True)
        ]
        self.has_tokens = "return_prefix_tokens" in inspect.signature(network.forward_intermediates).parameters

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return what the network says of normalized images ``(B, 3, H, W)``.

        Returns:
            ``stride16`` and so on (``stage5`` where several have one stride): features ``(B, C, H / 16, W / 16)``, of
            the last stage behind the final norm where the network has one for positions; ``tokens``: class and
            register tokens ``(B, P, C)`` of the last stage, where it has them; ``own``: the vector ``(B, D)`` that its
            own classifier would see.
        """
        # Networks with tokens would take the final norm for every stage.
        options = {"norm": False, "return_prefix_tokens": True} if self.has_tokens else {"norm": True}
        final, found = self.network.forward_intermediates(x, indices=self.indices, output_fmt="NCHW", **options)
        tokens = {}
        if self.has_tokens:
            count, size = found[-1][1].shape[1], found[-1][0].shape[-2:]
            found = [features for features, _ in found]
            if self.indices[-1] == self.last:
                found[-1] = final[:, count:].transpose(1, 2).unflatten(2, size)
                tokens = {"tokens": final[:, :count]} if count else {}
        out = dict(zip(self.keys, found, strict=True)) | tokens
        return out | {"own": self.network.forward_head(final, pre_logits=True)}


def create_features(
    name: str = OFFLINE_BACKBONE,
    pretrained: bool | str | Path = True,
    strides: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    pixels: int | None = None,
) -> NetworkFeatures:
    """Make the features of any timm network, in eval mode and ``channels_last`` layout.

    Args:
        name: see ``gcplib.create_backbone``, also for the rest.
        strides: see ``NetworkFeatures``.

    Raises:
        ValueError, FileNotFoundError: as ``gcplib.create_backbone``.

    >>> out = create_features("resnet18", pretrained=False)(torch.zeros(1, 3, 64, 64))
    >>> {key: tuple(value.shape) for key, value in out.items()}
    {'stride16': (1, 256, 4, 4), 'stride32': (1, 512, 2, 2), 'own': (1, 512)}
    """
    from_file = not isinstance(pretrained, bool)
    network = create_network(name, pretrained, dict(options or {}) | {"num_classes": 0}, load=not from_file)
    if from_file:
        load_weights(network, name, pretrained, pruned=True)
    found = NetworkFeatures(network, name, strides)
    fit_to_pixels(found, pixels)
    return found.eval().to(memory_format=torch.channels_last)
