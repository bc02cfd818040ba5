"""FGVC-Aircraft, release 2013b."""

from __future__ import annotations

from pathlib import Path

from gcplib.lab.data.layouts.listing import Layout, Listing, first
from gcplib.lab.data.layouts.reading import find_folder, read_table

__all__ = ["LAYOUT"]

# The papers train on trainval. So the published validation images are training images here; models are chosen on
# images that ImagesSpec holds out of both, as for the data sets that publish no validation images.
_SPLITS = {"train": "train", "val": "train", "test": "test"}


def _find(root: Path) -> Path | None:
    return find_folder(root, ("", "data", "fgvc-aircraft-2013b/data"), "images_variant_train.txt")


def _read(root: Path) -> Listing:
    """Read FGVC-Aircraft: the fine classes are variants, the coarse classes are manufacturers.

    The published hierarchy is variant, family, manufacturer; of the two coarser levels we take the manufacturer.
    The lowest 20 pixels of every image are a banner with its copyright, which the publishers advise to cut off.
    The papers' code resizes the whole image, banner included, and so do we.
    """
    base = _find(root)
    if base is None:
        raise ValueError("no images_variant_train.txt here, in data/ or in fgvc-aircraft-2013b/data/")
    names = _lines(base / "variants.txt")
    numbers = {name: number for number, name in enumerate(names)}
    paths, classes, splits = [], [], []
    makers: dict[str, str] = {}
    for part, split in _SPLITS.items():
        variants, manufacturers = (
            read_table(base / f"images_{level}_{part}.txt") for level in ("variant", "manufacturer")
        )
        if odd := sorted(variants.keys() ^ manufacturers.keys()):
            raise ValueError(
                f"images_variant_{part}.txt and images_manufacturer_{part}.txt disagree on {len(odd)} images: "
                f"{first(odd)}"
            )
        for key, variant in variants.items():
            if variant not in numbers:
                raise ValueError(f"images_variant_{part}.txt has the variant {variant!r}, which variants.txt has not")
            maker = makers.setdefault(variant, manufacturers[key])
            if maker != manufacturers[key]:
                raise ValueError(f"the variant {variant!r} has two manufacturers: {maker}, {manufacturers[key]}")
            paths.append(f"images/{key}.jpg")
            classes.append(numbers[variant])
            splits.append(split)
    # A variant without images is refused by `check_listing`, which names it; until then it has some manufacturer.
    return Listing(base, paths, classes, splits, names, [makers.get(name, "") for name in names])


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"no {path.name} in {path.parent}")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


LAYOUT = Layout(
    _read,
    "fgvc-aircraft-2013b/data as published (or a folder around it): variants.txt, images_variant_<split>.txt and "
    "images_manufacturer_<split>.txt for train, val and test, and images/<number>.jpg",
    _find,
    {"FGVC-Aircraft 2013b": {"train": 6667, "test": 3333, "classes": 100}},
)
