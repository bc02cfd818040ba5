"""Aerial scenes: AID, NWPU-RESISC45 and UC Merced, which are folders of classes without a published split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gcplib.lab.data.readers.listing import Listing, Reader, first, listing_of
from gcplib.lab.data.readers.reading import flat_classes, scan


class _Kind(NamedTuple):
    """What tells a data set of scenes from others."""

    title: str
    folder: str  # of its class folders, as published; the root may be any part of it
    example: str  # an image; where folders have capital letters, the names of images have not
    file: str  # pattern of an image's name without its suffix, after that of its folder
    images: int
    classes: int
    fractions: tuple[float, float]  # of the training images in the papers; the first one counts where none is said


_KINDS = {
    "aid": _Kind("AID", "AID", "Airport/airport_1.jpg", r"_[1-9]\d*", 10000, 30, (0.5, 0.2)),
    "nwpu": _Kind("NWPU-RESISC45", "NWPU-RESISC45", "airplane/airplane_001.jpg", r"_\d{3}", 31500, 45, (0.2, 0.1)),
    "ucm": _Kind(
        "UC Merced Land Use",
        "UCMerced_LandUse/Images",
        "agricultural/agricultural00.tif",
        r"\d{2}",
        2100,
        21,
        (0.8, 0.5),
    ),
}


def training_part(paths: Sequence[str], fraction: float) -> set[str]:
    """Return the images of a class that are for training; a class of two or more keeps some for test.

    They are shuffled by a hash of their names, which no order of the folders and no release of a library changes.

    Raises:
        ValueError: the fraction is not above 0 and below 1.

    >>> len(training_part(["a/1.jpg", "a/2.jpg", "a/3.jpg", "a/4.jpg"], 0.5))
    2
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction of the training images must be above 0 and below 1, got {fraction}")
    shuffled = sorted(paths, key=lambda path: hashlib.sha256(f"0/{Path(path).name}".encode()).digest())
    return set(shuffled[: min(max(round(fraction * len(paths)), 1), max(len(paths) - 1, 1))])


def _base(kind: _Kind, root: Path) -> Path | None:
    """Return the first place that holds folders of images."""
    bases = [root / place for place in (kind.folder, Path(kind.folder).name, "") if (root / place).is_dir()]
    return next((base for base in bases if any(scan(base / folder)[1] for folder in scan(base)[0])), None)


def _find(kind: _Kind, root: Path) -> Path | None:
    """Return the folder of the class folders, which are told by the name of the first image in each."""
    base = _base(kind, root)
    return base if base and all(_fits(kind, base / folder) for folder in scan(base)[0]) else None


def _fits(kind: _Kind, folder: Path) -> bool:
    stem, images = folder.name.lower(), scan(folder)[1]
    if (stem != folder.name) != kind.example[0].isupper() or not images:
        return False
    return re.fullmatch(re.escape(stem) + kind.file, Path(images[0]).stem) is not None


def _read(kind: _Kind, fraction: float, root: Path) -> Listing:
    """Read class folders. There are no coarse classes, and the split is ours, of the fractions that the papers take."""
    base = _base(kind, root)
    if base is None:
        raise ValueError(f"no class folders of images such as {kind.example} here or in {kind.folder}/")
    classes = flat_classes(base)
    if odd := [name for name in classes if not _fits(kind, base / name)]:
        raise ValueError(
            f"the images of {len(odd)} class folders are not named like {kind.example}, so that this is not "
            f"{kind.title}: {first(odd)}"
        )
    rows = []
    for name, paths in classes.items():
        train = training_part(paths, fraction)
        rows += [(path, name, "train" if path in train else "test") for path in paths]
    return listing_of(base, rows, {name: name for name in classes})


# Two data sets for each, such as aid and aid_20. Only the first can be guessed from the files, which tell no fraction.
DATASETS = {
    f"{name}_{100 * fraction:.0f}" if place else name: Reader(
        partial(_read, kind, fraction),
        f"{kind.title} as published, class folders such as {kind.example}, here or in {kind.folder}/; "
        f"a random {100 * fraction:.0f} % of every class, always the same, is trained on",
        (lambda root: None) if place else partial(_find, kind),
        {kind.title: {"images": kind.images, "classes": kind.classes}},
    )
    for name, kind in _KINDS.items()
    for place, fraction in enumerate(kind.fractions)
}
