"""Any folder of images, sorted into folders of classes."""

from __future__ import annotations

from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import class_folders, rows_of, scan

_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def _find(root: Path) -> Path | None:
    # Published sets have a train/ and a test/ of loose images, too; only folders in them are classes.
    return root if all((root / split).is_dir() and scan(root / split)[0] for split in ("train", "test")) else None


def _read(root: Path) -> Listing:
    """Read a tree of folders, whose innermost are the classes; those around them, if any, are the coarse classes."""
    trees = {}
    for split, options in _FOLDERS.items():
        found = [name for name in options if (root / name).is_dir()]
        if len(found) > 1:
            raise ValueError(f"both {found[0]}/ and {found[1]}/ are there; keep one")
        if found:
            trees[split] = class_folders(root, found[0])
        elif split != "validation":
            raise ValueError(f"no folder {split}/")
    keys = sorted({key for tree in trees.values() for key in tree})
    # Two coarse classes may each have a class "other".
    short = len({key[-1] for key in keys}) == len(keys)
    names = {key: key[-1] if short else "/".join(key) for key in keys}
    # A tree that is nested in one split alone has no class in common with the others: `check_listing` says so.
    return listing_of(root, rows_of(trees), names, [key[0] for key in keys] if len(keys[0]) > 1 else None)


READER = Reader(
    _read,
    "train/<class>/<image>.jpg and test/<class>/<image>.jpg, with val/ or validation/ if there is one; "
    "with coarse classes train/<coarse>/<class>/<image>.jpg and so on",
    _find,
)
