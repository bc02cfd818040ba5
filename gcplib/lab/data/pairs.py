"""Counterfactual pairs: the same scene in two typefaces, and the pixels in which they differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcplib.lab.data import rendering
from gcplib.lab.data.fonts import check_installed, find_family
from gcplib.lab.data.typefaces import TypefacesSpec
from gcplib.lab.data.words import SPLITS

__all__ = ["Pair", "pair"]


@dataclass(frozen=True, eq=False)
class Pair:
    """The same words, layout, background and noise in two families: a counterfactual pair.

    ``first`` and ``second`` are (H, W, 3) uint8; ``mask`` (H, W) bool marks the pixels that differ, which are the
    ground truth for attribution; ``ink`` (H, W) bool those under a letter of either family, before the blur;
    ``text`` are the words; ``families`` the two names.
    """

    first: np.ndarray
    second: np.ndarray
    mask: np.ndarray
    ink: np.ndarray
    text: str
    families: tuple[str, str]


def pair(first: str, second: str, spec: TypefacesSpec | None = None, seed: int = 0) -> Pair:
    """Draw the same scene, with words of the test split, in two families.

    The letters have one x-height, and every line one origin. The images are not compressed, so pixels away from
    the letters are equal. ``seed`` picks the scene; ``spec`` gives the size of the images.

    Raises:
        ValueError: a family is not pinned (the message lists near matches), or both are the same.
        MissingFamilyError: a family is not installed; the message holds the pip line.
    """
    spec = TypefacesSpec() if spec is None else spec
    families = find_family(first), find_family(second)
    if families[0] == families[1]:
        raise ValueError(f"a pair needs two different families; both are {families[0].name!r}")
    check_installed(families)
    # Four numbers, as `rendering.scene_rng` takes, with a split that does not exist: no image of the set recurs.
    rng = np.random.default_rng([spec.seed, len(SPLITS), 0, seed])
    scene = rendering.draw_scene(rng, "test", spec.pixels)
    inks = rendering.place_text(scene, families)
    first, second = (rendering.paint(scene, ink) for ink in inks)
    mask = (first != second).any(axis=-1)
    names = families[0].name, families[1].name
    return Pair(first, second, mask, np.maximum(*inks) > 0, scene.text, names)
