"""iNaturalist: the competition's data sets of 2017 to 2021."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gcplib.lab.data.readers.listing import Listing, Reader, first, listing_of
from gcplib.lab.data.readers.reading import ENCODING, existing, flat_classes, rows_of, scan

# 2017 to 2019 come with tables in COCO's format, 2021 with folders that are named after the whole taxonomy.
# The archives' own names, and those that torchvision gives them. The small training set is for want of the large one.
_TRAIN, _MINI, _VAL = ("train", "2021_train"), ("train_mini", "2021_train_mini"), ("val", "2021_valid")
# Number, kingdom, phylum, class, order, family, genus and species.
_TAXON = re.compile(r"\d+(_[^_]+){7}")
# The parts of a table in COCO's format, and what we need of each entry.
_TABLE = {"images": {"id", "file_name"}, "annotations": {"image_id", "category_id"}, "categories": {"id", "name"}}


def _sources(root: Path) -> dict[str, Callable[[Path], Listing]]:
    """Return the readers of the tables that are there, and of the first folder that is named as in 2021."""
    years = [year for year in (2017, 2018, 2019) if (root / f"train{year}.json").is_file()]
    folders = (name for name in _TRAIN + _MINI if (root / name).is_dir())
    named = [name for name in folders if any(map(_TAXON.fullmatch, scan(root / name)[0]))][:1]
    tables = {f"train{year}.json": partial(_read_tables, year=year) for year in years}
    return tables | {f"{name}/": partial(_read_folders, train=name) for name in named}


def _read(root: Path) -> Listing:
    """Read iNaturalist. Its validation images are the test images here: labels of its own test set are not public.

    The fine classes are species. The coarse classes are the supercategories of the tables (Birds, Plants), and for
    2021 the taxonomic classes (Aves, Insecta); tables that tell neither give none.
    """
    sources = _sources(root)
    if not sources:
        raise ValueError(
            "no train2017.json, train2018.json or train2019.json, and no train/ with folders such as "
            "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris"
        )
    if len(sources) > 1:
        raise ValueError(f"several years are here ({first(list(sources))}); give each a folder of its own")
    (read,) = sources.values()
    return read(root)


def _read_folders(root: Path, train: str) -> Listing:
    val = next((name for name in _VAL if (root / name).is_dir()), None)
    if val is None:
        raise ValueError(f"no folder {' or '.join(_VAL)}")
    trees = {split: flat_classes(root, name) for split, name in (("train", train), ("test", val))}
    folders = sorted({*trees["train"], *trees["test"]})
    if odd := [name for name in folders if not _TAXON.fullmatch(name)]:
        raise ValueError(
            f"{len(odd)} class folders are not named by number, kingdom, ..., genus, species: {first(odd)}"
        )
    taxa = {name: name.split("_") for name in folders}
    names = {name: " ".join(taxon[-2:]) for name, taxon in taxa.items()}
    edition = "iNaturalist 2021 mini" if train in _MINI else "iNaturalist 2021"
    return listing_of(root, rows_of(trees), names, [taxon[3] for taxon in taxa.values()], edition)


def _read_tables(root: Path, year: int) -> Listing:
    tables = {part: _table(root / f"{part}{year}.json") for part in ("train", "val")}
    rows = []
    for part, table in tables.items():
        labels = {row["image_id"]: row["category_id"] for row in table["annotations"]}
        if unlabeled := [row["file_name"] for row in table["images"] if row["id"] not in labels]:
            raise ValueError(f"{part}{year}.json has no annotation of {len(unlabeled)} images: {first(unlabeled)}")
        split = "train" if part == "train" else "test"
        rows += [(row["file_name"], labels[row["id"]], split) for row in table["images"]]
    source = f"train{year}.json"
    categories = {row["id"]: row for row in sorted(tables["train"]["categories"], key=lambda row: row["id"])}
    if (root / "categories.json").is_file():
        # Names that were kept secret during the competitions of 2018 and 2019, and published later.
        names = {row.get("id"): row for row in _json(root / "categories.json", list)}
        if unknown := [str(key) for key in categories if "name" not in names.get(key, ())]:
            raise ValueError(
                f"categories.json has no names for {len(unknown)} categories of {source}: {first(unknown)}"
            )
        categories = {key: row | names[key] for key, row in categories.items()}
    level = next((n for n in ("supercategory", "class") if all(row.get(n) for row in categories.values())), None)
    groups = [str(row[level]) for row in categories.values()] if level else None
    names = {key: str(row["name"]) for key, row in categories.items()}
    return listing_of(root, rows, names, groups, f"iNaturalist {year}", source)


def _table(path: Path) -> dict[str, Any]:
    table = _json(path, dict)
    for part, keys in _TABLE.items():
        rows = table.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
            raise ValueError(f"{path.name}: {part!r} should be a list of entries with {' and '.join(sorted(keys))}")
    return table


def _json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(existing(path).read_text(encoding=ENCODING))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path.name} should hold a {kind.__name__}, but holds a {type(value).__name__}")
    return value


READER = Reader(
    _read,
    "iNaturalist as published: for 2021 train/ (or train_mini/, 2021_train/, 2021_train_mini/) and val/ (or "
    "2021_valid/) with folders such as 00000_Animalia_..._Lumbricus_terrestris; for 2017 to 2019 train<year>.json, "
    "val<year>.json and the images that they name",
    lambda root: root if _sources(root) else None,
    {
        "iNaturalist 2017": {"train": 579184, "test": 95986, "classes": 5089},
        "iNaturalist 2018": {"train": 437513, "test": 24426, "classes": 8142},
        "iNaturalist 2019": {"train": 265213, "test": 3030, "classes": 1010},
        "iNaturalist 2021": {"train": 2686843, "test": 100000, "classes": 10000},
        "iNaturalist 2021 mini": {"train": 500000, "test": 100000, "classes": 10000},
    },
    # The small part of 2021 beside the large one, and images whose labels are secret.
    aside=(*_MINI, "test", "public_test", "2021_test", "test2017", "test2018", "test2019"),
)
