"""iNaturalist: the competition's data sets of 2017 to 2021."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gcplib.lab.data.layouts.listing import Layout, Listing, first
from gcplib.lab.data.layouts.reading import flat_classes, scan

__all__ = ["LAYOUT"]

# 2017 to 2019 come with tables in COCO's format, 2021 with folders that are named after the whole taxonomy.
_YEARS = ("2017", "2018", "2019")
# The archives' own names, and those that torchvision gives them. The small training set is for want of the large one.
_TRAIN, _MINI, _VAL = ("train", "2021_train"), ("train_mini", "2021_train_mini"), ("val", "2021_valid")
_LEVELS = ("number", "kingdom", "phylum", "class", "order", "family", "genus", "species")


def _find(root: Path) -> Path | None:
    return root if _years(root) or _folder(root, _TRAIN + _MINI) else None


def _years(root: Path) -> list[str]:
    return [year for year in _YEARS if (root / f"train{year}.json").is_file()]


def _folder(root: Path, names: tuple[str, ...]) -> str | None:
    """Return the first of these folders that holds folders of 2021."""
    for name in names:
        if (root / name).is_dir() and any(len(_levels(folder)) == len(_LEVELS) for folder in scan(root / name)[0]):
            return name
    return None


def _levels(folder: str) -> dict[str, str]:
    parts = folder.split("_")
    whole = len(parts) == len(_LEVELS) and parts[0].isdigit()
    return dict(zip(_LEVELS, parts, strict=True)) if whole else {}


def _read(root: Path) -> Listing:
    """Read iNaturalist. Its validation images are the test images here: labels of its own test set are not public.

    The fine classes are species. The coarse classes are the supercategories of the tables (Birds, Plants), and for
    2021 the taxonomic classes (Aves, Insecta); tables that tell neither give none.
    """
    years, folder = _years(root), _folder(root, _TRAIN + _MINI)
    if len(years) + bool(folder) > 1:
        found = [f"train{year}.json" for year in years] + [f"{folder}/"] * bool(folder)
        raise ValueError(f"several years are here ({first(found)}); give each a folder of its own")
    if years:
        return _read_tables(root, years[0])
    if folder:
        return _read_folders(root, folder)
    raise ValueError(
        "no train2017.json, train2018.json or train2019.json, and no train/ with folders such as "
        "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris"
    )


def _read_folders(root: Path, train: str) -> Listing:
    val = next((name for name in _VAL if (root / name).is_dir()), None)
    if val is None:
        raise ValueError(f"no folder {' or '.join(_VAL)}")
    trees = {split: flat_classes(root, name) for split, name in (("train", train), ("test", val))}
    folders = sorted({*trees["train"], *trees["test"]})
    taxa = [_levels(name) for name in folders]
    if odd := [name for name, levels in zip(folders, taxa, strict=True) if not levels]:
        raise ValueError(f"{len(odd)} class folders are not named by {', '.join(_LEVELS)}: {first(odd)}")
    numbers = {name: number for number, name in enumerate(folders)}
    rows = [
        (path, numbers[name], split) for split, tree in trees.items() for name, paths in tree.items() for path in paths
    ]
    paths, classes, splits = map(list, zip(*rows, strict=True))
    return Listing(
        root,
        paths,
        classes,
        splits,
        [f"{levels['genus']} {levels['species']}" for levels in taxa],
        [levels["class"] for levels in taxa],
        "iNaturalist 2021 mini" if train in _MINI else "iNaturalist 2021",
    )


def _read_tables(root: Path, year: str) -> Listing:
    tables = {split: _table(root, f"{part}{year}.json") for split, part in (("train", "train"), ("test", "val"))}
    categories = _categories(root, f"train{year}.json", tables["train"]["categories"])
    numbers = {key: number for number, key in enumerate(sorted(categories))}
    paths, classes, splits = [], [], []
    for split, table in tables.items():
        labels = {row["image_id"]: row["category_id"] for row in table["annotations"]}
        name = f"{'val' if split == 'test' else split}{year}.json"
        if unlabeled := [row["file_name"] for row in table["images"] if row["id"] not in labels]:
            raise ValueError(f"{name} has no annotation of {len(unlabeled)} images: {first(unlabeled)}")
        if unknown := sorted({str(key) for key in labels.values() if key not in numbers}):
            raise ValueError(f"{name} has categories that train{year}.json has not: {first(unknown)}")
        for row in table["images"]:
            paths.append(row["file_name"])
            classes.append(numbers[labels[row["id"]]])
            splits.append(split)
    rows = [categories[key] for key in numbers]
    level = next((level for level in ("supercategory", "class") if all(row.get(level) for row in rows)), None)
    groups = [str(row[level]) for row in rows] if level else None
    return Listing(root, paths, classes, splits, [str(row["name"]) for row in rows], groups, f"iNaturalist {year}")


def _categories(root: Path, name: str, rows: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Return the categories by id, with the names that were kept secret during the competitions of 2018 and 2019.

    They were published later, as categories.json, which wins where it is there.
    """
    found = {row["id"]: row for row in rows}
    if not (root / "categories.json").is_file():
        return found
    names = {row.get("id"): row for row in _json(root / "categories.json", list)}
    if unknown := sorted(str(key) for key in found if "name" not in names.get(key, ())):
        raise ValueError(f"categories.json has no names for {len(unknown)} categories of {name}: {first(unknown)}")
    return {key: row | names[key] for key, row in found.items()}


def _table(root: Path, name: str) -> dict[str, Any]:
    table = _json(root / name, dict)
    for part, keys in {
        "images": {"id", "file_name"},
        "annotations": {"image_id", "category_id"},
        "categories": {"id", "name"},
    }.items():
        rows = table.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
            raise ValueError(f"{name}: {part!r} should be a list of entries with {' and '.join(sorted(keys))}")
    return table


def _json(path: Path, kind: type) -> Any:
    if not path.is_file():
        raise ValueError(f"no {path.name} beside its other files")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path.name} should hold a {kind.__name__}, but holds a {type(value).__name__}")
    return value


LAYOUT = Layout(
    _read,
    "iNaturalist as published: for 2021 train/ (or train_mini/, 2021_train/, 2021_train_mini/) and val/ (or "
    "2021_valid/) with folders such as 00000_Animalia_..._Lumbricus_terrestris; for 2017 to 2019 train<year>.json, "
    "val<year>.json and the images that they name",
    _find,
    {
        "iNaturalist 2017": {"train": 579184, "test": 95986, "classes": 5089},
        "iNaturalist 2018": {"train": 437513, "test": 24426, "classes": 8142},
        "iNaturalist 2019": {"train": 265213, "test": 3030, "classes": 1010},
        "iNaturalist 2021": {"train": 2686843, "test": 100000, "classes": 10000},
        "iNaturalist 2021 mini": {"train": 500000, "test": 100000, "classes": 10000},
    },
)
