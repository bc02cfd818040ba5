"""How data sets lie on disk: one reader for each, which lists images, classes and splits and reads no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gcplib.lab.data.readers import (
    aircraft,
    cars,
    cub,
    dogs,
    dtd,
    elpv,
    flowers,
    folder,
    grocery,
    imagenet,
    inaturalist,
    pets,
    scenes,
    table,
)
from gcplib.lab.data.readers.left_out import left_out
from gcplib.lab.data.readers.listing import SPLITS, Listing, Reader, check_listing, leave_out

__all__ = ["DATASETS", "SPLITS", "Listing", "guess_dataset", "list_images"]

# A new data set is one module and one line here. Aerial scenes are three in one module, with two splits each.
DATASETS: Mapping[str, Reader] = {
    "cub": cub.READER,
    "aircraft": aircraft.READER,
    "cars": cars.READER,
    "dogs": dogs.READER,
    "flowers": flowers.READER,
    "pets": pets.READER,
    "dtd": dtd.READER,
    "inaturalist": inaturalist.READER,
    "imagenet": imagenet.READER,
    "elpv": elpv.READER,
    **scenes.DATASETS,
    "grocery": grocery.READER,
    "csv": table.READER,
    "folder": folder.READER,
}


def list_images(dataset: str, root: str | Path, skip: Sequence[str] = ()) -> Listing:
    """Return the images below ``root``, which lies as ``DATASETS[dataset]`` says, without those at the paths ``skip``.

    An empty root is for data sets that are ``installed`` by a package. Images of a data set that has no split have the
    split ``UNDECIDED``; see ``split_off``.

    Raises:
        FileNotFoundError, NotADirectoryError: ``root`` is no folder, or the package is not installed.
        ValueError: something is missing, empty or contradictory, or a path to skip is none of the images; the message
            says what the data set should look like.
    """
    kind = DATASETS[dataset]
    hint = f". The data set {dataset!r} is {kind.expected}."
    place = kind.installed() if kind.installed and not str(root).strip() else _place(root, hint, kind.file)
    try:
        listing = kind.read(place)
        check_listing(listing)
    except ValueError as error:
        raise ValueError(f"{place}: {error}{hint}") from error
    # Before any are skipped: those are left out on purpose.
    beside = left_out(listing.base, listing.paths, kind.aside)
    return leave_out(replace(listing, left_out=beside), skip)


def guess_dataset(root: str | Path) -> str:
    """Return the name of the data set whose files are below ``root``.

    Raises:
        FileNotFoundError, NotADirectoryError: ``root`` is no folder.
        ValueError: it looks like none of the data sets, or like several.
    """
    place = _place(root, file=".csv")
    if place.is_file():
        return "csv"
    found = [name for name, reader in DATASETS.items() if not reader.generic and reader.find(place)]
    # A published data set may have class folders or a table as well, and is better read as what it is.
    found = found or [name for name, reader in DATASETS.items() if reader.generic and reader.find(place)]
    if not found:
        known = "\n".join(f"  {name}: {dataset.expected}" for name, dataset in DATASETS.items())
        raise ValueError(f"{place} looks like none of the known data sets:\n{known}")
    if len(found) > 1:
        raise ValueError(f"{place} looks like {' and like '.join(map(repr, found))}; say which it is")
    return found[0]


def _place(root: str | Path, hint: str = "", file: str | None = None) -> Path:
    """Return the folder, or the file of that suffix."""
    place = Path(root).expanduser()
    if not place.exists():
        raise FileNotFoundError(f"there is no folder {str(root)!r}{hint}")
    if not place.is_dir() and place.suffix.lower() != file:
        raise NotADirectoryError(f"{str(root)!r} is a file, not a folder{hint}")
    return place
