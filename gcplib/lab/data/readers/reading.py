"""What readers share: tables of text, MATLAB's lists, and folders of classes. What does not fit is a ``ValueError``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gcplib.lab.data.readers.left_out import is_shown
from gcplib.lab.data.readers.listing import first
from gcplib.suffixes import SUFFIXES

# A byte order mark, which Windows puts first in a text, is no part of it.
ENCODING = "utf-8-sig"

_CALLED = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in _CALLED.items() for name in names}


def split_of(name: str) -> str | None:
    """Return which split people call by a name, or None.

    >>> split_of("Valid")
    'validation'
    """
    return _SPLIT_OF.get(name.strip().lower())


def names_of(keys: Sequence[tuple[str, ...]]) -> tuple[dict[tuple[str, ...], str], list[str] | None]:
    """Return the names of classes by their keys, (class,) or (coarse, ..., class), and the coarse classes, if any."""
    # Two coarse classes may each have a class "other".
    short = len({key[-1] for key in keys}) == len(keys)
    names = {key: key[-1] if short else "/".join(key) for key in keys}
    return names, [key[0] for key in keys] if max(map(len, keys)) > 1 else None


def find_folder(root: Path, places: Sequence[str], mark: str) -> Path | None:
    """Return the first of ``root / place`` that holds the file ``mark``, or None."""
    return next((root / place for place in places if (root / place / mark).is_file()), None)


def folder_with(root: Path, places: Sequence[str], mark: str) -> Path:
    """Return the folder that ``find_folder`` finds, or raise ``ValueError`` where there is none."""
    if found := find_folder(root, places, mark):
        return found
    *others, last = [f"in {place}/" if place else "here" for place in places]
    raise ValueError(f"no {mark} {', '.join(others)} or {last}")


def existing(path: Path) -> Path:
    """Return the path of a file, or raise ``ValueError`` where there is none."""
    if not path.is_file():
        raise ValueError(f"no {path.name} in {path.parent}")
    return path


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not empty."""
    for number, line in enumerate(existing(path).read_text(encoding=ENCODING).splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def read_table(path: Path) -> dict[str, str]:
    """Read lines of a key, a space and a value; a key given twice is refused."""
    table: dict[str, str] = {}
    for number, line in read_lines(path):
        parts = line.split(maxsplit=1)
        if len(parts) != 2 or parts[0] in table:
            raise ValueError(f"{path.name}, line {number}: {line!r} should be a new number and a value")
        table[parts[0]] = parts[1]
    return table


def read_tables(base: Path, *names: str) -> list[dict[str, str]]:
    """Read tables that must list the same images."""
    tables = [read_table(base / name) for name in names]
    for name, table in zip(names[1:], tables[1:], strict=True):
        if odd := sorted(tables[0].keys() ^ table.keys()):
            raise ValueError(f"{names[0]} and {name} disagree on {len(odd)} images: {first(odd)}")
    return tables


def read_mat(path: Path, name: str) -> list[Any]:
    """Return the variable ``name`` of a MATLAB file as a list, one item per row."""
    import numpy as np
    from scipy.io import loadmat

    existing(path)
    try:
        values = loadmat(path, squeeze_me=True)
    except Exception as error:  # damaged bytes raise whatever the reader meets first
        raise ValueError(f"{path.name} cannot be read as a MATLAB file: {type(error).__name__}: {error}") from error
    if name not in values:
        raise ValueError(f"{path.name} has no variable {name!r}")
    # A list of one is squeezed to no list at all.
    return list(np.atleast_1d(values[name]))


def flat_classes(root: Path, split: str = ".") -> dict[str, list[str]]:
    """Return the images of every class folder of a split, as paths below ``root``; folders within them are refused."""
    return {name: paths for (name,), paths in class_folders(root, split, depth=1).items()}


def class_folders(
    root: Path, split: str = ".", depth: int | None = None, within: Sequence[str] | None = None
) -> dict[tuple[str, ...], list[str]]:
    """Return the images of every class of a split, as paths below ``root``.

    Args:
        root: the folder of the data set.
        split: the folder of the split in it.
        depth: how many folders deep the classes may lie; None for any depth.
        within: which of its folders to look into; None for all.

    Returns:
        Images by the names of the folders down to theirs: (class,), (coarse, class) and so on.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    keys: list[tuple[str, ...]] = [()]
    for key in keys:  # grows by the folders within
        folder = PurePosixPath(split, *key)
        inner, images = scan(root / folder)
        if not key and within is not None:
            inner = [name for name in inner if name in within]
        if not key and (images or not inner):
            raise ValueError(
                f"{split}/ has {'images outside' if images else 'no'} class folders {first(images)}".rstrip()
            )
        if len(key) == depth and inner:
            raise ValueError(f"{folder} holds folders ({first(inner)}), one level deeper than is understood")
        if inner and images:
            raise ValueError(
                f"{folder} holds both images and folders ({first(inner)}); move the images into a folder of their own"
            )
        if not (inner or images):
            raise ValueError(f"the class folder {folder} has no images ({', '.join(sorted(SUFFIXES))})")
        keys += [(*key, name) for name in inner]
        if images:
            found[key] = [f"{folder}/{image}" for image in images]
    return found


def rows_of(trees: Mapping[str, Mapping[Any, list[str]]]) -> list[tuple[str, Any, str]]:
    """Return path, class and split of every image of trees, which are classes of images by split."""
    return [(path, key, split) for split, tree in trees.items() for key, paths in tree.items() for path in paths]


def scan(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the images in a folder, sorted."""
    with os.scandir(folder) as entries:
        # Hidden files are what file managers leave behind, some of them with names like ._bird.jpg.
        shown = sorted((entry for entry in entries if is_shown(entry.name)), key=lambda entry: entry.name)
    folders = [entry.name for entry in shown if entry.is_dir()]
    # A dead link is kept, so that it is reported as missing.
    images = [e.name for e in shown if not e.is_dir() and os.path.splitext(e.name)[1].lower() in SUFFIXES]
    return folders, images
