"""Flowers, pets and textures, read from tiny trees: as torchvision reads them, and refused when broken."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets as oracles
import trees
from scipy.io import savemat

from gcplib.lab.data import ImagesSpec, load_images
from gcplib.lab.data.check import check_images
from gcplib.lab.data.readers import DATASETS, guess_dataset, list_images
from gcplib.lab.data.readers.flowers import NAMES

BREEDS = ("Abyssinian", "great_pyrenees", "Bengal")
SPECIES = (1, 2, 1)
TEXTURES = ("banded", "dotted", "woven")


def make_flowers(root: Path, train: int = 3, validation: int = 2, test: int = 4) -> Path:
    """Numbers go round the splits and classes, so that no order of the files tells a label."""
    counts = {"trnid": train, "valid": validation, "tstid": test}
    ids, labels = {name: [] for name in counts}, []
    for name, count in counts.items():
        for _ in range(count):
            for label in (2, 0, 1):
                labels.append(label + 1)
                ids[name].append(len(labels))
                trees.save(root / "jpg" / f"image_{len(labels):05d}.jpg", trees.COLORS[label])
    savemat(root / "imagelabels.mat", {"labels": np.array([labels])})
    savemat(root / "setid.mat", {name: np.array([numbers[::-1]]) for name, numbers in ids.items()})
    return root


def make_pets(root: Path, train: int = 4, test: int = 2) -> Path:
    lists = {"trainval": [], "test": []}
    for label, breed in enumerate(BREEDS):
        for number in range(train + test):
            image = f"{breed}_{number + 1}"
            trees.save(root / "images" / f"{image}.jpg", trees.COLORS[label])
            lists["trainval" if number < train else "test"].append(f"{image} {label + 1} {SPECIES[label]} 1")
    (root / "annotations").mkdir()
    for name, lines in lists.items():
        (root / "annotations" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def make_dtd(root: Path) -> Path:
    (root / "labels").mkdir(parents=True)
    for part, count in (("train1", 3), ("val1", 2), ("test1", 1)):
        lines = []
        for label, texture in enumerate(TEXTURES):
            for number in range(count):
                lines.append(f"{texture}/{texture}_{part[:2]}{number:04d}.jpg")
                trees.save(root / "images" / lines[-1], trees.COLORS[label])
        (root / "labels" / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return root


MAKERS = {"flowers": make_flowers, "pets": make_pets, "dtd": make_dtd}
# As torchvision calls the folders.
INNER = {"flowers": "flowers-102", "pets": "oxford-iiit-pet", "dtd": "dtd/dtd"}
CLASSES = {
    "flowers": list(NAMES[:3]),
    "pets": ["Abyssinian", "great pyrenees", "Bengal"],
    "dtd": list(TEXTURES),
}
COUNTS = {
    "flowers": {"train": 9, "validation": 6, "test": 12},
    "pets": {"train": 12, "test": 6},
    "dtd": {"train": 9, "validation": 6, "test": 3},
}

every = pytest.mark.parametrize("name", MAKERS)


@every
def test_counts_labels_and_splits(tmp_path, name):
    data = load_images(ImagesSpec(name, str(MAKERS[name](tmp_path)), pixels=32))
    assert data.class_names() == CLASSES[name]
    assert Counter(list_images(name, tmp_path).splits) == COUNTS[name]
    # The labels belong to the images: each has the color of its class.
    middle = data.images(np.arange(len(data)))[:, 16, 16]
    assert np.abs(middle - np.array(trees.COLORS)[data.labels()].astype(int)).max() <= 3


def test_coarse_classes_of_pets_are_cat_and_dog(tmp_path):
    data = load_images(ImagesSpec("pets", str(make_pets(tmp_path)), pixels=32))
    assert data.class_names("coarse") == ["cat", "dog"]
    assert data.labels("coarse").tolist() == [[0, 1, 0][label] for label in data.labels()]


@every
def test_data_sets_are_told_from_their_files_at_any_folder(tmp_path, name):
    inner = MAKERS[name](tmp_path / INNER[name])
    roots = [tmp_path, inner]
    assert {guess_dataset(root) for root in roots} == {name}
    assert len({ImagesSpec(name, str(root)).digest for root in roots}) == 1
    found = [other for other, reader in DATASETS.items() if not reader.generic and reader.find(inner)]
    assert found == [name]


def test_a_folder_of_images_is_none_of_them(tmp_path):
    trees.make_folder(tmp_path, {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1})
    trees.make_folder(tmp_path, {"labels": 0, "annotations": 0, "images": 0, "jpg": 0})
    assert [name for name in MAKERS if DATASETS[name].find(tmp_path)] == []


PUBLISHED = {
    "flowers": {"train": 1020, "validation": 1020, "test": 6149, "classes": 102},
    "pets": {"train": 3680, "test": 3669, "classes": 37},
    "dtd": {"train": 1880, "validation": 1880, "test": 1880, "classes": 47},
}


@every
def test_the_check_knows_the_published_counts(tmp_path, name):
    report = check_images(ImagesSpec(name, str(MAKERS[name](tmp_path))))
    assert report.whole
    assert report.published == PUBLISHED[name]
    assert COUNTS[name].keys() < report.published.keys()


# What torchvision reads from the same files.


def rows(name, root, split):
    listing = list_images(name, root)
    every = zip(listing.paths, listing.classes, listing.splits, strict=True)
    return {(str(listing.base / path), label) for path, label, held in every if held == split}


@pytest.mark.parametrize(("ours", "theirs"), [("train", "train"), ("validation", "val"), ("test", "test")])
def test_flowers_and_textures_are_what_torchvision_reads(tmp_path, monkeypatch, ours, theirs):
    make_flowers(tmp_path / INNER["flowers"])
    monkeypatch.setattr(oracles.Flowers102, "_check_integrity", lambda self: True)  # by sums of the published files
    oracle = oracles.Flowers102(tmp_path, theirs)
    assert rows("flowers", tmp_path, ours) == set(zip(map(str, oracle._image_files), oracle._labels, strict=True))
    assert list(NAMES) == oracles.Flowers102.classes
    make_dtd(tmp_path / INNER["dtd"])
    oracle = oracles.DTD(tmp_path, theirs)
    assert rows("dtd", tmp_path, ours) == set(zip(map(str, oracle._image_files), oracle._labels, strict=True))
    assert list_images("dtd", tmp_path).names == oracle.classes


@pytest.mark.parametrize(("ours", "theirs"), [("train", "trainval"), ("test", "test")])
def test_pets_are_what_torchvision_reads(tmp_path, ours, theirs):
    make_pets(tmp_path / INNER["pets"])
    oracle = oracles.OxfordIIITPet(tmp_path, theirs)
    assert rows("pets", tmp_path, ours) == set(zip(map(str, oracle._images), oracle._labels, strict=True))


# What is refused.


def test_a_list_of_flowers_that_does_not_fit_is_refused(tmp_path):
    make_flowers(tmp_path)
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[103] * 27])})
    with pytest.raises(ValueError, match="the label 103, where numbers from 1 to 102"):
        list_images("flowers", tmp_path)
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[1] * 26])})
    with pytest.raises(ValueError, match=r"the image 27, and imagelabels\.mat has 26 labels"):
        list_images("flowers", tmp_path)
    savemat(tmp_path / "setid.mat", {"trnid": [1, 2], "valid": [3], "tstid": [2, 4]})
    with pytest.raises(ValueError, match="the image 2 in train and in test"):
        list_images("flowers", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Abyssinian_9 1 3 1", r"'1 3 1' after Abyssinian_9, where the number of a breed and 1 \(cat\) or 2 \(dog\)"),
        ("Abyssinian_9 1", "'1' after Abyssinian_9"),
        ("Bengal_9 1 1 1", "the class 1 for 'Abyssinian' and, with Bengal_9, otherwise"),
        ("Abyssinian_9 1 2 1", "the class 1 for 'Abyssinian' and, with Abyssinian_9, otherwise"),
    ],
)
def test_a_list_of_pets_that_does_not_fit_is_refused(tmp_path, line, message):
    with open(make_pets(tmp_path) / "annotations" / "test.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        list_images("pets", tmp_path)


def test_a_list_of_textures_that_does_not_fit_is_refused(tmp_path):
    path = make_dtd(tmp_path) / "labels" / "val1.txt"
    path.write_text("banded_0001.jpg\n")
    with pytest.raises(ValueError, match=r"val1.txt, line 1: 'banded_0001.jpg' should be <class>/<image>.jpg"):
        list_images("dtd", tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"no val1.txt in .*The data set 'dtd' is DTD as published"):
        list_images("dtd", tmp_path)
