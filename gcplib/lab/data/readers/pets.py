"""Oxford-IIIT Pets: breeds of cats and dogs."""

from __future__ import annotations

from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import find_folder, folder_with, read_table

_PLACES = ("", "oxford-iiit-pet")  # the second is what torchvision calls it
_LISTS = {"trainval": "train", "test": "test"}
_SPECIES = {"1": "cat", "2": "dog"}


def _find(root: Path) -> Path | None:
    base = find_folder(root, _PLACES, "annotations/trainval.txt")
    return base if base and (base / "annotations" / "test.txt").is_file() and (base / "images").is_dir() else None


def _read(root: Path) -> Listing:
    """Read Oxford-IIIT Pets: the fine classes are breeds, the coarse ones cat and dog.

    It publishes no validation images: its list ``trainval`` is for training here. Some of its images are in no list.
    """
    base = folder_with(root, _PLACES, "annotations/trainval.txt")
    rows = []
    names: dict[str, str] = {}
    groups: dict[str, str] = {}
    for part, split in _LISTS.items():
        for image, values in read_table(base / "annotations" / f"{part}.txt").items():
            label, species, *_ = [*values.split(), ""]
            if not label.isdecimal() or species not in _SPECIES:
                raise ValueError(
                    f"{part}.txt has {values!r} after {image}, where the number of a breed and 1 (cat) or 2 (dog) "
                    "are expected"
                )
            # "great_pyrenees_100": the number is the image's.
            breed = image.rpartition("_")[0].replace("_", " ") or image
            if (names.setdefault(label, breed), groups.setdefault(label, species)) != (breed, species):
                raise ValueError(f"{part}.txt has the class {label} for {names[label]!r} and, with {image}, otherwise")
            rows.append((f"images/{image}.jpg", label, split))
    order = sorted(names, key=int)
    return listing_of(base, rows, {key: names[key] for key in order}, [_SPECIES[groups[key]] for key in order])


READER = Reader(
    _read,
    "Oxford-IIIT Pets as published, here or in oxford-iiit-pet/: annotations/trainval.txt, annotations/test.txt and "
    "images/<breed>_<number>.jpg",
    _find,
    {"Oxford-IIIT Pets": {"train": 3680, "test": 3669, "classes": 37}},
)
