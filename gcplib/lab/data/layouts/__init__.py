"""How data sets lie on disk: one module per layout, which lists images, classes and splits and reads no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gcplib.lab.data.layouts import aircraft, cars, cub, dogs, elpv, folder, imagenet, inaturalist, scenes
from gcplib.lab.data.layouts.listing import SPLITS, Layout, Listing, check_listing, leave_out

__all__ = ["LAYOUTS", "SPLITS", "Listing", "guess_layout", "list_images"]

# A new data set is one module and one line here. Aerial scenes are three in one module, with two splits each.
LAYOUTS: Mapping[str, Layout] = {
    "cub": cub.LAYOUT,
    "aircraft": aircraft.LAYOUT,
    "cars": cars.LAYOUT,
    "dogs": dogs.LAYOUT,
    "inaturalist": inaturalist.LAYOUT,
    "imagenet": imagenet.LAYOUT,
    "elpv": elpv.LAYOUT,
    **scenes.LAYOUTS,
    "folder": folder.LAYOUT,
}


def list_images(layout: str, root: str | Path, skip: Sequence[str] = ()) -> Listing:
    """Return the images below ``root``, which lies as ``LAYOUTS[layout]`` says, without those at the paths ``skip``.

    An empty root is for layouts that are ``installed`` by a package.

    Raises:
        FileNotFoundError, NotADirectoryError: ``root`` is no folder, or the package is not installed.
        ValueError: something is missing, empty or contradictory, or a path to skip is none of the images; the message
            says what the layout looks like.
    """
    kind = LAYOUTS[layout]
    hint = f". The layout {layout!r} is {kind.expected}."
    place = kind.installed() if kind.installed and not str(root).strip() else _folder(root, hint)
    try:
        listing = kind.read(place)
        check_listing(listing)
    except ValueError as error:
        raise ValueError(f"{place}: {error}{hint}") from error
    return leave_out(listing, skip)


def guess_layout(root: str | Path) -> str:
    """Return the layout whose files are below ``root``.

    Raises:
        FileNotFoundError, NotADirectoryError: ``root`` is no folder.
        ValueError: it looks like none of the layouts, or like several.
    """
    place = _folder(root)
    found = [name for name, layout in LAYOUTS.items() if layout.find(place)]
    if not found:
        known = "\n".join(f"  {name}: {layout.expected}" for name, layout in LAYOUTS.items())
        raise ValueError(f"{place} looks like none of the known layouts:\n{known}")
    if len(found) > 1:
        raise ValueError(f"{place} looks like {' and like '.join(map(repr, found))}; say which layout it is")
    return found[0]


def _folder(root: str | Path, hint: str = "") -> Path:
    place = Path(root).expanduser()
    if not place.exists():
        raise FileNotFoundError(f"there is no folder {str(root)!r}{hint}")
    if not place.is_dir():
        raise NotADirectoryError(f"{str(root)!r} is a file, not a folder{hint}")
    return place
