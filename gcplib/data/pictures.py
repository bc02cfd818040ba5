"""Pictures from the user's disk, with the methods of Typefaces: listed at once, decoded on demand."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from gcplib.data.layouts import LAYOUTS, Listing, file_sizes, list_pictures
from gcplib.data.rendering import SPLITS
from gcplib.data.typefaces import Typefaces
from gcplib.files import digest

__all__ = ["Pictures", "PicturesSpec", "load_pictures"]

# Raised when the same files would give other pictures or splits, so that old features and runs are not taken for new.
READER = 1

RESIZES = ("shorter", "both")
_PIXELS = (32, 2048)


@dataclass(frozen=True)
class PicturesSpec:
    """A data set on the user's disk, and how its pictures are cut to squares.

    Args:
        layout: ``cub`` or ``folder``; see ``gcplib.data.layouts``. root: its folder.
        pixels: side of a picture.
        validation: share of the training pictures of every class that is held out, at least one and never all. It
            must not be 0, for models are chosen on these pictures, and not on the test set. Where the data set has
            validation pictures of its own, those are used and none are held out.
        seed: which are held out.
        resize: ``shorter`` scales the shorter side to ``pixels`` and crops the centre (the papers, for birds),
            ``both`` scales both sides and changes the proportions (the papers, for cars).

    Raises:
        TypeError: a setting has the wrong type. ValueError: a setting is out of its range.
    """

    layout: str
    root: str
    pixels: int = 448
    validation: float = 0.1
    seed: int = 0
    resize: str = "shorter"

    def __post_init__(self) -> None:
        for name, known in (("layout", tuple(LAYOUTS)), ("resize", RESIZES)):
            _choice(f"PicturesSpec.{name}", getattr(self, name), known)
        if not isinstance(self.root, str | os.PathLike):
            raise TypeError(f"PicturesSpec.root is {self.root!r}, a {type(self.root).__name__}; give a path")
        if not os.fspath(self.root).strip():
            raise ValueError(f"PicturesSpec.root is empty; give the folder: {LAYOUTS[self.layout].expected}")
        object.__setattr__(self, "root", os.fspath(self.root))
        for name, (low, high) in {"pixels": _PIXELS, "seed": (0, 2**32 - 1)}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"PicturesSpec.{name} is {value!r}, a {type(value).__name__}; give an integer")
            if not low <= value <= high:
                raise ValueError(f"PicturesSpec.{name} is {value}; give {low} to {high}")
            object.__setattr__(self, name, int(value))
        share = self.validation
        if isinstance(share, bool) or not isinstance(share, (int, float, np.integer, np.floating)):
            raise TypeError(f"PicturesSpec.validation is {share!r}, a {type(share).__name__}; give a share such as 0.1")
        if not 0 < share < 1:
            raise ValueError(
                f"PicturesSpec.validation is {share}; give the share of the training pictures to choose models with, "
                "more than 0 and less than 1"
            )
        object.__setattr__(self, "validation", float(share))

    @functools.cached_property
    def digest(self) -> str:
        """The name of the set: a digest of these settings, the files with their sizes, and their labels.

        The root is left out, so that a data set that moves keeps its runs. The files are listed once for each spec.

        Raises:
            FileNotFoundError, NotADirectoryError, ValueError: the data set is not there, or not whole.
        """
        return _digest(self, list_pictures(self.layout, self.root))


class Pictures:
    """A data set on disk, with the methods of ``Typefaces``; made by ``load_pictures``.

    Pictures are in the order of the data set; `indices` tells the splits.
    """

    def __init__(self, spec: PicturesSpec, listing: Listing):
        self.spec = spec
        self.path = listing.base
        self.digest = spec.digest
        self._listing = listing
        self._classes = np.array(listing.classes, dtype=np.int64)
        self._splits = _hold_out(spec, listing)

    def __len__(self) -> int:
        return len(self._listing.paths)

    def __repr__(self) -> str:
        return f"Pictures({len(self)} pictures, {self.spec})"

    def images(self, indices: int | Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the pictures at these places, upright and in colour: (n, H, W, 3) uint8.

        Raises:
            IndexError: a place is not in 0 ... len - 1. ValueError: a file cannot be decoded; the message names it.
        """
        places = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if outside := [int(place) for place in places if not 0 <= place < len(self)]:
            raise IndexError(f"no picture {outside[0]}: this set has the pictures 0 to {len(self) - 1}")
        pixels = self.spec.pixels
        pictures = np.empty((len(places), pixels, pixels, 3), dtype=np.uint8)

        def decode(row: int) -> None:
            pictures[row] = _decode(self.path / self._listing.paths[places[row]], pixels, self.spec.resize)

        # Decoding releases the interpreter's lock, so threads use all cores.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(decode, range(len(places))))
        return pictures

    def indices(self, split: str) -> np.ndarray:
        """Return the places of the pictures of ``"train"``, ``"validation"`` or ``"test"``: (n,) int64."""
        _choice("split", split, SPLITS)
        return np.flatnonzero(self._splits == split)

    def labels(self, kind: str = "fine") -> np.ndarray:
        """Return the class of every picture: (n,) int64.

        Raises:
            ValueError: ``coarse`` labels of a data set that has none, or another kind than ``fine`` and ``coarse``.
        """
        names = self.class_names(kind)
        if kind == "fine":
            return self._classes.copy()
        return np.array([names.index(group) for group in self._listing.groups], dtype=np.int64)[self._classes]

    def class_names(self, kind: str = "fine") -> list[str]:
        """Return the names of the classes in the order of their numbers; see ``labels``."""
        _choice("kind of labels", kind, ("fine", "coarse"))
        if kind == "fine":
            return list(self._listing.names)
        if self._listing.groups is None:
            raise ValueError(
                f"{self.path} has no coarse labels; to give it some, put the class folders into folders of the coarse "
                f"classes: {LAYOUTS[self.spec.layout].expected}"
            )
        return sorted(set(self._listing.groups))

    # The figure asks for nothing but the methods above.
    show = Typefaces.show


def load_pictures(spec: PicturesSpec) -> Pictures:
    """Return the data set of these settings; its files are listed and looked for, not yet decoded.

    Raises:
        FileNotFoundError, NotADirectoryError: the root, or pictures that the data set lists, are missing.
        ValueError: the layout is another one (the message describes the expected one), a class has no training
            picture to spare, or files changed since this spec was first used.
    """
    listing = list_pictures(spec.layout, spec.root)
    if (now := _digest(spec, listing)) != spec.digest:
        # Otherwise a run on the new files would be filed under the name of the old ones.
        raise ValueError(
            f"the files below {listing.base} changed while this session used them (digest {spec.digest}, now {now}); "
            "make the PicturesSpec again"
        )
    return Pictures(spec, listing)


def _digest(spec: PicturesSpec, listing: Listing) -> str:
    settings = asdict(spec)
    del settings["root"]
    files = list(zip(listing.paths, file_sizes(listing), listing.classes, listing.splits, strict=True))
    return digest(
        {"spec": settings, "files": files, "names": listing.names, "groups": listing.groups, "reader": READER}
    )


def _hold_out(spec: PicturesSpec, listing: Listing) -> np.ndarray:
    """Return the split of every picture, with validation pictures taken from the training pictures of each class."""
    splits, classes = np.array(listing.splits, dtype="U10"), np.array(listing.classes)
    if "validation" in listing.splits:
        return splits
    for number, name in enumerate(listing.names):
        places = np.flatnonzero((splits == "train") & (classes == number))
        if len(places) < 2:
            raise ValueError(
                f"the class {name!r} has 1 training picture, and one must be held out for validation; add pictures, "
                "or leave the class out"
            )
        count = min(max(round(spec.validation * len(places)), 1), len(places) - 1)
        # A generator for each class: a class more or less does not change what the others hold out.
        splits[np.random.default_rng([spec.seed, number]).permutation(places)[:count]] = "validation"
    return splits


def _decode(path: Path, pixels: int, resize: str) -> np.ndarray:
    """Return a picture file as (pixels, pixels, 3) uint8."""
    try:
        with Image.open(path) as file:
            picture = _to_rgb(ImageOps.exif_transpose(file))
        short, size = min(picture.size), (pixels, pixels)
        if resize == "shorter":
            size = tuple(side * pixels // short for side in picture.size)
        # Bilinear, as in the papers' code; Pillow widens the filter when it shrinks a picture.
        picture = picture.resize(size, Image.Resampling.BILINEAR)
        left, top = (round((side - pixels) / 2) for side in size)
        return np.asarray(picture.crop((left, top, left + pixels, top + pixels)))
    except Exception as error:  # damaged bytes raise whatever the decoder meets first
        raise ValueError(f"{path} cannot be read as a picture: {type(error).__name__}: {error}") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        # Pillow would clip them to white.
        raise ValueError(f"its mode {picture.mode} has more than 8 bits a channel; save it with 8")
    if picture.has_transparency_data:
        # On white, as a viewer shows it: what lies under transparent pixels is often black or noise.
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def _choice(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"unknown {what} {value!r}; choose {', '.join(map(repr, allowed))}")
