"""What a data set on the user's disk is: its settings, the files that they stand for, and its name."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from gcplib.lab.data.layouts import LAYOUTS, Listing, file_sizes, leave_out, list_images
from gcplib.lab.files import digest

__all__ = ["READER", "ImagesSpec", "choice", "digest_files", "list_spec"]

# Raised when the same files would give other images or splits, so that old features and runs are not taken for new.
READER = 1

RESIZES = ("shorter", "both")
_PIXELS = (32, 2048)


@dataclass(frozen=True)
class ImagesSpec:
    """A data set on the user's disk, and how its images are cut to squares.

    Args:
        layout: a name of ``gcplib.lab.data.layouts.LAYOUTS``. root: its folder; empty for ``elpv`` as it is installed.
        pixels: side of an image.
        validation: share of the training images of every class that is held out, at least one and never all. It
            must not be 0, for models are chosen on these images, and not on the test set. Where the data set has
            validation images of its own, those are used and none are held out.
        seed: which are held out.
        resize: ``shorter`` scales the shorter side to ``pixels`` and crops the center (the papers, for birds),
            ``both`` scales both sides and changes the proportions (the papers, for cars).
        scale: to how many pixels they are scaled before a square of ``pixels`` is cropped (the papers, for aircraft:
            ``both``, 512, then 448); None for ``pixels``.
        skip: images to leave out, by their paths relative to ``Images.path``; for corrupt ones.

    Raises:
        TypeError: a setting has the wrong type. ValueError: a setting is out of its range.
    """

    layout: str
    root: str
    pixels: int = 448
    validation: float = 0.1
    seed: int = 0
    resize: str = "shorter"
    # Data sets and runs from before there were these two keep their names; see `digest_files` and `RunSpec.name`.
    scale: int | None = field(default=None, metadata={"later": True})
    skip: tuple[str, ...] = field(default=(), metadata={"later": True})

    def __post_init__(self) -> None:
        for name, known in (("layout", tuple(LAYOUTS)), ("resize", RESIZES)):
            choice(f"ImagesSpec.{name}", getattr(self, name), known)
        if not isinstance(self.root, str | os.PathLike):
            raise TypeError(f"ImagesSpec.root is {self.root!r}, a {type(self.root).__name__}; give a path")
        if not os.fspath(self.root).strip() and not LAYOUTS[self.layout].installed:
            raise ValueError(f"ImagesSpec.root is empty; give the folder: {LAYOUTS[self.layout].expected}")
        object.__setattr__(self, "root", os.fspath(self.root))
        for name, (low, high) in {"pixels": _PIXELS, "seed": (0, 2**32 - 1), "scale": _PIXELS}.items():
            value = getattr(self, name)
            if name == "scale" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"ImagesSpec.{name} is {value!r}, a {type(value).__name__}; give an integer")
            if not low <= value <= high:
                raise ValueError(f"ImagesSpec.{name} is {value}; give {low} to {high}")
            object.__setattr__(self, name, int(value))
        if self.scale is not None and self.scale < self.pixels:
            raise ValueError(
                f"ImagesSpec.scale is {self.scale}, less than pixels, {self.pixels}: no such square can be cropped "
                "from the scaled image; give at least that, or None"
            )
        if isinstance(self.skip, str) or not all(isinstance(path, str) for path in self.skip):
            raise TypeError(f"ImagesSpec.skip is {self.skip!r}; give a tuple of paths")
        # The order says nothing, so that it must not tell two specs apart.
        object.__setattr__(self, "skip", tuple(sorted(set(self.skip))))
        share = self.validation
        if isinstance(share, bool) or not isinstance(share, (int, float, np.integer, np.floating)):
            raise TypeError(f"ImagesSpec.validation is {share!r}, a {type(share).__name__}; give a share such as 0.1")
        if not 0 < share < 1:
            raise ValueError(
                f"ImagesSpec.validation is {share}; give the share of the training images to choose models with, "
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
        return digest_files(self, list_spec(self))


def list_spec(spec: ImagesSpec) -> Listing:
    """Return the images of a spec, without those that it skips.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: see ``list_images`` and ``leave_out``.
    """
    return leave_out(list_images(spec.layout, spec.root), spec.skip)


def digest_files(spec: ImagesSpec, listing: Listing) -> str:
    """Return the name of these files under the settings of a spec."""
    settings = asdict(spec)
    del settings["root"]
    # The files that are left tell what was skipped: the set is the same as if those had never been there.
    del settings["skip"]
    if spec.scale is None:
        del settings["scale"]
    files = list(zip(listing.paths, file_sizes(listing), listing.classes, listing.splits, strict=True))
    return digest(
        {"spec": settings, "files": files, "names": listing.names, "groups": listing.groups, "reader": READER}
    )


def choice(what: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"unknown {what} {value!r}; choose {', '.join(map(repr, allowed))}")
