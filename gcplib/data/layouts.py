"""How data sets lie on disk: one function a layout, which lists pictures, classes and splits and reads no picture."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gcplib.data.rendering import SPLITS

__all__ = ["LAYOUTS", "Layout", "Listing", "file_sizes", "list_pictures"]

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))
_SHOWN = 5


@dataclass(frozen=True)
class Listing:
    """The pictures of a data set as its layout names them.

    Attributes:
        base: the folder that the paths are relative to. paths: of the pictures, with forward slashes.
        classes, splits: class number and split of every picture. names: of the classes.
        groups: the coarse class of every class, or None where the layout has none.
    """

    base: Path
    paths: list[str]
    classes: list[int]
    splits: list[str]
    names: list[str]
    groups: list[str] | None


class Layout(NamedTuple):
    """A reader, and the layout that it expects in words for people."""

    read: Callable[[Path], Listing]
    expected: str


def list_pictures(layout: str, root: str | Path) -> Listing:
    """Return the pictures below ``root``, which lies as ``LAYOUTS[layout]`` says.

    Raises:
        FileNotFoundError, NotADirectoryError: ``root`` is no folder.
        ValueError: something is missing, empty or contradictory; the message says what the layout looks like.
    """
    place, (read, expected) = Path(root).expanduser(), LAYOUTS[layout]
    hint = f"The layout {layout!r} is {expected}."
    if not place.exists():
        raise FileNotFoundError(f"there is no folder {str(root)!r}. {hint}")
    if not place.is_dir():
        raise NotADirectoryError(f"{str(root)!r} is a file, not a folder. {hint}")
    try:
        listing = read(place)
        _check(listing)
    except ValueError as error:
        raise ValueError(f"{place}: {error}. {hint}") from error
    return listing


def file_sizes(listing: Listing) -> list[int]:
    """Return the size of every picture's file in bytes.

    Raises:
        FileNotFoundError: pictures are missing; the message counts them and names the first.
    """
    sizes, missing = [], []
    for path in listing.paths:
        try:
            sizes.append(os.stat(listing.base / path).st_size)
        except FileNotFoundError:
            missing.append(path)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(listing.paths)} listed pictures are not below {listing.base}: "
            f"{_first(missing)}. Unpack or copy the data set again"
        )
    return sizes


def _first(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")


def _check(listing: Listing) -> None:
    """Refuse what cannot be trained on or judged by."""
    if len(listing.names) < 2:
        raise ValueError(f"a classifier needs two classes, found {len(listing.names)}: {_first(listing.names)}")
    counts = Counter(zip(listing.splits, listing.classes, strict=True))
    for number, name in enumerate(listing.names):
        held = [split for split in SPLITS if counts[split, number]]
        if not held:
            raise ValueError(f"the class {name!r} has no pictures")
        if "train" not in held:
            raise ValueError(f"the class {name!r} is in {held[-1]} but not in train")
    if "test" not in listing.splits:
        raise ValueError("there is no test picture")


def _read_cub(root: Path) -> Listing:
    """Read CUB-200-2011.

    The coarse classes are the last words of the class names ("Black_footed_Albatross" is an albatross). That is our
    own reading: these files hold no coarse classes. A few names have odd last words ("Chuck_will_Widow").
    """
    base = root if (root / "images.txt").is_file() else root / "CUB_200_2011"
    files = ("images", "image_class_labels", "train_test_split", "classes")
    if missing := [f"{name}.txt" for name in files if not (base / f"{name}.txt").is_file()]:
        raise ValueError(f"no {', '.join(missing)} here or in CUB_200_2011")
    images, labels, flags, classes = (_table(base / f"{name}.txt") for name in files)
    if not images:
        raise ValueError("images.txt lists no pictures")
    for name, table in (("image_class_labels.txt", labels), ("train_test_split.txt", flags)):
        if odd := sorted(images.keys() ^ table.keys()):
            raise ValueError(f"images.txt and {name} disagree on {len(odd)} pictures, numbers {_first(odd)}")
    if unknown := sorted(set(labels.values()) - classes.keys()):
        raise ValueError(f"image_class_labels.txt has classes that classes.txt has not: {_first(unknown)}")
    if unknown := sorted(set(flags.values()) - {"0", "1"}):
        raise ValueError(f"train_test_split.txt has {_first(unknown)} where 1 (train) or 0 (test) is expected")
    numbers = {key: number for number, key in enumerate(classes)}
    # "001.Black_footed_Albatross": the number orders the folders and is no part of the name.
    names = [re.sub(r"^\d+\.(?=.)", "", text).replace("_", " ") for text in classes.values()]
    return Listing(
        base,
        [f"images/{path}" for path in images.values()],
        [numbers[labels[key]] for key in images],
        ["train" if flags[key] == "1" else "test" for key in images],
        names,
        [name.split()[-1] for name in names],
    )


def _table(path: Path) -> dict[str, str]:
    """Read lines of a key, a space and a value."""
    table = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split(maxsplit=1)
        if len(parts) != 2 or parts[0] in table:
            raise ValueError(f"{path.name}, line {number}: {line!r} should be a new number and a value")
        table[parts[0]] = parts[1].strip()
    return table


def _read_folder(root: Path) -> Listing:
    """Read a tree of folders, whose innermost are the classes; those around them, if any, are the coarse classes."""
    trees = {}
    for split, options in {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}.items():
        found = [name for name in options if (root / name).is_dir()]
        if len(found) > 1:
            raise ValueError(f"both {found[0]}/ and {found[1]}/ are there; keep one")
        if found:
            trees[split] = _class_folders(root, found[0])
        elif split != "validation":
            raise ValueError(f"no folder {split}/")
    keys = sorted({key for tree in trees.values() for key in tree})
    numbers = {key: number for number, key in enumerate(keys)}
    rows = [
        (f"{folder}/{picture}", numbers[key], split)
        for split, tree in trees.items()
        for key, (folder, pictures) in tree.items()
        for picture in pictures
    ]
    paths, classes, splits = map(list, zip(*rows, strict=True))
    short = [key[-1] for key in keys]
    # Two coarse classes may each have a class "other".
    names = short if len(set(short)) == len(short) else ["/".join(key) for key in keys]
    # A tree that is nested in one split alone has no class in common with the others: `_check` says so.
    return Listing(root, paths, classes, splits, names, [key[0] for key in keys] if len(keys[0]) > 1 else None)


def _class_folders(root: Path, split: str) -> dict[tuple[str, ...], tuple[str, list[str]]]:
    """Return the folder and the pictures of every class of a split; a key is (class,) or (coarse class, class)."""
    outer, stray = _scan(root / split)
    if stray or not outer:
        raise ValueError(f"{split}/ has {'pictures outside' if stray else 'no'} class folders {_first(stray)}".rstrip())
    found, depths = {}, set()
    for name in outer:
        inner, pictures = _scan(root / split / name)
        if inner and pictures:
            raise ValueError(f"{split}/{name} holds both pictures and folders ({_first(inner)})")
        for key in [(name, leaf) for leaf in inner] or [(name,)]:
            folder = "/".join((split, *key))
            deeper, pictures = _scan(root / folder)
            if deeper:
                raise ValueError(f"{folder} holds folders ({_first(deeper)}), one level deeper than is understood")
            if not pictures:
                raise ValueError(f"the class folder {folder} has no pictures ({', '.join(sorted(SUFFIXES))})")
            found[key] = (folder, pictures)
            depths.add(len(key))
    if len(depths) > 1:
        raise ValueError(f"some folders of {split}/ hold pictures and others folders")
    return found


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the pictures in a folder, sorted."""
    with os.scandir(folder) as entries:
        # Hidden files are what file managers leave behind, some of them with names like ._bird.jpg.
        shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    folders = [entry.name for entry in shown if entry.is_dir()]
    # A dead link is kept, so that it is reported as missing.
    pictures = [e.name for e in shown if not e.is_dir() and os.path.splitext(e.name)[1].lower() in SUFFIXES]
    return folders, pictures


# A new data set is one function and one line here.
LAYOUTS: Mapping[str, Layout] = {
    "cub": Layout(
        _read_cub,
        "the folder CUB_200_2011 as published (or the one around it): images.txt, image_class_labels.txt, "
        "train_test_split.txt, classes.txt and images/<class>/<picture>.jpg",
    ),
    "folder": Layout(
        _read_folder,
        "train/<class>/<picture>.jpg and test/<class>/<picture>.jpg, with val/ or validation/ if there is one; "
        "with coarse classes train/<coarse>/<class>/<picture>.jpg and so on",
    ),
}
