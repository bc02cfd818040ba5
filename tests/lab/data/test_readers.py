"""Every published data set, read from tiny trees: by its tables, as torchvision reads it, and refused when broken."""

import functools
import importlib.util
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchvision.datasets as oracles
import trees
from scipy.io import savemat

from gcplib.lab.data import ImagesSpec, choose_data, load_data, load_images
from gcplib.lab.data.readers import DATASETS, guess_dataset, list_images

COUNTS = {"families": 4, "train": 4, "validation": 2, "test": 2, "pixels": 64}


class Tree(NamedTuple):
    """A builder, and what a reader should find with it: per class, ``train`` and ``test`` images."""

    dataset: str
    make: Callable[..., Path]
    names: list[str]
    groups: list[str] | None
    train: int = 4
    test: int = 2


def _nested(root: Path, train: int = 4, test: int = 2) -> Path:
    keys = ("cat/lion", "cat/lynx", "dog/wolf")
    trees.fill(lambda label, split, n: root / split / keys[label] / f"{n}.png", 3, train=train, test=test)
    return root


WORM = ["Lumbricus terrestris", "Troglodytes aedon", "Tyto alba"]
WORM_GROUPS = ["Clitellata", "Aves", "Aves"]
PLAIN_SPECIES = ["species 0", "species 1", "species 2"]
CRANES = ["tench", "crane (n02012849)", "crane (n03126707)"]
TREES = {
    "cub": Tree(
        "cub",
        trees.make_cub,
        ["Sooty Albatross", "Laysan Albatross", "House Wren"],
        ["Albatross", "Albatross", "Wren"],
        5,
    ),
    "aircraft": Tree("aircraft", trees.make_aircraft, list(trees.VARIANTS), ["Boeing", "Airbus", "Boeing"]),
    "cars": Tree("cars", trees.make_cars, list(trees.CARS), ["SUV", "Sedan", "Sedan"]),
    "dogs": Tree("dogs", trees.make_dogs, ["Chihuahua", "Shih-Tzu", "Blenheim spaniel"], None),
    "inaturalist": Tree("inaturalist", trees.make_inaturalist, WORM, WORM_GROUPS),
    "inaturalist_tables": Tree(
        "inaturalist", trees.make_inaturalist_tables, PLAIN_SPECIES, ["Birds", "Birds", "Plants"]
    ),
    "imagenet": Tree("imagenet", trees.make_imagenet, list(trees.SYNSETS), None),
    "imagenet_kaggle": Tree("imagenet", trees.make_kaggle_imagenet, CRANES, None),
    "elpv": Tree(
        "elpv", trees.make_elpv, ["0 %", "33 %", "67 %", "100 %"], ["functional"] * 2 + ["defective"] * 2, 6, 2
    ),
    "grocery": Tree(
        "grocery", trees.make_grocery, ["Granny-Smith", "Pink-Lady", "Banana"], ["Apple", "Apple", "Banana"]
    ),
    "csv": Tree("csv", trees.make_table, ["lion", "lynx", "wolf"], ["cat", "cat", "dog"]),
    "folder": Tree("folder", _nested, ["lion", "lynx", "wolf"], ["cat", "cat", "dog"]),
}

every = pytest.mark.parametrize("name", TREES)


def colors(tree: Tree) -> np.ndarray:
    return np.array([(60 * n,) * 3 for n in range(4)] if tree.dataset == "elpv" else trees.COLORS)


@every
def test_counts_labels_splits_and_coarse_labels(tmp_path, name):
    tree = TREES[name]
    data = load_images(ImagesSpec(tree.dataset, str(tree.make(tmp_path)), pixels=32))
    assert data.class_names() == tree.names
    for split, count in (("train", tree.train), ("test", tree.test)):
        labels = [n for n, held in zip(data.listing.classes, data.listing.splits, strict=True) if held == split]
        assert Counter(labels) == dict.fromkeys(range(len(tree.names)), count)
    # Validation images come out of the training images alone.
    assert len(data.indices("test")) == tree.test * len(tree.names)
    assert Counter(data.labels()[data.indices("validation")].tolist()) == dict.fromkeys(range(len(tree.names)), 1)
    # The labels belong to the images: each has the color of its class.
    middle = data.images(np.arange(len(data)))[:, 16, 16]
    assert np.abs(middle - colors(tree)[data.labels()].astype(int)).max() <= 3
    if tree.groups is None:
        with pytest.raises(ValueError, match="has no coarse labels"):
            data.labels("coarse")
    else:
        assert data.class_names("coarse") == sorted(set(tree.groups))
        coarse = [data.class_names("coarse")[n] for n in data.labels("coarse")]
        assert coarse == [tree.groups[n] for n in data.labels()]


@every
def test_a_tree_that_moves_keeps_its_digest(tmp_path, name):
    tree = TREES[name]
    before = ImagesSpec(tree.dataset, str(tree.make(tmp_path / "here"))).digest
    shutil.copytree(tmp_path / "here", tmp_path / "over" / "there")
    assert ImagesSpec(tree.dataset, str(tmp_path / "over" / "there")).digest == before


@every
def test_data_sets_are_told_from_their_files(tmp_path, name):
    assert guess_dataset(TREES[name].make(tmp_path)) == TREES[name].dataset


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("aircraft", "fgvc-aircraft-2013b"),
        ("aircraft", "fgvc-aircraft-2013b/data"),
        ("cars", "stanford_cars"),
        ("imagenet_kaggle", "ILSVRC"),
        ("imagenet_kaggle", "ILSVRC/Data/CLS-LOC"),
    ],
)
def test_an_inner_folder_will_do_and_is_the_same_data_set(tmp_path, name, inside):
    tree = TREES[name]
    tree.make(tmp_path)
    assert guess_dataset(tmp_path / inside) == tree.dataset
    specs = [ImagesSpec(tree.dataset, str(root)) for root in (tmp_path, tmp_path / inside)]
    assert specs[0].digest == specs[1].digest


@every
def test_a_missing_image_is_counted_and_named(tmp_path, name):
    tree = TREES[name]
    listing = list_images(tree.dataset, tree.make(tmp_path))
    # A dead link, so that it is missing where folders are listed, too.
    (listing.base / listing.paths[1]).unlink()
    (listing.base / listing.paths[1]).symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=rf"1 of the {len(listing.paths)} listed .*{re.escape(listing.paths[1])}"
    ):
        load_images(ImagesSpec(tree.dataset, str(tmp_path)))


@every
def test_a_class_without_training_images_is_refused(tmp_path, name):
    tree = TREES[name]
    if tree.dataset == "folder":
        shutil.rmtree(tree.make(tmp_path) / "train" / "dog")
    elif tree.dataset == "elpv":
        tree.make(tmp_path, cells=[4, 4, 0, 4])
    else:
        tree.make(tmp_path, train=[4, 4, 0], **{"val": [1, 1, 0]} if tree.dataset in ("aircraft", "grocery") else {})
    lost = re.escape(tree.names[2])
    with pytest.raises(ValueError, match=rf"the class '{lost}' (is in test but not in train|has no images)\. The data"):
        load_images(ImagesSpec(tree.dataset, str(tmp_path)))


@every
def test_a_root_that_is_something_else(tmp_path, name):
    dataset = TREES[name].dataset
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=rf"empty: no .*\. The data set '{dataset}' is "):
        load_images(ImagesSpec(dataset, str(tmp_path / "empty")))
    with pytest.raises(FileNotFoundError, match=rf"there is no folder '.*nowhere'\. The data set '{dataset}' is "):
        load_images(ImagesSpec(dataset, str(tmp_path / "nowhere")))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"file' is a file, not a folder\. The data set"):
        load_images(ImagesSpec(dataset, str(tmp_path / "file")))


@every
def test_choose_data_knows_every_data_set(tmp_path, name):
    tree = TREES[name]
    spec = choose_data(tree.dataset, tree.make(tmp_path), **COUNTS)
    assert spec == ImagesSpec(tree.dataset, str(tmp_path), 64)
    assert load_data(spec).class_names() == tree.names


# What torchvision reads from the same files.


def _rows(dataset: str, root: Path, split: str) -> set[tuple[str, int]]:
    listing = list_images(dataset, root)
    return {
        (str(listing.base / path), label)
        for path, label, held in zip(listing.paths, listing.classes, listing.splits, strict=True)
        if held == split
    }


def test_aircraft_is_what_torchvision_reads(tmp_path):
    data = trees.make_aircraft(tmp_path) / "fgvc-aircraft-2013b" / "data"
    for level in ("variant", "manufacturer"):
        parts = [(data / f"images_{level}_{part}.txt").read_text() for part in ("train", "val")]
        (data / f"images_{level}_trainval.txt").write_text("".join(parts))
    (data / "manufacturers.txt").write_text("Airbus\nBoeing\n")
    for ours, theirs in (("train", "trainval"), ("test", "test")):
        oracle = oracles.FGVCAircraft(tmp_path, theirs)
        assert _rows("aircraft", tmp_path, ours) == set(zip(oracle._image_files, oracle._labels, strict=True))
        makers = oracles.FGVCAircraft(tmp_path, theirs, "manufacturer")
        listing = list_images("aircraft", tmp_path)
        groups = {
            str(listing.base / path): listing.groups[n] for path, n in zip(listing.paths, listing.classes, strict=True)
        }
        for path, label in zip(makers._image_files, makers._labels, strict=True):
            assert groups[path] == makers.classes[label]
    assert oracle.classes == list_images("aircraft", tmp_path).names


def test_cars_are_what_torchvision_reads(tmp_path):
    trees.make_cars(tmp_path)
    for split in ("train", "test"):
        oracle = oracles.StanfordCars(tmp_path, split)
        assert _rows("cars", tmp_path, split) == set(oracle._samples)
    assert oracle.classes == list_images("cars", tmp_path).names


@pytest.mark.parametrize("train", ["2021_train", "2021_train_mini"])
def test_inaturalist_2021_is_what_torchvision_reads(tmp_path, train):
    trees.make_inaturalist(tmp_path, names=(train, "2021_valid"))
    listing = list_images("inaturalist", tmp_path)
    assert listing.edition == ("iNaturalist 2021" if train == "2021_train" else "iNaturalist 2021 mini")
    for split, version in (("train", train), ("test", "2021_valid")):
        oracle = oracles.INaturalist(tmp_path, version, ["full", "class"])
        theirs = {(str(tmp_path / version / oracle.all_categories[n] / file), n) for n, file in oracle.index}
        assert _rows("inaturalist", tmp_path, split) == theirs
        numbers = [oracle.categories_map[n]["class"] for n in range(3)]
        assert listing.groups == [oracle.category_name("class", n) for n in numbers]


def test_inaturalist_tables_are_what_torchvision_reads(tmp_path):
    trees.make_inaturalist_tables(tmp_path, year="2018")
    # torchvision tells no split: it reads the folders of both together.
    (tmp_path / "2018").symlink_to(tmp_path / "train_val2018")
    oracle = oracles.INaturalist(tmp_path, "2018", ["full", "super"])
    theirs = {(str(tmp_path / "train_val2018" / oracle.all_categories[n] / file), n) for n, file in oracle.index}
    ours = [_rows("inaturalist", tmp_path, split) for split in ("train", "test")]
    assert ours[0] | ours[1] == theirs
    listing = list_images("inaturalist", tmp_path)
    assert listing.edition == "iNaturalist 2018"
    assert listing.groups == [oracle.category_name("super", oracle.categories_map[n]["super"]) for n in range(3)]


def test_imagenet_is_what_torchvision_reads(tmp_path):
    trees.make_imagenet(tmp_path)
    names = {wnid: tuple(text.split(", ")) for wnid, text in trees.SYNSETS.items()}
    torch.save((names, []), tmp_path / "meta.bin")
    for ours, theirs in (("train", "train"), ("test", "val")):
        oracle = oracles.ImageNet(tmp_path, theirs)
        assert _rows("imagenet", tmp_path, ours) == set(oracle.imgs)
    assert oracle.wnids == list_images("imagenet", tmp_path).names


# What is particular to one dataset.


def test_published_validation_images_of_aircraft_are_training_images(tmp_path):
    listing = list_images("aircraft", trees.make_aircraft(tmp_path, train=1, val=3))
    assert Counter(listing.splits) == {"train": 12, "test": 6}


def test_the_labels_of_the_cars_may_lie_in_the_devkit(tmp_path):
    base = trees.make_cars(tmp_path) / "stanford_cars"
    before = ImagesSpec("cars", str(tmp_path)).digest
    (base / "cars_test_annos_withlabels.mat").rename(base / "devkit" / "cars_test_annos_withlabels.mat")
    assert ImagesSpec("cars", str(tmp_path)).digest == before


def test_cars_may_be_nested_and_their_lists_without_a_folder(tmp_path):
    base = trees.make_cars(tmp_path) / "stanford_cars"
    before = list_images("cars", tmp_path)
    for file in (base / "devkit").iterdir():
        file.rename(base / file.name)
    for split in ("train", "test"):
        (base / f"cars_{split}").rename(base / "moved")
        (base / f"cars_{split}").mkdir()
        (base / "moved").rename(base / f"cars_{split}" / f"cars_{split}")
    assert guess_dataset(tmp_path) == "cars"
    data = load_images(ImagesSpec("cars", str(tmp_path), pixels=32))
    assert data.listing.paths == [re.sub("^(cars_[a-z]+)/", r"\1/\1/", path) for path in before.paths]
    assert (data.listing.classes, data.listing.names) == (before.classes, before.names)


def test_the_one_list_of_all_cars_is_read_with_its_own_folder_only(tmp_path):
    rows = trees.fill(lambda label, split, n: tmp_path / "car_ims" / f"{split}{label}{n}.jpg", 3, train=4, test=2)
    fields = [("relative_im_path", "O"), ("class", "O"), ("test", "O")]
    own = [(f"car_ims/{path.name}", label + 1, int(split == "test")) for label, split, path in rows]
    savemat(
        tmp_path / "cars_annos.mat",
        {"annotations": np.array([own], dtype=fields), "class_names": np.array(trees.CARS, dtype=object)},
    )
    assert guess_dataset(tmp_path) == "cars"
    data = load_images(ImagesSpec("cars", str(tmp_path), pixels=32))
    assert data.class_names() == list(trees.CARS)
    assert len(data.indices("test")) == 6
    middle = data.images(np.arange(len(data)))[:, 16, 16]
    assert np.abs(middle - np.array(trees.COLORS)[data.labels()].astype(int)).max() <= 3
    (tmp_path / "car_ims").rename(tmp_path / "cars_train")
    with pytest.raises(
        ValueError, match=r"cars_annos\.mat is of the images in car_ims/, which is not here.*add cars_train_annos"
    ):
        list_images("cars", tmp_path)


def test_own_validation_images_of_groceries_are_used(tmp_path):
    data = load_images(ImagesSpec("grocery", str(trees.make_grocery(tmp_path)), pixels=32))
    assert {data.listing.paths[place].split("/")[0] for place in data.indices("validation")} == {"val"}
    assert len(data.indices("train")) == 12


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_and_line_ends_of_windows_are_no_part_of_a_table(tmp_path, end):
    before = ImagesSpec("cub", str(trees.make_cub(tmp_path))).digest
    for path in tmp_path.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_text().replace("\n", end).encode())
    assert ImagesSpec("cub", str(tmp_path)).digest == before
    trees.make_kaggle_imagenet(tmp_path / "imagenet")
    spec = ImagesSpec("imagenet", str(tmp_path / "imagenet"))
    before = spec.digest
    for path in (tmp_path / "imagenet").glob("LOC_*"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_text().replace("\n", end).encode())
    assert ImagesSpec("imagenet", spec.root).digest == before


def _table_of(root: Path, *lines: str) -> Path:
    for name in "abcd":
        for number in range(4):
            trees.save(
                root / f"{name}{number}.png",
                np.random.default_rng([ord(name), number]).integers(0, 255, (40, 40, 3), dtype=np.uint8),
            )
    (root / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


ROWS = [f"{name}{number}.png;{name.upper()}" for name in "ab" for number in range(4)]


@pytest.mark.parametrize("header", ["file;species", "FILENAME;Class", "image;name", "filepath;label"])
@pytest.mark.filterwarnings("ignore:not part of the data set")
def test_a_table_without_a_split_is_split_by_the_seed(tmp_path, header):
    root = _table_of(tmp_path, header, *ROWS)
    assert guess_dataset(root) == guess_dataset(root / "list.csv") == "csv"
    data = load_images(ImagesSpec("csv", str(root / "list.csv"), pixels=32))
    assert data.class_names() == ["A", "B"]
    assert [len(data.indices(split)) for split in ("train", "validation", "test")] == [4, 2, 2]
    assert data.digest == ImagesSpec("csv", str(root), pixels=32).digest
    assert data.listing.left_out.counts["images outside the lists and class folders"] == 8


@pytest.mark.filterwarnings("ignore:not part of the data set")
def test_the_splits_of_a_table_have_several_names(tmp_path):
    words = ["train", "Train", "dev", "test"]
    lines = [f"{name}{n}.png,{name},{words[n]}" for name in "ab" for n in range(4)]
    data = load_images(ImagesSpec("csv", str(_table_of(tmp_path, "path,label,subset", *lines)), pixels=32))
    assert [len(data.indices(split)) for split in ("train", "validation", "test")] == [4, 2, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,kind", "a0.png,a"], "no CSV whose header has a column path or file .* and a column label or class"),
        (["path,label"], r"list\.csv lists no images"),
        (["path,label", "a0.png,"], r"list\.csv, line 2: nothing in the column label; fill it in"),
        (["path,label", "a0.png"], r"list\.csv, line 2: nothing in the column label"),
        (["path,label", "a0.png,a", "a0.png,b"], r"line 3: a0\.png is in line 2 already"),
        (["path,label", "/a0.png,a"], r"line 2: /a0\.png is no path relative to the CSV"),
        (["path,label,split", "a0.png,a,holdout"], "line 2: the split 'holdout' is none of train, validation"),
        (["path,label,split", "a0.png,a,train", "a1.png,b,train"], "there is no test image"),
    ],
)
def test_a_broken_table_is_refused(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message + r"(.|\n)*The data set 'csv' is a CSV"):
        list_images("csv", _table_of(tmp_path, *lines))


def test_several_tables_must_be_told_apart(tmp_path):
    _table_of(tmp_path, "path,label", "a0.png,a")
    shutil.copy(tmp_path / "list.csv", tmp_path / "more.csv")
    with pytest.raises(ValueError, match=r"several fit \(list\.csv, more\.csv\); give one of them as root"):
        list_images("csv", tmp_path)


def test_the_lists_of_the_dogs_may_lie_beside_them(tmp_path):
    trees.make_dogs(tmp_path)
    before = ImagesSpec("dogs", str(tmp_path)).digest
    for file in (tmp_path / "lists").iterdir():
        file.rename(tmp_path / file.name)
    assert ImagesSpec("dogs", str(tmp_path)).digest == before


def test_a_list_of_one_dog_is_a_list(tmp_path):
    listing = list_images("dogs", trees.make_dogs(tmp_path, test=[1, 0, 0]))
    assert listing.splits.count("test") == 1


def test_the_small_training_set_is_used_only_for_want_of_the_large_one(tmp_path):
    trees.make_inaturalist(tmp_path, names=("train_mini", "val"))
    assert list_images("inaturalist", tmp_path).edition == "iNaturalist 2021 mini"
    trees.make_inaturalist(tmp_path, train=5)
    listing = list_images("inaturalist", tmp_path)
    assert listing.edition == "iNaturalist 2021"
    assert listing.splits.count("train") == 15


@pytest.mark.parametrize(("year", "level"), [("2017", "supercategory"), ("2019", "class"), ("2019", None)])
def test_inaturalist_takes_the_coarse_level_that_its_tables_have(tmp_path, year, level):
    trees.make_inaturalist_tables(tmp_path, year=year)
    for part in ("train", "val"):
        _json(tmp_path / f"{part}{year}.json", lambda table: [_rename(row, level) for row in table["categories"]])
    listing = list_images("inaturalist", tmp_path)
    assert listing.groups == (["Birds", "Birds", "Plants"] if level else None)
    assert listing.edition == f"iNaturalist {year}"


def _rename(row: dict, level: str | None) -> None:
    value = row.pop("supercategory")
    if level:
        row[level] = value


def _json(path: Path, change: Callable) -> None:
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def test_names_that_were_published_later_win(tmp_path):
    trees.make_inaturalist_tables(tmp_path)
    rows = [{"id": n, "name": f"Avis {n}", "class": "Aves"} for n in range(9)]
    (tmp_path / "categories.json").write_text(json.dumps(rows))
    listing = list_images("inaturalist", tmp_path)
    assert listing.names == ["Avis 0", "Avis 1", "Avis 2"]
    assert listing.groups == ["Birds", "Birds", "Plants"]


def test_missing_images_of_kaggles_table_are_noticed(tmp_path):
    base = trees.make_kaggle_imagenet(tmp_path) / "ILSVRC" / "Data" / "CLS-LOC"
    (base / "val" / "ILSVRC2012_val_00000011.JPEG").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 18 listed .*val/ILSVRC2012_val_00000011\.JPEG"):
        load_images(ImagesSpec("imagenet", str(tmp_path)))


def test_elpv_is_split_in_the_same_way_whatever_the_seed_and_the_order(tmp_path):
    trees.make_elpv(tmp_path, cells=[12, 5, 5, 9])
    listing = list_images("elpv", tmp_path)
    cells = dict(line.split()[::2] for line in (tmp_path / "labels.csv").read_text().splitlines())
    held = Counter(
        (label, cells[path])
        for path, label, split in zip(listing.paths, listing.classes, listing.splits, strict=True)
        if split == "test"
    )
    # 62 images; in every class and kind of cell a quarter, up to one image.
    assert sum(held.values()) == 15
    for label, count in enumerate([12, 5, 5, 9]):
        for kind in ("mono", "poly"):
            assert abs(held[label, kind] - count / 4) < 1
    test = {path for path, split in zip(listing.paths, listing.splits, strict=True) if split == "test"}
    for seed in (0, 1):
        data = load_images(ImagesSpec("elpv", str(tmp_path), pixels=32, seed=seed))
        assert {data.listing.paths[place] for place in data.indices("test")} == test
    (tmp_path / "labels.csv").write_text("\n".join((tmp_path / "labels.csv").read_text().splitlines()[::-1]))
    turned = list_images("elpv", tmp_path)
    assert {path for path, split in zip(turned.paths, turned.splits, strict=True) if split == "test"} == test


def test_the_installed_elpv(monkeypatch):
    pytest.importorskip("elpv_dataset")
    spec = choose_data("elpv", "", **COUNTS)
    data = load_data(spec)
    assert len(data) == DATASETS["elpv"].published["ELPV"]["images"]
    assert Counter(data.labels().tolist()) == {0: 1508, 1: 295, 2: 106, 3: 715}
    assert [len(data.indices(split)) for split in ("train", "validation", "test")] == [1771, 197, 656]
    # As many test images as in the paper, and of every class a quarter.
    held = np.bincount(data.labels()[data.indices("test")])
    assert held.tolist() == np.diff(np.cumsum([0, 1508, 295, 106, 715]) // 4).tolist()
    assert data.class_names("coarse") == ["defective", "functional"]
    images = data.images([0, 2623])
    assert (images[..., 0] == images[..., 2]).all()
    assert images.std() > 10
    # The root, and where the package lies, are no part of the name.
    assert ImagesSpec("elpv", str(data.path), 64).digest == spec.digest
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(
        FileNotFoundError, match=r"'elpv' has no root, .*`pip install elpv-dataset`, or give the folder"
    ):
        load_data(choose_data("elpv", "", **COUNTS))


def test_looking_for_elpv_does_not_import_it(monkeypatch):
    if importlib.util.find_spec("elpv_dataset") is None:
        pytest.skip("elpv-dataset is not installed")
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    assert (DATASETS["elpv"].installed() / "labels.csv").is_file()
    assert "elpv_dataset" not in sys.modules


def test_a_tree_of_several_data_sets_or_none_is_not_guessed(tmp_path):
    with pytest.raises(ValueError, match=r"looks like none of the known data sets:\n  cub: the folder CUB_200_2011"):
        guess_dataset(tmp_path)
    trees.make_cub(tmp_path / "CUB_200_2011")
    trees.make_cars(tmp_path)
    with pytest.raises(ValueError, match="looks like 'cub' and like 'cars'; say which it is"):
        guess_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*nowhere'"):
        guess_dataset(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        guess_dataset(tmp_path / "CUB_200_2011" / "images.txt")


# Broken trees.


def _edit(name: str, before: str, after: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert before in text
        (root / name).write_text(text.replace(before, after, 1))

    return change


def _remove(name: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def _put(name: str, content: bytes = b"") -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(content)


def _mat(name: str, **variables: object) -> Callable[[Path], None]:
    return lambda root: savemat(root / name, variables)


def _annotations(**fields: object) -> np.ndarray:
    return np.array([tuple(fields.values())], dtype=[(name, "O") for name in fields])


def _table(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda root: _json(root / name, change)


def _image(name: str) -> Callable[[Path], None]:
    return lambda root: trees.save(root / name, (1, 2, 3))


AIR, CAR, KAGGLE = "fgvc-aircraft-2013b/data/", "stanford_cars/", "ILSVRC/Data/CLS-LOC/"
TEST_CARS = CAR + "cars_test_annos_withlabels.mat"
BROKEN = [
    ("aircraft", _remove(AIR + "images_variant_train.txt"), r"no images_variant_train\.txt here, in data/ or in fgvc"),
    ("aircraft", _remove(AIR + "variants.txt"), r"no variants\.txt in .*data"),
    ("aircraft", _remove(AIR + "images_variant_val.txt"), r"no images_variant_val\.txt in"),
    ("aircraft", _remove(AIR + "images_manufacturer_test.txt"), r"no images_manufacturer_test\.txt in"),
    (
        "aircraft",
        _edit(AIR + "images_variant_test.txt", "020000 707-320", "020000 747"),
        r"of classes that variants\.txt has not: 747",
    ),
    (
        "aircraft",
        _edit(AIR + "images_variant_test.txt", "020000", "029999"),
        r"variant_test\.txt and .* on 2 images: 020",
    ),
    (
        "aircraft",
        _edit(AIR + "images_manufacturer_val.txt", "010000 Boeing", "010000 Airbus"),
        "'707-320' has two manuf",
    ),
    ("aircraft", _edit(AIR + "variants.txt", "A300B4", "A300B4\nDR-400"), "the class 'DR-400' has no images"),
    ("cars", _remove(CAR + "devkit/cars_meta.mat"), r"no devkit/cars_meta\.mat here or in stanford_cars/, and"),
    (
        "cars",
        _remove(TEST_CARS),
        r"no cars_test_annos_withlabels\.mat here or in devkit/ \(cars_test_annos\.mat has no",
    ),
    ("cars", _remove(CAR + "devkit/cars_train_annos.mat"), r"no cars_train_annos\.mat in devkit/ or here"),
    ("cars", _put(TEST_CARS, b"<html>"), r"withlabels\.mat cannot be read as a MATLAB file: "),
    ("cars", _mat(CAR + "devkit/cars_meta.mat", other=1), r"cars_meta\.mat has no variable 'class_names'"),
    (
        "cars",
        _mat(CAR + "devkit/cars_meta.mat", class_names=np.array(["Ford"], object)),
        "class 'Ford', which is no make",
    ),
    ("cars", _mat(TEST_CARS, annotations=_annotations(fname="1.jpg")), "without the fields 'class' and 'fname'"),
    ("cars", _mat(TEST_CARS, annotations=np.arange(3)), "without the fields 'class' and 'fname'"),
    (
        "cars",
        _mat(TEST_CARS, annotations=_annotations(**{"class": 4, "fname": "1.jpg"})),
        r"of classes that cars_meta\.mat has not: 4",
    ),
    ("dogs", _remove("lists"), r"no train_list\.mat in lists/ or here"),
    ("dogs", _remove("lists/test_list.mat"), r"no test_list\.mat in .*lists"),
    (
        "dogs",
        _mat("lists/test_list.mat", file_list=np.array(["a/b"], object)),
        r"test_list\.mat has no variable 'labels'",
    ),
    (
        "dogs",
        _mat("lists/test_list.mat", file_list=np.array(["a/b"], object), labels=[1, 2]),
        "has 1 images and 2 labels",
    ),
    (
        "dogs",
        _mat("lists/test_list.mat", file_list=np.array(["a/b"], object), labels=[1]),
        "the class 1 in two folders: n0",
    ),
    ("inaturalist", _remove("train"), r"no train2017\.json, .*00000_Animalia_Annelida"),
    ("inaturalist", _remove("val"), "no folder val or 2021_valid"),
    ("inaturalist", _image("train/birds/1.jpg"), "1 class folders are not named by number, kingdom, .*: birds"),
    ("inaturalist", _image("train/1.jpg"), r"train/ has images outside class folders 1\.jpg"),
    ("inaturalist", _put("train2019.json"), r"several years are here \(train2019\.json, train/\)"),
    ("inaturalist_tables", _put("train2017.json"), r"several years are here \(train2017\.json, train2018\.json\)"),
    ("inaturalist_tables", _remove("val2018.json"), r"no val2018\.json in "),
    ("inaturalist_tables", _put("val2018.json", b"{"), r"val2018\.json is not valid JSON"),
    ("inaturalist_tables", _put("val2018.json", b"[]"), r"val2018\.json should hold a dict, but holds a list"),
    (
        "inaturalist_tables",
        _table("val2018.json", lambda table: table.pop("images")),
        "'images' should be a list of entries with file_name and id",
    ),
    (
        "inaturalist_tables",
        _table("train2018.json", lambda table: table["annotations"][0].pop("category_id")),
        r"train2018\.json: 'annotations' should be a list of entries with category_id and image_id",
    ),
    (
        "inaturalist_tables",
        _table("val2018.json", lambda table: table["annotations"].pop()),
        r"val2018\.json has no annotation of 1 images: train_val2018/Birds/0/test00\.jpg",
    ),
    (
        "inaturalist_tables",
        _table("val2018.json", lambda table: table["annotations"][0].update(category_id=77)),
        r"of classes that train2018\.json has not: 77",
    ),
    (
        "inaturalist_tables",
        _put("categories.json", b'[{"id": 0, "name": "x"}, {"id": 1}]'),
        r"categories\.json has no names for 2 categories of train2018\.json: 1, 2",
    ),
    ("imagenet", _remove("train"), "no train/ with folders such as n01440764 here or in ILSVRC"),
    ("imagenet", _remove("val"), "no folder val/"),
    ("imagenet", _image("val/x.JPEG"), r"val/ has images outside class folders x\.JPEG"),
    ("imagenet", _image("train/n99999999/deep/x.JPEG"), r"train/n99999999 holds folders \(deep\), one level deeper"),
    (
        "imagenet",
        _put("LOC_synset_mapping.txt", b"n01440764 tench\n"),
        "has no names for 2 classes: n02012849, n03126707",
    ),
    (
        "imagenet_kaggle",
        _remove("LOC_val_solution.csv"),
        r"val/ has 6 images outside .* no LOC_val_solution\.csv to tell",
    ),
    (
        "imagenet_kaggle",
        _image(KAGGLE + "val/x.JPEG"),
        r"1 images of val/ are not in LOC_val_solution\.csv: x\.JPEG",
    ),
    (
        "imagenet_kaggle",
        _put("LOC_val_solution.csv", b"a,b\n1,2\n"),
        "line 2: an ImageId and a PredictionString are exp",
    ),
    ("grocery", _remove("val.txt"), r"no val\.txt in"),
    ("grocery", _put("classes.csv", b"a,b\n1,2\n"), r"classes\.csv should have the columns 'Class Name \(str\)'"),
    ("grocery", _put("test.txt", b"test/1.jpg 2 3\n"), r"test\.txt, line 1: .* should be a path, a fine and a coarse"),
    ("grocery", _edit("train.txt", ", 0, 0", ", 7, 0"), r"of classes that classes\.csv has not: 7"),
    ("elpv", _remove("labels.csv"), r"no labels\.csv with images/ beside it"),
    ("elpv", _remove("images"), r"no labels\.csv with images/ beside it"),
    ("elpv", _put("labels.csv"), "no images are listed"),
    (
        "elpv",
        _edit("labels.csv", "mono", "bifacial"),
        r"labels\.csv, line 1: .*bifacial' should be a path, a probability",
    ),
    ("elpv", _edit("labels.csv", "0.3333333333333333", "0.5"), r"labels\.csv, line 9: .* should be a path"),
    ("elpv", _edit("labels.csv", "0.3333333333333333", "nan"), r"labels\.csv, line 9: .* should be a path"),
    ("elpv", _edit("labels.csv", "1.0", "1.3333"), r"labels\.csv, line 25: .* should be a path"),
    ("elpv", _edit("labels.csv", " mono", ""), r"labels\.csv, line 1: .* should be a path"),
]


@pytest.mark.parametrize(("name", "change", "message"), BROKEN)
def test_a_broken_tree_is_refused(tmp_path, name, change, message):
    tree = TREES[name]
    tree.make(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=message + rf"(.|\n)*\. The data set '{tree.dataset}' is "):
        list_images(tree.dataset, tmp_path)


def test_folders_within_the_classes_of_imagenet_are_refused(tmp_path):
    nested = functools.partial(trees.save, pixels=(1, 2, 3))
    for wnid in trees.SYNSETS:
        nested(tmp_path / "train" / wnid / "deep" / "x.JPEG")
    with pytest.raises(ValueError, match=r"train/n01440764 holds folders \(deep\), one level deeper"):
        list_images("imagenet", tmp_path)
