"""FGVC-Aircraft, release 2013b."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gcplib.lab.data.readers.listing import Listing, Reader, listing_of
from gcplib.lab.data.readers.reading import find_folder, folder_with, read_lines, read_tables

_MARK = {"places": ("", "data", "fgvc-aircraft-2013b/data"), "mark": "images_variant_train.txt"}
# The papers train on trainval. So the published validation images are training images here; models are chosen on
# images that ImagesSpec holds out of both, as for the data sets that publish no validation images.
_SPLITS = {"train": "train", "val": "train", "test": "test"}


def _read(root: Path) -> Listing:
    """Read FGVC-Aircraft: the fine classes are variants, the coarse classes are manufacturers.

    The published hierarchy is variant, family, manufacturer; of the two coarser levels we take the manufacturer.
    The lowest 20 pixels of every image are a banner with its copyright, which the publishers advise to cut off.
    The papers' code resizes the whole image, banner included, and so do we.
    """
    base = folder_with(root, **_MARK)
    names = {line: line for _, line in read_lines(base / "variants.txt")}
    rows, makers = [], {}
    for part, split in _SPLITS.items():
        variants, manufacturers = read_tables(base, f"images_variant_{part}.txt", f"images_manufacturer_{part}.txt")
        for key, variant in variants.items():
            maker = makers.setdefault(variant, manufacturers[key])
            if maker != manufacturers[key]:
                raise ValueError(f"the variant {variant!r} has two manufacturers: {maker}, {manufacturers[key]}")
            rows.append((f"images/{key}.jpg", variant, split))
    # A variant without images is refused by `check_listing`, which names it; until then it has some manufacturer.
    return listing_of(base, rows, names, [makers.get(name, "") for name in names], source="variants.txt")


READER = Reader(
    _read,
    "fgvc-aircraft-2013b/data as published (or a folder around it): variants.txt, images_variant_<split>.txt and "
    "images_manufacturer_<split>.txt for train, val and test, and images/<number>.jpg",
    partial(find_folder, **_MARK),
    {"FGVC-Aircraft 2013b": {"train": 6667, "test": 3333, "classes": 100}},
)
