"""Stanford Cars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import find_folder, read_mat

_PLACES = ("", "stanford_cars")
_LISTS = ("devkit", "")  # where lists are: as published, or beside the folders of images
_META, _TRAIN, _TEST = "cars_meta.mat", "cars_train_annos.mat", "cars_test_annos_withlabels.mat"
_ALL = "cars_annos.mat"  # one list of all images, which are in another folder and have other numbers there


def _find(root: Path) -> Path | None:
    marks = [f"{folder}/{_META}".lstrip("/") for folder in _LISTS] + [_ALL]
    return next((found for mark in marks if (found := find_folder(root, _PLACES, mark))), None)


def _read(root: Path) -> Listing:
    """Read Stanford Cars, as published or as others have packed it since.

    The folders of images may be nested twice, ``cars_train/cars_train``, and the lists may be beside them. The one
    list of all images, ``cars_annos.mat``, is read with the folder ``car_ims``.

    A class is called "make model type year"; the coarse classes are the last words but one, which are mostly the type
    of body (Sedan, SUV, Coupe, Cab). That is our own reading: these files hold no coarse classes. A few names have no
    type ("Chevrolet Corvette ZR1 2012" gives ZR1).
    """
    base = _find(root)
    if base is None:
        raise ValueError(
            f"no devkit/{_META} here or in stanford_cars/, and neither that file nor {_ALL} without devkit/"
        )
    meta = find_folder(base, _LISTS, _META)
    source = base / _ALL if meta is None else meta / _META
    texts = [" ".join(str(name).split()) for name in read_mat(source, "class_names")]
    if odd := [name for name in texts if len(name.split()) < 2]:
        raise ValueError(f"{source.name} has the class {odd[0]!r}, which is no make, model, type and year")
    whole = meta is None and find_folder(base, _LISTS, _TRAIN) is None
    rows = list(_rows_of_all(base) if whole else _rows(base))
    groups = [name.split()[-2] for name in texts]
    return listing_of(base, rows, dict(enumerate(texts, 1)), groups, source=source.name)


def _rows(base: Path) -> Iterator[tuple[str, int, str]]:
    train, test = find_folder(base, _LISTS, _TRAIN), find_folder(base, ("", "devkit"), _TEST)
    if train is None:
        raise ValueError(f"no {_TRAIN} in devkit/ or here")
    if test is None:
        raise ValueError(f"no {_TEST} here or in devkit/ (cars_test_annos.mat has no labels)")
    for split, file in (("train", train / _TRAIN), ("test", test / _TEST)):
        folder = _folder(base, f"cars_{split}")
        for row in _annotations(file, "class", "fname"):
            yield f"{folder}/{row['fname']}", int(row["class"]), split


def _rows_of_all(base: Path) -> Iterator[tuple[str, int, str]]:
    if not (base / "car_ims").is_dir():
        raise ValueError(
            f"{_ALL} is of the images in car_ims/, which is not here, and tells nothing of those in cars_train/ and "
            f"cars_test/, whose numbers are others; add {_TRAIN} and {_TEST}, here or in devkit/"
        )
    folder = _folder(base, "car_ims")
    for row in _annotations(base / _ALL, "class", "relative_im_path", "test"):
        yield (
            f"{folder}/{Path(str(row['relative_im_path'])).name}",
            int(row["class"]),
            "test" if row["test"] else "train",
        )


def _annotations(file: Path, *fields: str) -> Iterator[Any]:
    for row in read_mat(file, "annotations"):
        if row.dtype.names is None or not set(fields) <= set(row.dtype.names):
            raise ValueError(f"{file.name} has annotations without the fields {' and '.join(map(repr, fields))}")
        yield row


def _folder(base: Path, name: str) -> str:
    """Return the folder of images, which some archives nest in one of the same name."""
    return f"{name}/{name}" if (base / name / name).is_dir() else name


READER = Reader(
    _read,
    f"Stanford Cars as published, in the root or in stanford_cars/: devkit/{_META}, devkit/{_TRAIN}, {_TEST}, "
    "cars_train/<image>.jpg and cars_test/<image>.jpg; the lists may lie without devkit/, and folders be nested as "
    f"cars_train/cars_train/; or {_ALL} with car_ims/<image>.jpg",
    _find,
    {"Stanford Cars": {"train": 8144, "test": 8041, "classes": 196}},
    aside=("car_ims", "cars_train", "cars_test"),
)
