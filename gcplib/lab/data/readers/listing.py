"""What a reader returns, and what every listing must be to be trained on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from gcplib.lab.data.readers.left_out import LeftOut

SPLITS = ("train", "validation", "test")
UNDECIDED = ""  # the split of images whose data set has none, until it is drawn
_SHOWN = 5


@dataclass(frozen=True)
class Listing:
    """The images of a data set as its reader names them."""

    base: Path  # the folder that the paths are relative to
    paths: list[str]  # of the images, with forward slashes
    classes: list[int]  # class number of every image
    splits: list[str]  # of every image
    names: list[str]  # of the classes
    groups: list[str] | None  # the coarse class of every class, or None where it has none
    edition: str | None = None  # which of the published data sets it is, where there are several
    left_out: LeftOut | None = None  # what else lies there


class Reader(NamedTuple):
    """A kind of data set on disk."""

    read: Callable[[Path], Listing]  # lists a folder
    expected: str  # how it lies on disk, in words for people
    find: Callable[[Path], Path | None]  # the folder of its files, at the root or below it, or None
    # Counts of train, test, images and classes of the data sets as published, by name.
    published: Mapping[str, Mapping[str, int]] = {}
    installed: Callable[[], Path] | None = None  # where a package put the data set, for an empty root
    aside: tuple[str, ...] = ()  # folders that are published with it and have no part in it
    generic: bool = False  # whether the files of another data set may be read by it, too
    file: str | None = None  # suffix of the file that may be given for the folder


def listing_of(
    base: Path,
    rows: Iterable[tuple[str, Hashable, str]],
    names: Mapping[Hashable, str],
    groups: Sequence[str] | None = None,
    edition: str | None = None,
    source: str = "the list of classes",
) -> Listing:
    """Return the listing of images, each with the key of its class and a split; ``names`` has the classes in order.

    Raises:
        ValueError: there is no image, or one of a class that ``source`` does not name.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("no images are listed")
    numbers = {key: number for number, key in enumerate(names)}
    if unknown := sorted({str(key) for _, key, _ in rows if key not in numbers}):
        raise ValueError(f"images are of classes that {source} has not: {first(unknown)}")
    paths, keys, splits = map(list, zip(*rows, strict=True))
    return Listing(base, paths, [numbers[key] for key in keys], splits, list(names.values()), groups, edition)


def file_sizes(listing: Listing) -> list[int]:
    """Return the size of every image's file in bytes.

    Raises:
        FileNotFoundError: images are missing; the message counts them and names the first.
    """
    sizes = {}
    for path in listing.paths:
        with suppress(FileNotFoundError, NotADirectoryError):
            sizes[path] = os.stat(listing.base / path).st_size
    if missing := [path for path in listing.paths if path not in sizes]:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(listing.paths)} listed images are not below {listing.base}: "
            f"{first(missing)}. Unpack or copy the data set again, or leave them out by ImagesSpec.skip"
        )
    return [sizes[path] for path in listing.paths]


def leave_out(listing: Listing, paths: Sequence[str]) -> Listing:
    """Return the listing without the images at these paths; what is left must be fit to be trained on."""
    if not paths:
        return listing
    gone = set(paths)
    if unknown := sorted(gone - set(listing.paths)):
        raise ValueError(
            f"{len(unknown)} of the images to skip are not in the data set: {first(unknown)}; give paths relative to "
            f"{listing.base}, such as {listing.paths[0]!r}"
        )
    kept = [path not in gone for path in listing.paths]
    parts = {name: list(compress(getattr(listing, name), kept)) for name in ("paths", "classes", "splits")}
    left = replace(listing, **parts)
    try:
        check_listing(left)
    except ValueError as error:
        raise ValueError(f"{listing.base}: without the {len(gone)} images to skip, {error}") from error
    return left


def first(items: Sequence[str]) -> str:
    """Return the first few, as text."""
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")


def check_listing(listing: Listing) -> None:
    """Refuse what cannot be trained on or evaluated by, with a ``ValueError``."""
    if len(listing.names) < 2:
        raise ValueError(f"a classifier needs two classes, found {len(listing.names)}: {first(listing.names)}")
    counts = Counter(zip(listing.splits, listing.classes, strict=True))
    for number, name in enumerate(listing.names):
        held = [split for split in (*SPLITS, UNDECIDED) if counts[split, number]]
        if not held:
            raise ValueError(f"the class {name!r} has no images")
        if "train" not in held and UNDECIDED not in held:
            raise ValueError(f"the class {name!r} is in {held[-1]} but not in train")
    if not {"test", UNDECIDED} & set(listing.splits):
        raise ValueError("there is no test image")
