"""How well maps find the pixels that make the difference: scores against the ground truth of counterfactual pairs.

Maps ``(..., h, w)`` at the resolution of features are enlarged to the images first (``enlarge``). Positive values are
evidence for the class. The area under ROC takes a map as it is, negative below none; energy and pointing game take its
positive part. To ask where a set looks whatever it says, pass the absolute map.

Ground truth lies on letters, and most maps find letters. So every score can be taken ``within`` some pixels, such as
the letters, where a map that finds text and nothing else is at chance. In their neighborhood (``near``) such a map
still gains a little, because its values fall off away from the letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["auc", "energy_inside", "enlarge", "near", "pointing_game", "score_maps"]


def enlarge(maps: Tensor, height: int, width: int) -> np.ndarray:
    """Return maps ``(..., h, w)`` bilinearly at the size of the images, ``(..., height, width)``, float64."""
    flat = maps.detach().double().reshape(-1, 1, *maps.shape[-2:])
    big = functional.interpolate(flat, (height, width), mode="bilinear", align_corners=False)
    return big.reshape(*maps.shape[:-2], height, width).cpu().numpy()


def near(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return the pixels ``(H, W)`` at most ``reach`` pixels from one of the mask.

    >>> near(np.array([[True, False, False]]), 1)
    array([[ True,  True, False]])
    """
    mask = np.asarray(mask, dtype=bool)
    return ndimage.distance_transform_edt(~mask) <= reach if mask.any() else mask


def _pixels(values: ArrayLike, mask: ArrayLike | None, within: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Return maps ``(..., n)`` and mask ``(n,)`` over the pixels that count."""
    if mask is None:
        raise ValueError("no mask: an image without a counterfactual has no ground truth; make a pair of it first")
    values, mask = np.asarray(values, dtype=float), np.asarray(mask, dtype=bool)
    if mask.ndim != 2 or values.shape[-2:] != mask.shape:
        raise ValueError(f"the map {values.shape} does not fit the mask {mask.shape}; enlarge the map to (..., H, W)")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} values of the map {values.shape} are not finite")
    chosen = np.ones_like(mask) if within is None else np.asarray(within, dtype=bool)
    if chosen.shape != mask.shape:
        raise ValueError(f"within has shape {chosen.shape}, the mask {mask.shape}")
    inside = mask[chosen]
    if not inside.any() or inside.all():
        what = "no pixel differs" if not inside.any() else "every pixel differs"
        raise ValueError(f"{what} of the {inside.size} that count: without a counterfactual there is no ground truth")
    return values[..., chosen], inside


def auc(values: ArrayLike, mask: ArrayLike, within: ArrayLike | None = None) -> np.ndarray:
    """Return the area under ROC of maps ``(..., H, W)`` as scores for the pixels of the mask ``(H, W)``: ``(...)``.

    The probability that a pixel of the mask has the larger value than one outside, ties counted half; 0.5 is chance.

    Args:
        values: the maps.
        mask: the pixels to find.
        within: only these pixels count, ``(H, W)``.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or nothing or everything in the mask.

    Source: Mann and Whitney, 1947.

    >>> float(auc([[3.0, 2.0, 1.0]], [[True, False, True]]))
    0.5
    """
    values, inside = _pixels(values, mask, within)
    ranks, hits = stats.rankdata(values, axis=-1), int(inside.sum())
    return (ranks[..., inside].sum(-1) / hits - (hits + 1) / 2) / (inside.size - hits)


def energy_inside(
    values: ArrayLike, mask: ArrayLike, within: ArrayLike | None = None, relative: bool = False
) -> np.ndarray:
    """Return the fraction of the positive part of maps ``(..., H, W)`` that lies in the mask ``(H, W)``: ``(...)``.

    Args:
        values: the maps.
        mask: the pixels to find.
        within: only these pixels count, ``(H, W)``.
        relative: divide by the mask's fraction of them, so that 1 is chance.

    Raises:
        ValueError: as ``auc``, or a map without a positive value.

    Source: the energy-based pointing game of Wang et al., Score-CAM, 2020.

    >>> float(energy_inside([[3.0, -2.0, 1.0]], [[True, False, False]]))
    0.75
    """
    values, inside = _pixels(values, mask, within)
    positive = values.clip(min=0)
    total = positive.sum(-1)
    if (total == 0).any():
        raise ValueError(f"{int((total == 0).sum())} of {total.size} maps have no positive value: no energy to share")
    return positive[..., inside].sum(-1) / total / (inside.mean() if relative else 1)


def pointing_game(
    values: ArrayLike, mask: ArrayLike, tolerance: int = 0, within: ArrayLike | None = None
) -> np.ndarray:
    """Return whether the largest value of maps ``(..., H, W)`` is within ``tolerance`` pixels of the mask: ``(...)``.

    Chance is the fraction of ``near(mask, tolerance)``, which for masks of text is large.

    Raises:
        ValueError: as ``auc``.

    Source: Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018 (tolerance 15).
    """
    values, inside = _pixels(values, None if mask is None else near(mask, tolerance), within)
    return inside[values.argmax(-1)]


def score_maps(
    maps: Tensor, sets: Sequence[str], differs: np.ndarray, inside: np.ndarray, step: int = 4
) -> pd.DataFrame:
    """Return how well maps find the pixels that differ: one row per seed, image and set, columns between 0 and 1.

    ``auc`` is that of the magnitude, over the whole image; ``auc_within`` the same near the letters; ``auc_signed``
    that of the map as it is, near the letters; ``pointing`` and ``energy`` are of the magnitude, near the letters.

    Args:
        maps: ``(seeds, images, sets, h, w)``.
        sets: their names.
        differs: the ground truth ``(images, H, W)``.
        inside: the neighborhood of the letters ``(images, H, W)``.
        step: every how many pixels of a row and column count; maps are far coarser than images.

    Raises:
        ValueError: as ``auc`` and ``energy_inside``.
    """
    import pandas as pd

    tables = []
    for seed, image in np.ndindex(*maps.shape[:2]):
        mask, near_letters = (pixels[image, ::step, ::step] for pixels in (differs, inside))
        signed = enlarge(maps[seed, image], *differs.shape[1:])[:, ::step, ::step]
        found = {"auc": auc(abs(signed), mask), "auc_within": auc(abs(signed), mask, near_letters)}
        found["auc_signed"] = auc(signed, mask, near_letters)
        found["pointing"] = pointing_game(abs(signed), mask, within=near_letters)
        found["energy"] = energy_inside(abs(signed), mask, near_letters)
        scores = {name: np.asarray(value, float) for name, value in found.items()}
        tables.append(pd.DataFrame(scores | {"seed": seed, "image": image, "set": list(sets)}))
    return pd.concat(tables, ignore_index=True)
