"""Images from the user's disk, with the methods of Typefaces: listed at once, decoded on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gcplib.lab.data.dataset import Dataset
from gcplib.lab.data.decoding import CENTER, decode
from gcplib.lab.data.image_spec import ImagesSpec, digest_files, list_spec
from gcplib.lab.data.layouts import Listing

__all__ = ["Images", "ImagesSpec", "load_images"]


class Images(Dataset):
    """A data set on disk; made by ``load_images``. Images are in the order of the data set.

    Attributes:
        listing: the files, as the layout lists them; its splits are those from before validation images are held out.
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
        ValueError: the layout is another one (the message describes the expected one), a class has no training
            image to spare, or files changed since this spec was first used.
    """
    listing = list_spec(spec)
    if (now := digest_files(spec, listing)) != spec.digest:
        # Otherwise a run on the new files would be filed under the name of the old ones.
        raise ValueError(
            f"the files below {listing.base} changed while this session used them (digest {spec.digest}, now {now}); "
            "make the ImagesSpec again"
        )
    return Images(spec, listing)


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
