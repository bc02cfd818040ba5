"""Images from the user's disk, with the methods of Typefaces: listed at once, decoded on demand."""

from __future__ import annotations

import functools
import multiprocessing
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from gcplib.decoding import CENTER, DECODER, decode
from gcplib.lab.data.dataset import Dataset, Seed
from gcplib.lab.data.readers import DATASETS, Listing, list_images
from gcplib.lab.data.readers.listing import file_sizes, first, leave_out
from gcplib.lab.data.readers.splitting import split_off
from gcplib.lab.data.soundness import known_corrupt
from gcplib.lab.files import digest
from gcplib.lab.validation import Items, SpecError, one_of, specification

__all__ = ["Images", "ImagesSpec", "load_images"]

DatasetName = one_of("data set", DATASETS.keys)
Pixels = Annotated[int, Field(ge=32, le=2048)]
# The order says nothing, so that it must not tell two specs apart.
Skipped = Annotated[Items[str], AfterValidator(lambda paths: tuple(sorted(set(paths))))]


@specification
class ImagesSpec:
    """A data set on the user's disk, and how its images are cut to squares.

    Args:
        dataset: a name of ``gcplib.lab.data.readers.DATASETS``.
        root: its folder; empty for ``elpv`` as it is installed.
        pixels: side of an image.
        validation: fraction of the training images of every class that is held out, at least one and never all. It
            must not be 0, for models are chosen on these images, and not on the test set. Where the data set has
            validation images of its own, those are used and none are held out.
        seed: which are held out.
        resize: ``shorter`` scales the shorter side to ``pixels`` and crops the center (the papers, for birds),
            ``both`` scales both sides and changes the proportions (the papers, for cars).
        scale: to how many pixels they are scaled before a square of ``pixels`` is cropped (the papers, for aircraft:
            ``both``, 512, then 448); None for ``pixels``.
        skip: images to leave out, by their paths relative to ``Images.path``; for corrupt ones.
        test: fraction of the images of every class that is for test, at least one, where the data set has no split of
            its own; ``seed`` draws them. Files that are equal byte by byte are kept on one side.
        skip_corrupt: leave out every image that cannot be decoded, with a warning that counts them. All are decoded
            once for it.

    Raises:
        SpecError: a setting has the wrong type, or is out of its range.
    """

    dataset: DatasetName
    root: str
    pixels: Pixels = 448
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: Seed = 0
    resize: Literal["shorter", "both"] = "shorter"
    scale: Pixels | None = None
    skip: Skipped = ()
    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    skip_corrupt: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> ImagesSpec:
        problems = []
        if not self.root.strip() and not DATASETS[self.dataset].installed:
            problems.append(f"root is empty; give the folder: {DATASETS[self.dataset].expected}")
        if self.scale is not None and self.scale < self.pixels:
            problems.append(
                f"scale is {self.scale}, less than pixels, {self.pixels}: no such square can be cropped from the "
                "scaled image; give at least that, or None"
            )
        if problems:
            raise SpecError("ImagesSpec", problems)
        return self

    @property
    def has_room(self) -> bool:
        """Whether the square may be cropped at different places of an image."""
        return self.resize == "shorter" or (self.scale or 0) > self.pixels

    @functools.cached_property
    def digest(self) -> str:
        """The name of the set, a digest of these settings, the files with their sizes, and their labels.

        The root is left out, so that a data set that moves keeps its runs. The files are listed once for each spec.

        Raises:
            FileNotFoundError, NotADirectoryError, ValueError: the data set is not there, or not whole.
        """
        return _digest(self, listed(self))


class Images(Dataset):
    """A data set on disk; made by ``load_images``. Images are in the order of the data set.

    Attributes:
        listing: the files, as the data set lists them; its splits are those from before validation images are held out.
    """

    def __init__(self, spec: ImagesSpec, listing: Listing):
        super().__init__(spec, replace(listing, splits=_hold_out(spec, listing)))
        self.listing = listing

    def images(
        self, indices: int | Sequence[int] | np.ndarray, places: Sequence[Sequence[float]] | np.ndarray | None = None
    ) -> np.ndarray:
        """Return images, upright and in color: (n, H, W, 3) uint8.

        Args:
            indices: their numbers.
            places: where each is cropped, (n, 2) from 0 (top, left) to 1; None for the center.

        Raises:
            IndexError: a number is not in 0 ... len - 1.
            ValueError: a file cannot be decoded (the message names it), or the places are not n pairs from 0 to 1.
        """
        count = np.size(indices)
        spots = np.tile(CENTER, (count, 1)) if places is None else np.asarray(places, dtype=np.float64)
        if spots.shape != (count, 2) or not ((spots >= 0) & (spots <= 1)).all():
            raise ValueError(f"places has the shape {spots.shape}, or values not from 0 to 1; give {count} pairs")
        spec = self.spec

        def one(place: int, row: int) -> np.ndarray:
            path = self.path / self.listing.paths[row]
            return decode(path, spec.pixels, spec.resize, spec.scale, tuple(spots[place]))

        return self._decoded(indices, one)


def load_images(spec: ImagesSpec) -> Images:
    """Return the data set of these settings; its files are listed and looked for, not yet decoded.

    Raises:
        FileNotFoundError, NotADirectoryError: the root, or images that the data set lists, are missing.
        ValueError: it is another data set (the message describes the expected one), a class has no training
            image to spare, or files changed since this spec was first used.
    """
    listing = listed(spec)
    if (now := _digest(spec, listing)) != spec.digest:
        # Otherwise a run on the new files would be filed under the name of the old ones.
        raise ValueError(
            f"the files below {listing.base} changed while this session used them (digest {spec.digest}, now {now}); "
            "make the ImagesSpec again"
        )
    _warn(spec, listing)
    return Images(spec, listing)


def listed(spec: ImagesSpec, whole: bool = False) -> Listing:
    """Return the images of a spec, with a split for each.

    Args:
        spec: which.
        whole: take the corrupt ones, too, whatever the spec says; for a check.

    Raises:
        See ``load_images``.
    """
    listing = list_images(spec.dataset, spec.root, spec.skip)
    if spec.skip_corrupt and not whole:
        listing = leave_out(listing, list(known_corrupt(listing)))
    try:
        return split_off(listing, spec.test, spec.seed)
    except ValueError as error:
        raise ValueError(f"{listing.base}: {error}") from error


def _warn(spec: ImagesSpec, listing: Listing) -> None:
    """Tell once what a run goes without; processes that only decode say nothing again."""
    if multiprocessing.parent_process() is not None:
        return
    if listing.left_out and listing.left_out.pictures:
        text = "; ".join(listing.left_out.lines(missed_only=True))
        warnings.warn(f"not part of the data set in {listing.base}: {text}. See `gcplib data check`", stacklevel=3)
    if spec.skip_corrupt and (corrupt := known_corrupt(list_images(spec.dataset, spec.root, spec.skip))):
        warnings.warn(
            f"{len(corrupt)} images in {listing.base} cannot be decoded and are left out: {first(list(corrupt))}. "
            "`gcplib data check` says why",
            stacklevel=3,
        )


def _digest(spec: ImagesSpec, listing: Listing) -> str:
    """Return the name of these files under the settings of a spec."""
    settings = asdict(spec)
    # A data set may move. The files that are left tell what was skipped, as if those had never been there, and their
    # splits tell how many are for test.
    for name in ("root", "skip", "skip_corrupt", "test"):
        del settings[name]
    files = list(zip(listing.paths, file_sizes(listing), listing.classes, listing.splits, strict=True))
    return digest(
        {"spec": settings, "files": files, "names": listing.names, "groups": listing.groups, "reader": DECODER}
    )


def _hold_out(spec: ImagesSpec, listing: Listing) -> np.ndarray:
    """Return the split of every image, with validation images taken from the training images of each class."""
    splits, classes = np.array(listing.splits, dtype="U10"), np.array(listing.classes)
    if "validation" in listing.splits:
        return splits
    for number, name in enumerate(listing.names):
        places = np.flatnonzero((splits == "train") & (classes == number))
        if len(places) < 2:
            raise ValueError(
                f"the class {name!r} has 1 training image, and one must be held out for validation; add images, "
                "or leave the class out"
            )
        count = min(max(round(spec.validation * len(places)), 1), len(places) - 1)
        # A generator for each class: a class more or less does not change what the others hold out.
        splits[np.random.default_rng([spec.seed, number]).permutation(places)[:count]] = "validation"
    return splits
