"""What training and notebooks ask of images, whichever kind they are: splits, labels of two kinds, and a figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from gcplib.lab.data.readers import SPLITS, Listing
from gcplib.lab.machine import cpu_count
from gcplib.lab.validation import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Dataset", "Seed", "choice"]

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Dataset:
    """Images with a split and a class each; the base of ``Typefaces`` and ``Images``.

    Args:
        spec: settings; they have ``pixels`` and a ``digest``.
        listing: what there is; ``base`` is the file or folder of the images.
        coarse: the coarse classes in the order of their numbers; None for that of the alphabet.
    """

    def __init__(self, spec: Any, listing: Listing, coarse: Sequence[str] | None = None):
        self.spec, self.path, self.digest = spec, listing.base, spec.digest
        self._splits, self._classes = np.asarray(listing.splits), np.asarray(listing.classes, dtype=np.int64)
        self._names, self._groups = listing.names, listing.groups
        self._coarse = sorted(set(self._groups or ())) if coarse is None else list(coarse)

    def __len__(self) -> int:
        return len(self._classes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images, {self.spec}, path={str(self.path)!r})"

    def _decoded(self, indices: int | Sequence[int] | np.ndarray, decode: Callable[[int, int], Any]) -> np.ndarray:
        """Return what ``decode(place, row)`` gives of each of the images; ``place`` counts within ``indices``."""
        rows = np.atleast_1d(np.asarray(indices, dtype=np.int64))
        if outside := [int(row) for row in rows if not 0 <= row < len(self)]:
            raise IndexError(f"no image {outside[0]}: this set has the images 0 to {len(self) - 1}")
        images = np.empty((len(rows), self.spec.pixels, self.spec.pixels, 3), dtype=np.uint8)

        def fill(place: int) -> None:
            images[place] = decode(place, rows[place])

        # Decoding releases the interpreter's lock, so threads use all cores.
        with ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(fill, range(len(rows))))
        return images

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
        return np.array([names.index(group) for group in self._groups], dtype=np.int64)[self._classes]

    def class_names(self, kind: str = "fine") -> list[str]:
        """Return the names of the classes in the order of their numbers; see ``labels``."""
        choice("kind of labels", kind, ("fine", "coarse"))
        if kind == "coarse" and self._groups is None:
            raise ValueError(
                f"{self.path} has no coarse labels; to give it some, put the class folders into folders of the coarse "
                "classes, in the dataset 'folder': train/<coarse>/<class>/<image>.jpg and so on"
            )
        return list(self._names if kind == "fine" else self._coarse)

    def show(self, split: str = "test", n: int = 24, labels: str = "fine", seed: int = 0) -> Figure:
        """Return a figure of ``n`` images of a split, drawn at random, each under the name of its class."""
        from matplotlib.figure import Figure

        places = self.indices(split)
        if n < 1:
            raise ValueError(f"n is {n}; give the number of images to show, 1 to {len(places)}")
        places = np.sort(np.random.default_rng(seed).choice(places, size=min(n, len(places)), replace=False))
        columns = min(8, math.ceil(math.sqrt(len(places) * 1.5)))
        rows = math.ceil(len(places) / columns)
        # Without pyplot, which would show it a second time in a notebook, and take the caller's backend for a file.
        figure = Figure(figsize=(1.65 * columns, 1.85 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        names, classes = self.class_names(labels), self.labels(labels)
        for axis in axes.flat:
            axis.axis("off")
        for axis, place, image in zip(axes.flat, places, self.images(places), strict=False):
            axis.imshow(image)
            axis.set_title(textwrap.fill(names[classes[place]], 20), fontsize=9)
        return figure


def choice(what: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in allowed:
        raise ValueError(unknown(what, value, allowed))
