"""Aerial scenes: AID, NWPU-RESISC45 and UC Merced, which are folders of classes without a published split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gcplib.lab.data.layouts.listing import Layout, Listing, first, listing_of
from gcplib.lab.data.layouts.reading import SUFFIXES, scan


class _Kind(NamedTuple):
    """What tells a data set of scenes from others."""

    title: str
    places: tuple[str, ...]  # where its class folders may lie below the root
    example: str  # an image; where folders have capital letters, the names of images have not
    file: str  # pattern of an image's name without its suffix, after that of its folder
    images: int
    classes: int
    fractions: tuple[float, float]  # of the training images in the papers; the first one is the layout's own


_KINDS = {
    "aid": _Kind("AID", ("AID", ""), "Airport/airport_1.jpg", r"_[1-9]\d*", 10000, 30, (0.5, 0.2)),
    "nwpu": _Kind(
        "NWPU-RESISC45", ("NWPU-RESISC45", ""), "airplane/airplane_001.jpg", r"_\d{3}", 31500, 45, (0.2, 0.1)
    ),
    "ucm": _Kind(
        "UC Merced Land Use",
        ("UCMerced_LandUse/Images", "Images", ""),
        "agricultural/agricultural00.tif",
        r"\d{2}",
        2100,
        21,
        (0.8, 0.5),
    ),
}


def split_by_fraction(paths: Sequence[str], classes: Sequence[Hashable], fraction: float, seed: int = 0) -> list[str]:
    """Return ``train`` or ``test`` for every image: the same fraction of every class is for training.

    The images of a class are shuffled by a hash of their names and the seed, which no order of the folders and no
    release of a library changes. A class of two or more has images on both sides.

    Raises:
        ValueError: the fraction is not above 0 and below 1.

    >>> split_by_fraction(["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], [0, 0, 1, 1], 0.5).count("train")
    2
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction of the training images must be above 0 and below 1, got {fraction}")
    splits = ["test"] * len(paths)
    for label in dict.fromkeys(classes):
        places = [place for place, other in enumerate(classes) if other == label]
        places.sort(key=lambda place: hashlib.sha256(f"{seed}/{Path(paths[place]).name}".encode()).digest())
        for place in places[: min(max(round(fraction * len(places)), 1), max(len(places) - 1, 1))]:
            splits[place] = "train"
    return splits


def _find(kind: _Kind, root: Path) -> Path | None:
    """Return the folder of the class folders, which are told by the name of the first image in each."""
    for base in (root / place for place in kind.places if (root / place).is_dir()):
        folders = scan(base)[0]
        if folders and all(_fits(kind, base / folder) for folder in folders):
            return base
    return None


def _fits(kind: _Kind, folder: Path) -> bool:
    stem, images = folder.name.lower(), scan(folder)[1]
    if (stem != folder.name) != kind.example[0].isupper() or not images:
        return False
    return re.fullmatch(re.escape(stem) + kind.file, Path(images[0]).stem) is not None


def _read(kind: _Kind, fraction: float, root: Path) -> Listing:
    """Read class folders. There are no coarse classes, and the split is ours, of the fractions that the papers take."""
    base = next((root / place for place in kind.places if _holds_classes(root / place)), None)
    if base is None:
        raise ValueError(f"no class folders of images such as {kind.example} here or in {kind.places[0]}/")
    names, images = scan(base)
    if images:
        raise ValueError(f"{len(images)} images lie outside the class folders: {first(images)}")
    if empty := [name for name in names if not scan(base / name)[1]]:
        raise ValueError(f"class folders without images ({', '.join(sorted(SUFFIXES))}): {first(empty)}")
    if odd := [name for name in names if not _fits(kind, base / name)]:
        raise ValueError(
            f"the images of {len(odd)} class folders are not named like {kind.example}, so that this is not "
            f"{kind.title}: {first(odd)}"
        )
    paths, classes = zip(*((f"{name}/{image}", name) for name in names for image in scan(base / name)[1]), strict=True)
    rows = zip(paths, classes, split_by_fraction(paths, classes, fraction), strict=True)
    return listing_of(base, rows, {name: name for name in names})


def _holds_classes(base: Path) -> bool:
    return base.is_dir() and any(scan(base / folder)[1] for folder in scan(base)[0])


# Two layouts for each, such as aid and aid_20. Only the first can be guessed from the files, which tell no fraction.
LAYOUTS = {
    f"{name}_{100 * fraction:.0f}" if place else name: Layout(
        partial(_read, kind, fraction),
        f"{kind.title} as published, class folders such as {kind.example}, here or in {kind.places[0]}/; "
        f"a random {100 * fraction:.0f} % of every class, always the same, is trained on",
        (lambda root: None) if place else partial(_find, kind),
        {kind.title: {"images": kind.images, "classes": kind.classes}},
    )
    for name, kind in _KINDS.items()
    for place, fraction in enumerate(kind.fractions)
}
