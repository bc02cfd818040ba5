"""Tiny data sets on disk, in every published layout. A class has one color, which tells the labels of its images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

COLORS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]
BIRDS = ("Sooty_Albatross", "Laysan_Albatross", "House_Wren", "Marsh_Wren")
VARIANTS = {"707-320": "Boeing", "A300B4": "Airbus", "737-200": "Boeing"}
CARS = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Audi A4 Sedan 2007")
DOGS = ("n02085620-Chihuahua", "n02086240-Shih-Tzu", "n02086646-Blenheim_spaniel")
SPECIES = (
    "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris",
    "00001_Animalia_Chordata_Aves_Passeriformes_Troglodytidae_Troglodytes_aedon",
    "00002_Animalia_Chordata_Aves_Strigiformes_Tytonidae_Tyto_alba",
)
SYNSETS = {"n01440764": "tench, Tinca tinca", "n02012849": "crane", "n03126707": "crane"}
SCENES = {"aid": "Airport/airport_{}.jpg", "nwpu": "airplane/airplane_{:03d}.jpg", "ucm": "forest/forest{:02d}.tif"}
PROBABILITIES = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")

Painter = Callable[[int, np.random.Generator], np.ndarray]
Counts = int | Sequence[int]


def plain(label: int, rng: np.random.Generator) -> np.ndarray:
    """One color."""
    return np.full((40, 60, 3), COLORS[label], dtype=np.uint8)


def shaded(label: int, rng: np.random.Generator) -> np.ndarray:
    """One color, brighter on the left, with noise."""
    shade = np.linspace(1, 0.3, 80)[:, None] * np.array(COLORS[label]) + rng.integers(0, 30, (70, 80, 3))
    return shade.astype(np.uint8)


def striped(label: int, rng: np.random.Generator) -> np.ndarray:
    """Stripes on noise: their distance is the kind of bird, their direction the bird."""
    stripes = np.indices((100, 120))[(label + 1) % 2] // (6 if label > 1 else 3) % 2
    return (120 * stripes[..., None] + rng.integers(0, 100, (100, 120, 3))).astype(np.uint8)


def save(path: Path, pixels: np.ndarray | tuple[int, int, int], size: tuple[int, int] = (60, 40)) -> None:
    """Write an image, or one of a single color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, pixels) if isinstance(pixels, tuple) else Image.fromarray(pixels)
    image.save(path)


def _each(counts: Counts, classes: int) -> list[int]:
    return [counts] * classes if isinstance(counts, int) else list(counts)


def fill(place: Callable[[int, str, int], Path], classes: int, **splits: Counts) -> list[tuple[int, str, Path]]:
    """Write plain images and return label, split and path of each; ``place(label, split, number)`` says where."""
    rng, rows = np.random.default_rng(0), []
    for split, counts in splits.items():
        for label, count in enumerate(_each(counts, classes)):
            for number in range(count):
                path = place(label, split, number)
                save(path, plain(label, rng))
                rows.append((label, split, path))
    return rows


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def make_cub(
    root: Path, train: Counts = 5, test: Counts = 2, birds: Sequence[str] = BIRDS[:3], paint: Painter = plain
) -> Path:
    """CUB-200-2011: the images of a bird are one after the other, those for training first."""
    tables: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": [], "classes": []}
    rng = np.random.default_rng(0)
    for label, name in enumerate(birds):
        folder = f"{label + 1:03d}.{name}"
        tables["classes"].append(f"{label + 1} {folder}")
        held = _each(train, len(birds))[label]
        for place in range(held + _each(test, len(birds))[label]):
            number = len(tables["images"]) + 1
            save(root / "images" / folder / f"{name}_{place}.jpg", paint(label, rng))
            tables["images"].append(f"{number} {folder}/{name}_{place}.jpg")
            tables["image_class_labels"].append(f"{number} {label + 1}")
            tables["train_test_split"].append(f"{number} {int(place < held)}")
    for name, rows in tables.items():
        _write(root / f"{name}.txt", rows)
    return root


def make_folder(root: Path, tree: dict[str, int]) -> Path:
    """``tree`` maps ``split/[coarse/]class`` to a number of images, each lighter than the one before."""
    for folder, count in tree.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            save(root / folder / f"{number}.png", (20 * number,) * 3)
    return root


def make_aircraft(root: Path, train: Counts = 3, test: Counts = 2, val: Counts = 1) -> Path:
    """FGVC-Aircraft 2013b, below a folder of its name."""
    base, names = root / "fgvc-aircraft-2013b" / "data", list(VARIANTS)
    order = ("train", "val", "test")
    rows = fill(
        lambda label, split, number: base / "images" / f"0{order.index(split)}{label}{number:03d}.jpg",
        len(names),
        train=train,
        val=val,
        test=test,
    )
    _write(base / "variants.txt", names)
    for part in order:
        own = [(path.stem, names[label]) for label, split, path in rows if split == part]
        _write(base / f"images_variant_{part}.txt", [f"{key} {name}" for key, name in own])
        _write(base / f"images_manufacturer_{part}.txt", [f"{key} {VARIANTS[name]}" for key, name in own])
    return root


def make_cars(root: Path, train: Counts = 4, test: Counts = 2) -> Path:
    """Stanford Cars, below ``stanford_cars``."""
    base = root / "stanford_cars"
    rows = fill(
        lambda label, split, number: base / f"cars_{split}" / f"{100 * label + number + 1:05d}.jpg",
        len(CARS),
        train=train,
        test=test,
    )
    (base / "devkit").mkdir()
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(CARS, dtype=object)})
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        fields = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
        own = [(1, label + 1, path.name) for label, part, path in rows if part == split]
        savemat(base / file, {"annotations": np.array([own], dtype=fields)})
    return root


def make_dogs(root: Path, train: Counts = 4, test: Counts = 2) -> Path:
    """Stanford Dogs, with the lists in a folder."""
    rows = fill(
        lambda label, split, number: root / "Images" / DOGS[label] / f"{DOGS[label][:9]}_{split}{number}.jpg",
        len(DOGS),
        train=train,
        test=test,
    )
    for split in ("train", "test"):
        own = [(label, f"{path.parent.name}/{path.name}") for label, part, path in rows if part == split]
        save_dog_list(root / "lists" / f"{split}_list.mat", own)
    return root


def save_dog_list(file: Path, rows: Sequence[tuple[int, str]]) -> None:
    """Write a list of Stanford Dogs: a column of paths, and one of labels from 1."""
    file.parent.mkdir(exist_ok=True)
    paths = np.array([path for _, path in rows], dtype=object)[:, None]
    savemat(file, {"file_list": paths, "labels": np.array([[label + 1] for label, _ in rows])})


def make_inaturalist(root: Path, train: Counts = 4, test: Counts = 2, names: Sequence[str] = ("train", "val")) -> Path:
    """iNaturalist 2021: folders in ``names`` for training and validation."""
    folders = dict(zip(("train", "test"), names, strict=True))
    fill(
        lambda label, split, number: root / folders[split] / SPECIES[label] / f"{label}{number}.jpg",
        len(SPECIES),
        train=train,
        test=test,
    )
    return root


def make_inaturalist_tables(root: Path, train: Counts = 4, test: Counts = 2, year: str = "2018") -> Path:
    """iNaturalist 2017 to 2019: tables in COCO's format."""
    kinds = ("Birds", "Birds", "Plants")
    rows = fill(
        lambda label, split, number: (
            root / f"train_val{year}" / kinds[label] / str(label) / f"{split}{label}{number}.jpg"
        ),
        len(kinds),
        train=train,
        test=test,
    )
    categories = [{"id": n, "name": f"species {n}", "supercategory": kind} for n, kind in enumerate(kinds)]
    for part, split in (("train", "train"), ("val", "test")):
        own = [(n, label, path) for n, (label, held, path) in enumerate(rows) if held == split]
        table = {
            "images": [{"id": n, "file_name": path.relative_to(root).as_posix()} for n, _, path in own],
            "annotations": [{"id": 7 * n, "image_id": n, "category_id": label} for n, label, _ in own[::-1]],
            "categories": categories[::-1],
        }
        (root / f"{part}{year}.json").write_text(json.dumps(table))
    return root


def make_imagenet(root: Path, train: Counts = 4, test: Counts = 2) -> Path:
    """ImageNet with folders of classes in ``train`` and ``val``."""
    wnids = list(SYNSETS)
    folders = {"train": "train", "test": "val"}
    fill(
        lambda label, split, number: root / folders[split] / wnids[label] / f"{wnids[label]}_{number}.JPEG",
        len(wnids),
        train=train,
        test=test,
    )
    return root


def make_kaggle_imagenet(root: Path, train: Counts = 4, test: Counts = 2) -> Path:
    """ImageNet as Kaggle packs it: a flat ``val``, and tables of labels and names beside the folder ILSVRC."""
    base, wnids = root / "ILSVRC" / "Data" / "CLS-LOC", list(SYNSETS)

    def place(label: int, split: str, number: int) -> Path:
        if split == "train":
            return base / "train" / wnids[label] / f"{wnids[label]}_{number}.JPEG"
        return base / "val" / f"ILSVRC2012_val_{10 * number + label:08d}.JPEG"

    rows = fill(place, len(wnids), train=train, test=test)
    answers = [f"{path.stem},{wnids[label]} 1 2 3 4 " for label, split, path in rows if split == "test"]
    _write(root / "LOC_val_solution.csv", ["ImageId,PredictionString", *answers])
    _write(root / "LOC_synset_mapping.txt", [f"{wnid} {name}" for wnid, name in SYNSETS.items()])
    return root


def make_elpv(root: Path, cells: Counts = 4) -> Path:
    """ELPV: gray images, so many of each probability and kind of cell."""
    lines = []
    for label, (probability, count) in enumerate(zip(PROBABILITIES, _each(cells, 4), strict=True)):
        for kind in ("mono", "poly"):
            for _ in range(count):
                name = f"images/cell{len(lines) + 1:04d}.png"
                save(root / name, np.full((30, 30), 60 * label, dtype=np.uint8))
                lines.append(f"{name} {probability:<19} {kind}")
    _write(root / "labels.csv", lines)
    return root


def make_grocery(root: Path, train: Counts = 4, val: Counts = 1, test: Counts = 2) -> Path:
    """Grocery Store, with validation images of its own."""
    names, kinds = ("Granny-Smith", "Pink-Lady", "Banana"), ("Apple", "Apple", "Banana")
    rows = fill(
        lambda label, split, number: root / split / "Fruit" / kinds[label] / names[label] / f"{number}.jpg",
        len(names),
        train=train,
        val=val,
        test=test,
    )
    for part in ("train", "val", "test"):
        own = [(path.relative_to(root).as_posix(), label) for label, split, path in rows if split == part]
        _write(root / f"{part}.txt", [f"{path}, {label}, {int(label == 2)}" for path, label in own])
    header = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)"
    classes = [f"{name},{n},{kind},{int(n == 2)}" for n, (name, kind) in enumerate(zip(names, kinds, strict=True))]
    _write(root / "classes.csv", [header, *classes])
    return root


def make_table(root: Path, train: Counts = 4, test: Counts = 2) -> Path:
    """Images in one folder and a CSV, as a spreadsheet writes it."""
    names, kinds = ("lion", "lynx", "wolf"), ("cat", "cat", "dog")
    rows = fill(lambda label, split, n: root / "photos" / f"{split}{label}{n}.png", len(names), train=train, test=test)
    lines = [f"photos/{path.name},{names[label]},{split},{kinds[label]}" for label, split, path in rows]
    root.mkdir(exist_ok=True)
    (root / "list.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["Path,Label,Split,Coarse", *lines, ""]).encode())
    return root


def make_scenes(root: Path, kind: str = "aid", images: Counts = 10) -> Path:
    """AID, NWPU-RESISC45 or UC Merced, with three classes, below the folder that its archive has."""
    base = root / {"aid": "AID", "nwpu": "NWPU-RESISC45", "ucm": "UCMerced_LandUse/Images"}[kind]
    folder, _, file = SCENES[kind].partition("/")

    def place(label: int, split: str, number: int) -> Path:
        extra = "abc"[label]
        return base / (folder + extra) / file.format(number + 1).replace(folder.lower(), folder.lower() + extra)

    fill(place, 3, all=images)
    return root
