"""Which pixels matter for the class scores of sets of eigenvalues: gradients at the pixels, occlusion, learned masks.

Images are ``(B, H, W, 3)`` of uint8; the maps ``(..., sets, h, w)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from gcplib.lab.analysis.spectral_scores import (
    Classes,
    Sets,
    class_matrices,
    differentiable_scores,
    nonzero_sets,
    set_scores,
)
from gcplib.lab.progress import track
from gcplib.models import Backbone, Head

__all__ = ["blurred", "extremal_map", "occlusion_map", "pixel_gradient_map"]

# Images in one pass of the backbone; larger batches were slower on a CPU.
BATCH = 16


def blurred(images: Tensor, fraction: float = 0.05) -> Tensor:
    """Return images ``(B, 3, H, W)`` under a Gaussian of ``fraction`` of their side: no letters, but the colors.

    What covers a part of an image must not look like something. The edges of a square of one color look like strokes
    to a network that reads letters; those between an image and its blur are much fainter.
    """
    side = min(images.shape[-2:])
    reach = min(math.ceil(3 * fraction * side), side - 1)
    found = gaussian_filter(images.cpu().numpy(), fraction * side, mode="mirror", radius=reach, axes=(-2, -1))
    return torch.from_numpy(found).to(images.device)


def _questions(
    backbone: Backbone, heads: Sequence[Head], images: int, sets: Sets, *both: Classes | None, size: int = 1
) -> list[list[list[int] | None]]:
    """Return the classes of ``size`` images each, and what they are against, after checks that need no image."""
    if backbone.training:
        raise ValueError("the backbone is in training mode, where batch norm mixes the images; call .eval() first")
    nonzero_sets(sets)
    for head in heads:
        class_matrices(head, *both, images)
    lists = [None if labels is None else [int(label) for label in labels] for labels in both]
    return [[labels and labels[start : start + size] for labels in lists] for start in range(0, images, size)]


def pixel_gradient_map(
    backbone: Backbone,
    head: Head,
    images: np.ndarray | Tensor,
    sets: Sets,
    classes: Classes,
    against: Classes | None = None,
) -> Tensor:
    """Return the largest size over colors of the gradient of the sets' scores at the pixels, ``(B, sets, H, W)``.

    Args:
        backbone, head, images, sets, classes, against: see ``set_scores``; the images are ``(B, H, W, 3)``.

    Raises:
        ValueError: as ``set_scores``. NonFiniteError: a cut between equal eigenvalues.

    Source: Simonyan et al., ICLR workshop 2014; the saliency map.
    """
    x = backbone.prepare(images)
    questions = _questions(backbone, [head], len(x), sets, classes, against)
    maps = []
    for image, question in track(zip(x.split(1), questions, strict=True), "gradients", len(x), "image"):
        scores = differentiable_scores(head, backbone(image.requires_grad_()), sets, *question)[0]
        slopes = [torch.autograd.grad(score, image, retain_graph=True)[0] for score in scores]
        maps.append(torch.cat(slopes).abs().amax(1))
    return torch.stack(maps)


@torch.no_grad()
def occlusion_map(
    backbone: Backbone,
    heads: Sequence[Head],
    images: np.ndarray | Tensor,
    sets: Sets,
    classes: Classes,
    against: Classes | None = None,
    window: int = 32,
    stride: int = 16,
) -> Tensor:
    """Return how much the sets' scores fall when a window of the image is blurred away.

    The mean over all windows that cover a cell of ``stride`` pixels. An image passes through the backbone once per
    window, for all sets and heads: the heads are trained on one frozen backbone.

    Args:
        backbone, images, sets, classes, against: as in ``pixel_gradient_map``.
        heads: such as those of several seeds.
        window: its side, a multiple of ``stride``.
        stride: steps of the window, a divisor of the images' sides.

    Returns:
        ``(heads, B, sets, h, w)``, a cell per step.

    Raises:
        ValueError: as ``set_scores``, or a window or stride that does not fit.

    Source: Zeiler and Fergus, ECCV 2014; by captum's ``Occlusion``, of a map of what is visible.
    """
    from captum.attr import Occlusion

    x = backbone.prepare(images)
    questions = _questions(backbone, heads, len(x), sets, classes, against)
    height, width = x.shape[-2:]
    if not 1 <= stride <= window <= min(height, width) or window % stride or height % stride or width % stride:
        raise ValueError(
            f"a window of {window} in steps of {stride} does not fit images of {height} x {width}: the stride must "
            "divide the window and both sides"
        )

    def scores(visible: Tensor, image: Tensor, cover: Tensor, question: list) -> Tensor:
        shown = functional.interpolate(visible, (height, width), mode="nearest")
        features = backbone(torch.lerp(cover, image, shown).contiguous(memory_format=torch.channels_last))
        of_all = [labels and labels * len(visible) for labels in question]
        return torch.cat([set_scores(head, features, sets, *of_all) for head in heads], 1)

    # What captum covers is a map of what is visible, a cell per step: its sums over windows then cost nothing.
    cells, steps = x.new_ones(1, 1, height // stride, width // stride), (1, window // stride, window // stride)
    items, maps = zip(x.split(1), blurred(x).split(1), questions, strict=True), []
    for image, cover, question in track(items, "occlusion", len(x), "image"):
        method = Occlusion(partial(scores, image=image, cover=cover, question=question))
        found = method.attribute(cells, steps, (1, 1, 1), baselines=0, perturbations_per_eval=BATCH)
        maps.append(found.view(len(heads), len(sets), *cells.shape[2:]))
    return torch.stack(maps, 1)


def extremal_map(
    backbone: Backbone,
    head: Head,
    images: np.ndarray | Tensor,
    sets: Sets,
    classes: Classes,
    against: Classes | None = None,
    area: float = 0.1,
    steps: int = 40,
) -> Tensor:
    """Return, for every set, the part of the image of a given area that alone keeps its score highest.

    A mask in [0, 1] on the grid of the features, bilinear in between, shows the image where it is 1 and its blur
    where it is 0, and is learned by Adam on the score. It starts equal everywhere: nothing is random. Fong et al. hold
    the area by a penalty on the sorted mask and smooth by a maximum of Gaussians; here a threshold holds the area
    exactly, ``m = sigmoid(a - t(a))`` with ``mean m = area``, and the coarse grid smooths.

    Args:
        backbone, head, images, sets, classes, against: as in ``pixel_gradient_map``.
        area: the fraction of the image to show.
        steps: of Adam, at a rate of 0.3.

    Returns:
        ``(B, sets, h, w)``, between 0 and 1, with the mean ``area``.

    Raises:
        ValueError: as ``set_scores``, or settings out of range. NonFiniteError: a cut between equal eigenvalues.

    Source: Fong, Patrick and Vedaldi, ICCV 2019.
    """
    if not 0 < area < 1 or steps < 1:
        raise ValueError(f"need an area between 0 and 1 and at least one step, got {area} and {steps}")
    x = backbone.prepare(images)
    questions = _questions(backbone, [head], len(x), sets, classes, against, size=BATCH)
    batches = zip(x.split(BATCH), blurred(x).split(BATCH), questions, strict=True)
    jobs = [(*batch, chosen) for batch in batches for chosen in sets]
    grid, maps = [side // backbone.stride for side in x.shape[2:]], []
    for image, cover, question, chosen in track(jobs, "learned masks", unit="set"):
        logits = x.new_zeros(len(image), 1, *grid, requires_grad=True)
        optimizer = torch.optim.Adam([logits], 0.3)
        for _ in range(steps):
            shown = functional.interpolate(_with_area(logits, area), x.shape[2:], mode="bilinear", align_corners=False)
            features = backbone(torch.lerp(cover, image, shown))
            loss = -differentiable_scores(head, features, [chosen], *question).sum()
            (logits.grad,) = torch.autograd.grad(loss, logits)
            optimizer.step()
        maps.append(_with_area(logits.detach(), area))
    return torch.cat([torch.cat(maps[i : i + len(sets)], 1) for i in range(0, len(maps), len(sets))])


def _with_area(logits: Tensor, area: float) -> Tensor:
    """Return ``sigmoid(a - t)`` of ``(B, 1, h, w)`` with t such that its mean is ``area``; differentiable through t."""
    values, offset = logits.detach(), math.log(area / (1 - area))
    # At these ends every entry is above, or below, the area.
    low, high = values.amin((2, 3), keepdim=True) - offset, values.amax((2, 3), keepdim=True) - offset
    for _ in range(60):
        middle = (low + high) / 2
        over = (values - middle).sigmoid().mean((2, 3), keepdim=True) > area
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    mask = (logits - middle).sigmoid()
    # One Newton step, of no length but with the right derivative: dt = mean(m' da) / mean(m').
    slope = (mask * (1 - mask)).detach()
    shift = (mask.mean((2, 3), keepdim=True) - area) / slope.mean((2, 3), keepdim=True)
    return (logits - middle - shift).sigmoid()
