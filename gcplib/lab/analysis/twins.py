"""Images beside their twins in the typeface most confused with their own: where evidence lies, and where it should."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from gcplib.lab.analysis.localization import auc, energy_inside, enlarge, near
from gcplib.lab.analysis.spread import attention_entropy
from gcplib.lab.data import Pair, TypefacesSpec, pair

__all__ = ["confused_pairs", "confused_twins", "draw_evidence", "twin_scores"]


def confused_pairs(predictions: Iterable[pd.DataFrame], classes: int) -> list[tuple[int, int]]:
    """Return pairs of classes, those that are confused most first, each class in one pair at most.

    Args:
        predictions: of several runs, with the columns ``label`` and ``prediction``.
        classes: their number.

    >>> confused_pairs([pd.DataFrame({"label": [0, 2, 2], "prediction": [0, 1, 1]})], 4)
    [(1, 2), (0, 3)]
    """
    counts = np.zeros((classes, classes))
    for table in predictions:
        np.add.at(counts, (table.label, table.prediction), 1)
    pairs: list[tuple[int, int]] = []
    both_ways = np.triu(counts + counts.T, 1)
    for place in np.argsort(-both_ways, axis=None, kind="stable"):
        one, other = divmod(int(place), classes)
        if one < other and not {one, other} & {label for found in pairs for label in found}:
            pairs.append((one, other))
    return pairs


def confused_twins(
    predictions: Iterable[pd.DataFrame], names: Sequence[str], look: TypefacesSpec, count: int
) -> list[Pair]:
    """Return images with their twins in the typeface that is confused most with their own, pair after pair.

    Args:
        predictions: see ``confused_pairs``.
        names: of the typefaces, by class.
        look: how images are drawn.
        count: of the pairs; there are several of the same two typefaces where it is large.
    """
    pairs = confused_pairs(predictions, len(names))
    chosen = [pairs[i % len(pairs)] for i in range(count)]
    return [pair(names[one], names[other], look, seed=i) for i, (one, other) in enumerate(chosen)]


def twin_scores(heat: Tensor, twin: Pair) -> dict[str, float] | None:
    """Return in percent how well a map of evidence ``(h, w)`` finds what differs; None where it has none at all.

    Returns:
        ``auc``, the area under ROC, and ``inside``, the fraction of the evidence on pixels that differ over that of an
        even map, both of the pixels near letters; ``on_letters``, the entropy over the positions that hold a letter.
    """
    pixels = len(twin.ink)
    big, text = enlarge(heat, pixels, pixels), near(twin.ink, pixels // 28)
    cells = adaptive_max_pool2d(torch.tensor(twin.ink)[None].float(), heat.shape)[0] > 0
    if not (heat[cells].max() > 0 and big[text].max() > 0):
        return None
    inside = energy_inside(big, twin.mask, text, relative=True)
    found = {"auc": auc(big, twin.mask, text), "inside": inside, "on_letters": attention_entropy(heat, cells)}
    return {name: 100 * float(value) for name, value in found.items()}


def draw_evidence(ax: Axes, heat: Tensor, twin: Pair) -> None:
    """Draw a map of evidence over an image, orange for it and purple against it, and lines around what differs."""
    big = enlarge(heat, *twin.mask.shape)
    ax.imshow(twin.first.mean(-1), cmap="gray", vmin=-150, vmax=300)
    ax.imshow(big, cmap="PuOr_r", vmin=-abs(big).max(), vmax=abs(big).max(), alpha=0.65)
    ax.contour(twin.mask, levels=[0.5], colors="k", linewidths=0.4)
    ax.set(xticks=[], yticks=[])
