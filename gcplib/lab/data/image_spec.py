"""What a data set on the user's disk is: its settings, the files that they stand for, and its name."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gcplib.lab.data.layouts import LAYOUTS, Listing, file_sizes, leave_out, list_images
from gcplib.lab.files import digest
from gcplib.lab.validation import Items, SpecError, one_of, specification, unknown

__all__ = ["READER", "ImagesSpec", "Seed", "choice", "digest_files", "list_spec"]

# Raised when the same files would give other images or splits, so that old features and runs are not taken for new.
READER = 1

Layout = one_of("layout", LAYOUTS.keys)
Pixels = Annotated[int, Field(ge=32, le=2048)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# The order says nothing, so that it must not tell two specs apart.
Skipped = Annotated[Items[str], AfterValidator(lambda paths: tuple(sorted(set(paths))))]


@specification
class ImagesSpec:
    """A data set on the user's disk, and how its images are cut to squares.

    Args:
        layout: a name of ``gcplib.lab.data.layouts.LAYOUTS``.
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

    Raises:
        SpecError: a setting has the wrong type, or is out of its range.
    """

    layout: Layout
    root: str
    pixels: Pixels = 448
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: Seed = 0
    resize: Literal["shorter", "both"] = "shorter"
    scale: Pixels | None = None
    skip: Skipped = ()

    @model_validator(mode="after")
    def _fits_together(self) -> ImagesSpec:
        problems = []
        if not self.root.strip() and not LAYOUTS[self.layout].installed:
            problems.append(f"root is empty; give the folder: {LAYOUTS[self.layout].expected}")
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
    # A data set may move. The files that are left tell what was skipped, as if those had never been there.
    del settings["root"], settings["skip"]
    files = list(zip(listing.paths, file_sizes(listing), listing.classes, listing.splits, strict=True))
    return digest(
        {"spec": settings, "files": files, "names": listing.names, "groups": listing.groups, "reader": READER}
    )


def choice(what: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in allowed:
        raise ValueError(unknown(what, value, allowed))
