"""Images from the user's disk, with the methods of Typefaces: listed at once, decoded on demand."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gcplib.lab.data.decoding import CENTER, cores, decode
from gcplib.lab.data.image_spec import ImagesSpec, choice, digest_files, list_spec
from gcplib.lab.data.layouts import LAYOUTS, Listing
from gcplib.lab.data.rendering import SPLITS
from gcplib.lab.data.typefaces import Typefaces

__all__ = ["Images", "ImagesSpec", "load_images"]


class Images:
    """A data set on disk, with the methods of ``Typefaces``; made by ``load_images``.

    Images are in the order of the data set; `indices` tells the splits.
    """

    def __init__(self, spec: ImagesSpec, listing: Listing):
        self.spec = spec
        self.path = listing.base
        self.digest = spec.digest
        self._listing = listing
        self._classes = np.array(listing.classes, dtype=np.int64)
        self._splits = _hold_out(spec, listing)

    def __len__(self) -> int:
        return len(self._listing.paths)

    def __repr__(self) -> str:
        return f"Images({len(self)} images, {self.spec})"

    def images(
        self, indices: int | Sequence[int] | np.ndarray, places: Sequence[Sequence[float]] | np.ndarray | None = None
    ) -> np.ndarray:
        """Return images, upright and in color: (n, H, W, 3) uint8.

        Args:
            indices: their numbers. places: where each is cropped, (n, 2) from 0 (top, left) to 1; None for the center.

        Raises:
            IndexError: a number is not in 0 ... len - 1.
            ValueError: a file cannot be decoded (the message names it), or the places are not n pairs from 0 to 1.
        """
        rows = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if outside := [int(row) for row in rows if not 0 <= row < len(self)]:
            raise IndexError(f"no image {outside[0]}: this set has the images 0 to {len(self) - 1}")
        spots = np.tile(CENTER, (len(rows), 1)) if places is None else np.asarray(places, dtype=np.float64)
        if spots.shape != (len(rows), 2) or not ((spots >= 0) & (spots <= 1)).all():
            raise ValueError(
                f"places has the shape {spots.shape}, or values that are not from 0 to 1; give {len(rows)} pairs"
            )
        spec = self.spec
        images = np.empty((len(rows), spec.pixels, spec.pixels, 3), dtype=np.uint8)

        def fill(n: int) -> None:
            path = self.path / self._listing.paths[rows[n]]
            images[n] = decode(path, spec.pixels, spec.resize, spec.scale, tuple(spots[n]))

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(fill, range(len(rows))))
        return images

    @property
    def listing(self) -> Listing:
        """The files, as the layout lists them; its splits are those from before validation images are held out."""
        return self._listing

    def indices(self, split: str) -> np.ndarray:
        """Return the places of the images of ``"train"``, ``"validation"`` or ``"test"``: (n,) int64."""
        choice("split", split, SPLITS)
        return np.flatnonzero(self._splits == split)

    def labels(self, kind: str = "fine") -> np.ndarray:
        """Return the class of every image: (n,) int64.

        Raises:
            ValueError: ``coarse`` labels of a data set that has none, or another kind than ``fine`` and ``coarse``.
        """
        names = self.class_names(kind)
        if kind == "fine":
            return self._classes.copy()
        return np.array([names.index(group) for group in self._listing.groups], dtype=np.int64)[self._classes]

    def class_names(self, kind: str = "fine") -> list[str]:
        """Return the names of the classes in the order of their numbers; see ``labels``."""
        choice("kind of labels", kind, ("fine", "coarse"))
        if kind == "fine":
            return list(self._listing.names)
        if self._listing.groups is None:
            raise ValueError(
                f"{self.path} has no coarse labels; to give it some, put the class folders into folders of the coarse "
                f"classes, in the layout 'folder': {LAYOUTS['folder'].expected}"
            )
        return sorted(set(self._listing.groups))

    # The figure asks for nothing but the methods above.
    show = Typefaces.show


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
