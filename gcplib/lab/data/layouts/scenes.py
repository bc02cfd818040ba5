"""Aerial scenes: AID, NWPU-RESISC45 and UC Merced, which are folders of classes without a published split."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gcplib.lab.data.layouts.listing import Layout, Listing, first
from gcplib.lab.data.layouts.reading import SUFFIXES, scan

__all__ = ["LAYOUTS", "split_by_share"]


class _Kind(NamedTuple):
    """What tells a data set of scenes from others.

    Attributes:
        title: of the data set. places: where its class folders may lie below the root.
        file: pattern of an image's name without its suffix, after that of its folder. capitals: whether folders have
            capital letters, which the names of images have not. example: an image.
        published: the counts. shares: those of the training images in the papers; the first one is the layout's own.
    """

    title: str
    places: tuple[str, ...]
    file: str
    capitals: bool
    example: str
    published: dict[str, int]
    shares: tuple[float, ...]


_KINDS = {
    "aid": _Kind(
        "AID",
        ("AID", ""),
        r"_[1-9]\d*",
        True,
        "Airport/airport_1.jpg",
        {"images": 10000, "classes": 30},
        (0.5, 0.2),
    ),
    "nwpu": _Kind(
        "NWPU-RESISC45",
        ("NWPU-RESISC45", ""),
        r"_\d{3}",
        False,
        "airplane/airplane_001.jpg",
        {"images": 31500, "classes": 45},
        (0.2, 0.1),
    ),
    "ucm": _Kind(
        "UC Merced Land Use",
        ("UCMerced_LandUse/Images", "Images", ""),
        r"\d{2}",
        False,
        "agricultural/agricultural00.tif",
        {"images": 2100, "classes": 21},
        (0.8, 0.5),
    ),
}


def split_by_share(paths: list[str], classes: list[int], share: float, seed: int = 0) -> list[str]:
    """Return ``train`` or ``test`` for every image: the same share of every class is for training.

    The images of a class are shuffled by a hash of their names and the seed, which no order of the folders and no
    release of a library changes. A class of two or more has images on both sides.

    Raises:
        ValueError: the share is not above 0 and below 1.

    >>> split_by_share(["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], [0, 0, 1, 1], 0.5).count("train")
    2
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of the training images must be above 0 and below 1, got {share}")
    members: dict[int, list[int]] = {}
    for place, label in enumerate(classes):
        members.setdefault(label, []).append(place)
    splits = ["test"] * len(paths)
    for places in members.values():
        places.sort(key=lambda place: hashlib.sha256(f"{seed}/{Path(paths[place]).name}".encode()).digest())
        for place in places[: min(max(round(share * len(places)), 1), max(len(places) - 1, 1))]:
            splits[place] = "train"
    return splits


def _find(kind: _Kind, root: Path) -> Path | None:
    """Return the folder of the class folders, which are told by the name of the first image in each."""
    for base in (root / place for place in kind.places):
        folders = scan(base)[0] if base.is_dir() else []
        if folders and all(_fits(kind, base / folder) for folder in folders):
            return base
    return None


def _fits(kind: _Kind, folder: Path) -> bool:
    stem = folder.name.lower() if kind.capitals else folder.name
    images = scan(folder)[1]
    return (
        (folder.name != folder.name.lower()) == kind.capitals
        and bool(images)
        and re.fullmatch(re.escape(stem) + kind.file, Path(images[0]).stem) is not None
    )


def _read(kind: _Kind, share: float, root: Path) -> Listing:
    """Read class folders. There are no coarse classes, and the split is ours, of the shares that the papers take."""
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
    rows = [(f"{name}/{image}", label) for label, name in enumerate(names) for image in scan(base / name)[1]]
    paths, classes = map(list, zip(*rows, strict=True))
    return Listing(base, paths, classes, split_by_share(paths, classes, share), names, None)


def _holds_classes(base: Path) -> bool:
    return base.is_dir() and any(scan(base / folder)[1] for folder in scan(base)[0])


def _layouts() -> dict[str, Layout]:
    """Return the layout of every data set and share: ``aid`` and ``aid_20``, and so on.

    Only the first share of each can be guessed from the files, which tell no share.
    """
    made = {}
    for name, kind in _KINDS.items():
        for place, share in enumerate(kind.shares):
            percent = round(100 * share)
            made[name if place == 0 else f"{name}_{percent}"] = Layout(
                partial(_read, kind, share),
                f"{kind.title} as published, class folders such as {kind.example}, here or in {kind.places[0]}/; "
                f"a random {percent} % of every class, always the same, is trained on",
                partial(_find, kind) if place == 0 else lambda root: None,
                {kind.title: kind.published},
            )
    return made


LAYOUTS = _layouts()
