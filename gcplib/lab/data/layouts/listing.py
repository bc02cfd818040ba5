"""What a reader returns, and what every listing must be to be trained on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from gcplib.lab.data.rendering import SPLITS

__all__ = ["Layout", "Listing", "check_listing", "file_sizes", "first", "leave_out", "missing_files"]

_SHOWN = 5


@dataclass(frozen=True)
class Listing:
    """The images of a data set as its layout names them.

    Attributes:
        base: the folder that the paths are relative to. paths: of the images, with forward slashes.
        classes, splits: class number and split of every image. names: of the classes.
        groups: the coarse class of every class, or None where the layout has none.
        edition: which of the layout's published data sets it is, where there are several.
    """

    base: Path
    paths: list[str]
    classes: list[int]
    splits: list[str]
    names: list[str]
    groups: list[str] | None
    edition: str | None = None


class Layout(NamedTuple):
    """A kind of data set on disk.

    Attributes:
        read: lists a folder. expected: the layout in words for people.
        find: returns the folder that the layout's files lie in, at the root or below it, or None if it is another one.
        published: counts of the data sets as published, by name: ``train``, ``test``, ``images``, ``classes``.
        installed: returns the folder that an empty root stands for, where a package holds the data set.
    """

    read: Callable[[Path], Listing]
    expected: str
    find: Callable[[Path], Path | None]
    published: Mapping[str, Mapping[str, int]] = {}
    installed: Callable[[], Path] | None = None


def file_sizes(listing: Listing) -> list[int]:
    """Return the size of every image's file in bytes.

    Raises:
        FileNotFoundError: images are missing; the message counts them and names the first.
    """
    sizes = _sizes(listing)
    if missing := [path for path, size in zip(listing.paths, sizes, strict=True) if size is None]:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(listing.paths)} listed images are not below {listing.base}: "
            f"{first(missing)}. Unpack or copy the data set again, or leave them out by ImagesSpec.skip"
        )
    return sizes


def missing_files(listing: Listing) -> list[str]:
    """Return the listed images that are not on the disk."""
    return [path for path, size in zip(listing.paths, _sizes(listing), strict=True) if size is None]


def _sizes(listing: Listing) -> list[int | None]:
    sizes: list[int | None] = []
    for path in listing.paths:
        try:
            sizes.append(os.stat(listing.base / path).st_size)
        except (FileNotFoundError, NotADirectoryError):
            sizes.append(None)
    return sizes


def leave_out(listing: Listing, paths: tuple[str, ...]) -> Listing:
    """Return the listing without the images at these paths.

    Raises:
        ValueError: a path is not listed, or what is left cannot be trained on.
    """
    if not paths:
        return listing
    if unknown := sorted(set(paths) - set(listing.paths)):
        raise ValueError(
            f"{len(unknown)} of the images to skip are not in the data set: {first(unknown)}; give paths relative to "
            f"{listing.base}, such as {listing.paths[0]!r}"
        )
    gone = set(paths)
    kept = [place for place, path in enumerate(listing.paths) if path not in gone]
    picked = {name: [getattr(listing, name)[place] for place in kept] for name in ("paths", "classes", "splits")}
    left = replace(listing, **picked)
    try:
        check_listing(left)
    except ValueError as error:
        raise ValueError(f"{listing.base}: without the {len(gone)} images to skip, {error}") from error
    return left


def first(items: list[str]) -> str:
    """Return the first few, as text."""
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")


def check_listing(listing: Listing) -> None:
    """Refuse what cannot be trained on or judged by.

    Raises:
        ValueError: fewer than two classes, a class without training images, or no test image.
    """
    if len(listing.names) < 2:
        raise ValueError(f"a classifier needs two classes, found {len(listing.names)}: {first(listing.names)}")
    counts = Counter(zip(listing.splits, listing.classes, strict=True))
    for number, name in enumerate(listing.names):
        held = [split for split in SPLITS if counts[split, number]]
        if not held:
            raise ValueError(f"the class {name!r} has no images")
        if "train" not in held:
            raise ValueError(f"the class {name!r} is in {held[-1]} but not in train")
    if "test" not in listing.splits:
        raise ValueError("there is no test image")
