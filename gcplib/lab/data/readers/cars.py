"""Stanford Cars."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import find_folder, folder_with, read_mat

_MARK = {"places": ("", "stanford_cars"), "mark": "devkit/cars_meta.mat"}
_TEST = "cars_test_annos_withlabels.mat"


def _read(root: Path) -> Listing:
    """Read Stanford Cars.

    A class is called "make model type year"; the coarse classes are the last words but one, which are mostly the type
    of body (Sedan, SUV, Coupe, Cab). That is our own reading: these files hold no coarse classes. A few names have no
    type ("Chevrolet Corvette ZR1 2012" gives ZR1).
    """
    base = folder_with(root, **_MARK)
    texts = [" ".join(str(name).split()) for name in read_mat(base / "devkit" / "cars_meta.mat", "class_names")]
    if odd := [name for name in texts if len(name.split()) < 2]:
        raise ValueError(f"cars_meta.mat has the class {odd[0]!r}, which is no make, model, type and year")
    test = find_folder(base, ("", "devkit"), _TEST)
    if test is None:
        raise ValueError(f"no {_TEST} here or in devkit/ (cars_test_annos.mat has no labels)")
    rows = []
    for split, file in (("train", base / "devkit" / "cars_train_annos.mat"), ("test", test / _TEST)):
        for row in read_mat(file, "annotations"):
            if row.dtype.names is None or not {"class", "fname"} <= set(row.dtype.names):
                raise ValueError(f"{file.name} has annotations without the fields 'class' and 'fname'")
            rows.append((f"cars_{split}/{row['fname']}", int(row["class"]), split))
    groups = [name.split()[-2] for name in texts]
    return listing_of(base, rows, dict(enumerate(texts, 1)), groups, source="cars_meta.mat")


READER = Reader(
    _read,
    "Stanford Cars as published, in the root or in stanford_cars/: devkit/cars_meta.mat, devkit/cars_train_annos.mat, "
    f"{_TEST}, cars_train/<image>.jpg and cars_test/<image>.jpg",
    partial(find_folder, **_MARK),
    {"Stanford Cars": {"train": 8144, "test": 8041, "classes": 196}},
)
