"""How soon a class is lost when what a map calls important is blurred away, and found when it is brought back.

It needs no ground truth: the network itself judges the map. But images that are blurred in part are like none that it
was trained on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gcplib.lab.analysis.perturbation import BATCH, blurred
from gcplib.lab.analysis.spectral_scores import Classes
from gcplib.lab.progress import track
from gcplib.models import Backbone, Head

__all__ = ["deletion_insertion"]


@torch.no_grad()
def deletion_insertion(
    backbone: Backbone,
    head: Head,
    images: np.ndarray | Tensor,
    maps: Tensor,
    classes: Classes,
    against: Classes,
    steps: int = 8,
) -> tuple[Tensor, Tensor]:
    """Return the curves of deletion and of insertion: the probability of a class against another at every step.

    ``p_k = sigmoid(logit_class - logit_other)`` of ``blur + m_k (image - blur)``. In deletion the mask m_k is 0 on the
    fraction ``k / steps`` of the cells where the map is largest, in insertion it is 1 there and 0 elsewhere. The cell
    at the edge is shown in part, so that all steps are alike. Of equal cells the first goes first.

    Args:
        backbone, head: in eval mode; any head with a classifier.
        images: ``(B, H, W, 3)``.
        maps: ``(B, maps, h, w)``, large where the image speaks for the class; only their order counts.
        classes: of the images, ``(B,)``.
        against: the others, ``(B,)``.
        steps: at least 2.

    Returns:
        Both ``(B, maps, steps + 1)``, between 0 and 1. The area below is ``torch.trapezoid(curves, dx=1 / steps)``:
        small for deletion by a good map, large for insertion.

    Raises:
        ValueError: training mode, shapes that do not fit, maps that are not finite, a class the classifier does not
            have, or too few steps.

    Source: Petsiuk, Das and Saenko, *RISE*, BMVC 2018, with a blur for both curves.
    """
    x = backbone.prepare(images)
    if backbone.training or head.training:
        raise ValueError("backbone or head is in training mode, where batch norm mixes the images; call .eval() first")
    if maps.dim() != 4 or len(maps) != len(x) or 0 in maps.shape:
        raise ValueError(f"expected maps ({len(x)}, maps, h, w), some for every image, got {tuple(maps.shape)}")
    if wrong := int((~maps.isfinite()).sum()):
        raise ValueError(f"{wrong} values of the maps {tuple(maps.shape)} are not finite, and have no order")
    if steps < 2:
        raise ValueError(f"a curve needs at least 2 steps, got {steps}")
    own, rival = (_known(labels, len(x), head.num_classes) for labels in (classes, against))
    order = maps.flatten(2).to(x.device).argsort(dim=-1, descending=True, stable=True)
    cells = order.shape[-1]
    count = torch.arange(1, steps, device=x.device, dtype=x.dtype) * (cells / steps)
    taken = (count.unsqueeze(-1) - order.argsort(-1).unsqueeze(2)).clamp(0, 1)
    # The whole image and its blur are the ends of all curves, and are seen once.
    ends = x.new_tensor([1.0, 0.0]).unsqueeze(-1).expand(2, cells)
    curves = []
    for i, cover in track(enumerate(blurred(x)), "deletion and insertion", len(x), "image"):
        visible = torch.cat([ends, torch.stack([1 - taken[i], taken[i]]).flatten(0, 2)])
        logits = []
        for part in visible.unflatten(-1, (1, *maps.shape[2:])).split(BATCH):
            shown = functional.interpolate(part, x.shape[-2:], mode="nearest")
            logits.append(head(backbone(torch.lerp(cover, x[i], shown).contiguous(memory_format=torch.channels_last))))
        found = torch.cat(logits)
        found = (found[:, own[i]] - found[:, rival[i]]).sigmoid()
        whole, none = found[:2].view(2, 1, 1).expand(2, maps.shape[1], 1)
        deletion, insertion = found[2:].view(2, maps.shape[1], steps - 1)
        curves.append((torch.cat([whole, deletion, none], -1), torch.cat([none, insertion, whole], -1)))
    deletions, insertions = zip(*curves, strict=True)
    return torch.stack(deletions), torch.stack(insertions)


def _known(labels: Classes, images: int, count: int) -> list[int]:
    """Return the classes of the images, one each, of those that the classifier has."""
    found = [int(label) for label in labels]
    if len(found) != images or not all(0 <= label < count for label in found):
        raise ValueError(f"need one class from 0 to {count - 1} for each of {images} images, got {found}")
    return found
