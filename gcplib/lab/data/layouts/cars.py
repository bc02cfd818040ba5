"""Stanford Cars."""

from __future__ import annotations

from pathlib import Path

from gcplib.lab.data.layouts.listing import Layout, Listing
from gcplib.lab.data.layouts.reading import find_folder, read_mat

__all__ = ["LAYOUT"]

_TEST = "cars_test_annos_withlabels.mat"


def _find(root: Path) -> Path | None:
    return find_folder(root, ("", "stanford_cars"), "devkit/cars_meta.mat")


def _read(root: Path) -> Listing:
    """Read Stanford Cars.

    A class is called "make model type year"; the coarse classes are the last words but one, which are mostly the type
    of body (Sedan, SUV, Coupe, Cab). That is our own reading: these files hold no coarse classes. A few names have no
    type ("Chevrolet Corvette ZR1 2012" gives ZR1).
    """
    base = _find(root)
    if base is None:
        raise ValueError("no devkit/cars_meta.mat here or in stanford_cars/")
    names = [" ".join(str(name).split()) for name in read_mat(base / "devkit" / "cars_meta.mat", "class_names")]
    if odd := [name for name in names if len(name.split()) < 2]:
        raise ValueError(f"cars_meta.mat has the class {odd[0]!r}, which is no make, model, type and year")
    test = next((base / place / _TEST for place in ("", "devkit") if (base / place / _TEST).is_file()), None)
    if test is None:
        raise ValueError(f"no {_TEST} here or in devkit/ (cars_test_annos.mat has no labels)")
    paths, classes, splits = [], [], []
    for split, file in (("train", base / "devkit" / "cars_train_annos.mat"), ("test", test)):
        for row in read_mat(file, "annotations"):
            if row.dtype.names is None or not {"class", "fname"} <= set(row.dtype.names):
                raise ValueError(f"{file.name} has annotations without the fields 'class' and 'fname'")
            number = int(row["class"])
            if not 1 <= number <= len(names):
                raise ValueError(f"{file.name} has the class {number}; cars_meta.mat has 1 to {len(names)}")
            paths.append(f"cars_{split}/{row['fname']}")
            classes.append(number - 1)
            splits.append(split)
    return Listing(base, paths, classes, splits, names, [name.split()[-2] for name in names])


LAYOUT = Layout(
    _read,
    "Stanford Cars as published, in the root or in stanford_cars/: devkit/cars_meta.mat, devkit/cars_train_annos.mat, "
    f"{_TEST}, cars_train/<image>.jpg and cars_test/<image>.jpg",
    _find,
    {"Stanford Cars": {"train": 8144, "test": 8041, "classes": 196}},
)
