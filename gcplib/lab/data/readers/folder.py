"""Any folder of images, sorted into folders of classes, with or without a split."""

from __future__ import annotations

import re
from pathlib import Path

from gcplib.lab.data.readers.listing import SPLITS, UNDECIDED, Listing, Reader, first, listing_of
from gcplib.lab.data.readers.reading import class_folders, names_of, rows_of, scan, split_of


def _splits(root: Path) -> dict[str, list[str]]:
    """Return the folders of every split, or nothing where there is none: a split holds folders, a class images."""
    named = [name for name in scan(root)[0] if split_of(name)]
    if not any(scan(root / name)[0] for name in named):
        return {}
    return {split: [name for name in named if split_of(name) == split] for split in SPLITS}


def _find(root: Path) -> Path | None:
    # Published sets have a train/ and a test/ of loose images, too; only folders in them are classes.
    if splits := _splits(root):
        loose = any(scan(root / name)[1] for names in splits.values() for name in names)
        return root if splits["train"] and splits["test"] and not loose else None
    inner, images = scan(root)
    return root if len(inner) > 1 and not images and all(map(_holds_some, _paths(root))) else None


def _paths(folder: Path) -> list[Path]:
    return [folder / name for name in scan(folder)[0]]


def _holds_some(folder: Path) -> bool:
    return bool(scan(folder)[1]) or any(map(_holds_some, _paths(folder)))


def _read(root: Path) -> Listing:
    """Read a tree of folders. A class is an innermost folder, that is one with images.

    Where any of them lie deeper than one folder, the first folders are the coarse classes. Without ``train`` and
    ``test``, a fraction ``ImagesSpec.test`` of every class is for test, drawn by the seed, and copies of a file are
    kept on one side.
    """
    trees = {}
    splits = _splits(root)
    for split, found in splits.items():
        if len(found) > 1:
            raise ValueError(f"both {' and '.join(f'{name}/' for name in found)} are there; keep one")
        if found:
            trees[split] = class_folders(root, found[0])
        elif split != "validation":
            raise ValueError(
                f"no folder {split}/; add it, or put the class folders into the root itself for a split by the seed"
            )
    if not splits:
        trees[UNDECIDED] = _flat(root)
    keys = sorted({key for tree in trees.values() for key in tree})
    # A tree that is nested in one split alone has no class in common with the others: `check_listing` says so.
    return listing_of(root, rows_of(trees), *names_of(keys))


def _flat(root: Path) -> dict[tuple[str, ...], list[str]]:
    folders, images = scan(root)
    if not folders or images:
        what = f"images outside class folders ({first(images)})" if images else "no folder train/ and no class folders"
        raise ValueError(f"{what} here")
    # Splits by other names, such as cars_train and cars_test, would be taken for classes.
    words = {name: {split_of(word) for word in re.split(r"[^a-z]+", name.lower())} - {None} for name in folders}
    if len(set().union(*words.values())) > 1:
        odd = [name for name in folders if words[name]]
        raise ValueError(f"the folders {first(odd)} are called like splits; call them train, validation and test")
    return class_folders(root)


READER = Reader(
    _read,
    "train/<class>/<image>.jpg and test/<class>/<image>.jpg, with validation/, val/, valid/ or dev/ if there is one, "
    "or class folders alone, <class>/<image>.jpg, which are split by the seed; with coarse classes "
    "<coarse>/<class>/<image>.jpg in place of <class>/<image>.jpg",
    _find,
    generic=True,
)
