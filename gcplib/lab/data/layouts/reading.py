"""What readers share: tables of text, MATLAB's lists, and folders of classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gcplib.lab.data.layouts.listing import first

__all__ = ["SUFFIXES", "class_folders", "find_folder", "flat_classes", "read_mat", "read_table", "scan"]

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))


def find_folder(root: Path, places: tuple[str, ...], mark: str) -> Path | None:
    """Return the first of ``root / place`` that holds the file ``mark``, or None."""
    return next((root / place for place in places if (root / place / mark).is_file()), None)


def read_table(path: Path) -> dict[str, str]:
    """Read lines of a key, a space and a value.

    Raises:
        ValueError: the file is missing, or a line is none of these or repeats a key.
    """
    if not path.is_file():
        raise ValueError(f"no {path.name} in {path.parent}")
    table = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split(maxsplit=1)
        if len(parts) != 2 or parts[0] in table:
            raise ValueError(f"{path.name}, line {number}: {line!r} should be a new number and a value")
        table[parts[0]] = parts[1].strip()
    return table


def read_mat(path: Path, name: str) -> list[Any]:
    """Return the variable ``name`` of a MATLAB file as a list, one item each row.

    Raises:
        ValueError: the file is missing, is no MATLAB file, or has no such variable.
    """
    import numpy as np
    from scipy.io import loadmat

    if not path.is_file():
        raise ValueError(f"no {path.name} in {path.parent}")
    try:
        values = loadmat(path, squeeze_me=True)
    except Exception as error:  # damaged bytes raise whatever the reader meets first
        raise ValueError(f"{path.name} cannot be read as a MATLAB file: {type(error).__name__}: {error}") from error
    if name not in values:
        raise ValueError(f"{path.name} has no variable {name!r}")
    # A list of one is squeezed to no list at all.
    return list(np.atleast_1d(values[name]))


def flat_classes(root: Path, split: str) -> dict[str, list[str]]:
    """Return the images of every class folder of a split, as paths below ``root``.

    Raises:
        ValueError: images outside class folders, folders within them, or an empty one.
    """
    found = class_folders(root, split)
    if deep := [folder for key, (folder, _) in found.items() if len(key) > 1]:
        raise ValueError(f"{split}/ has folders in its class folders ({first(deep)})")
    return {name: [f"{folder}/{image}" for image in images] for (name,), (folder, images) in found.items()}


def class_folders(root: Path, split: str) -> dict[tuple[str, ...], tuple[str, list[str]]]:
    """Return the folder and the images of every class of a split; a key is (class,) or (coarse class, class).

    Raises:
        ValueError: images and folders are mixed, a class is empty, or folders are nested more deeply.
    """
    outer, stray = scan(root / split)
    if stray or not outer:
        raise ValueError(f"{split}/ has {'images outside' if stray else 'no'} class folders {first(stray)}".rstrip())
    found, depths = {}, set()
    for name in outer:
        inner, images = scan(root / split / name)
        if inner and images:
            raise ValueError(f"{split}/{name} holds both images and folders ({first(inner)})")
        for key in [(name, leaf) for leaf in inner] or [(name,)]:
            folder = "/".join((split, *key))
            deeper, held = scan(root / folder) if inner else ([], images)
            if deeper:
                raise ValueError(f"{folder} holds folders ({first(deeper)}), one level deeper than is understood")
            if not held:
                raise ValueError(f"the class folder {folder} has no images ({', '.join(sorted(SUFFIXES))})")
            found[key] = (folder, held)
            depths.add(len(key))
    if len(depths) > 1:
        raise ValueError(f"some folders of {split}/ hold images and others folders")
    return found


def scan(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the images in a folder, sorted."""
    with os.scandir(folder) as entries:
        # Hidden files are what file managers leave behind, some of them with names like ._bird.jpg.
        shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    folders = [entry.name for entry in shown if entry.is_dir()]
    # A dead link is kept, so that it is reported as missing.
    images = [e.name for e in shown if not e.is_dir() and os.path.splitext(e.name)[1].lower() in SUFFIXES]
    return folders, images
