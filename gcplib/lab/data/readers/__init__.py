"""How data sets lie on disk: one reader for each, which lists images, classes and splits and reads no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gcplib.lab.data.readers import aircraft, cars, cub, dogs, elpv, folder, imagenet, inaturalist, scenes
from gcplib.lab.data.readers.listing import SPLITS, Listing, Reader, check_listing, leave_out

__all__ = ["DATASETS", "SPLITS", "Listing", "guess_dataset", "list_images"]

# A new data set is one module and one line here. Aerial scenes are three in one module, with two splits each.
DATASETS: Mapping[str, Reader] = {
    "cub": cub.READER,
    "aircraft": aircraft.READER,
    "cars": cars.READER,
    "dogs": dogs.READER,
    "inaturalist": inaturalist.READER,
    "imagenet": imagenet.READER,
    "elpv": elpv.READER,
    **scenes.DATASETS,
    "folder": folder.READER,
}


def list_images(dataset: str, root: str | Path, skip: Sequence[str] = ()) -> Listing:
    """Return the images below ``root``, which lies as ``DATASETS[dataset]`` says, without those at the paths ``skip``.

    An empty root is for data sets that are ``installed`` by a package.

    Raises:
        FileNotFoundError, NotADirectoryError: ``root`` is no folder, or the package is not installed.
        ValueError: something is missing, empty or contradictory, or a path to skip is none of the images; the message
            says what the data set should look like.
    """
    kind = DATASETS[dataset]
    hint = f". The data set {dataset!r} is {kind.expected}."
    place = kind.installed() if kind.installed and not str(root).strip() else _folder(root, hint)
    try:
        listing = kind.read(place)
        check_listing(listing)
    except ValueError as error:
        raise ValueError(f"{place}: {error}{hint}") from error
    return leave_out(listing, skip)


def guess_dataset(root: str | Path) -> str:
    """Return the name of the data set whose files are below ``root``.

    Raises:
        FileNotFoundError, NotADirectoryError: ``root`` is no folder.
        ValueError: it looks like none of the data sets, or like several.
    """
    place = _folder(root)
    found = [name for name, dataset in DATASETS.items() if dataset.find(place)]
    if not found:
        known = "\n".join(f"  {name}: {dataset.expected}" for name, dataset in DATASETS.items())
        raise ValueError(f"{place} looks like none of the known data sets:\n{known}")
    if len(found) > 1:
        raise ValueError(f"{place} looks like {' and like '.join(map(repr, found))}; say which it is")
    return found[0]


def _folder(root: str | Path, hint: str = "") -> Path:
    place = Path(root).expanduser()
    if not place.exists():
        raise FileNotFoundError(f"there is no folder {str(root)!r}{hint}")
    if not place.is_dir():
        raise NotADirectoryError(f"{str(root)!r} is a file, not a folder{hint}")
    return place
