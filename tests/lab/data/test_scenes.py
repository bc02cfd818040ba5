"""Aerial scenes: three published data sets without a split, read from tiny trees."""

import random
from collections import Counter

import numpy as np
import pytest
import trees

from gcplib.lab.data import ImagesSpec, choose_data, load_images
from gcplib.lab.data.check import check_images
from gcplib.lab.data.readers import DATASETS, guess_dataset, list_images
from gcplib.lab.data.readers.scenes import training_part

INNER = {"aid": "AID", "nwpu": "NWPU-RESISC45", "ucm": "UCMerced_LandUse/Images"}
FRACTIONS = {"aid": 0.5, "aid_20": 0.2, "nwpu": 0.2, "nwpu_10": 0.1, "ucm": 0.8, "ucm_50": 0.5}

every = pytest.mark.parametrize("kind", INNER)


@pytest.mark.parametrize("dataset", FRACTIONS)
def test_counts_labels_and_the_fraction_of_training_images(tmp_path, dataset):
    kind = dataset.partition("_")[0]
    data = load_images(ImagesSpec(dataset, str(trees.make_scenes(tmp_path, kind, 20)), pixels=32))
    names = {"aid": "Airport", "nwpu": "airplane", "ucm": "forest"}
    assert data.class_names() == [names[kind] + letter for letter in "abc"]
    counts = Counter(zip(data.listing.splits, data.listing.classes, strict=True))
    train = round(20 * FRACTIONS[dataset])
    assert counts == {(s, n): count for s, count in (("train", train), ("test", 20 - train)) for n in range(3)}
    # The labels belong to the images: each has the color of its class.
    middle = data.images(np.arange(len(data)))[:, 16, 16]
    assert np.abs(middle - np.array(trees.COLORS)[data.labels()].astype(int)).max() <= 3
    with pytest.raises(ValueError, match="has no coarse labels"):
        data.labels("coarse")


@every
def test_data_sets_are_told_from_their_files_at_any_folder(tmp_path, kind):
    trees.make_scenes(tmp_path, kind)
    roots = [tmp_path, tmp_path / INNER[kind], *[tmp_path / "UCMerced_LandUse"] * (kind == "ucm")]
    assert {guess_dataset(root) for root in roots} == {kind}
    assert len({ImagesSpec(kind, str(root)).digest for root in roots}) == 1
    assert choose_data(kind, str(tmp_path), families=4, train=4, validation=2, test=2, pixels=64).dataset == kind


def test_no_other_layout_takes_scenes_for_its_own(tmp_path):
    for kind in INNER:
        root = trees.make_scenes(tmp_path / kind, kind)
        assert [name for name, dataset in DATASETS.items() if dataset.find(root)] == [kind]
    others = [trees.make_dogs, trees.make_cub, trees.make_imagenet, trees.make_inaturalist, trees.make_elpv]
    for place, make in enumerate(others):
        assert guess_dataset(make(tmp_path / str(place))) not in FRACTIONS


@every
def test_the_check_knows_the_published_counts(tmp_path, kind):
    report = str(check_images(ImagesSpec(kind, str(trees.make_scenes(tmp_path, kind)))))
    published = {
        "aid": ("AID", "10,000", 30),
        "nwpu": ("NWPU-RESISC45", "31,500", 45),
        "ucm": ("UC Merced", "2,100", 21),
    }
    title, images, classes = published[kind]
    assert report.startswith(title)
    assert f"30 of {images}" in report
    assert f"3 of {classes}" in report


def test_training_parts_are_nested_and_do_not_depend_on_the_order():
    paths = [f"a/a_{number}.jpg" for number in range(40)]
    small, large = (training_part(paths, fraction) for fraction in (0.2, 0.5))
    assert (len(small), len(large)) == (8, 20)
    assert small < large < set(paths)
    assert training_part(random.Random(0).sample(paths, 40), 0.2) == small
    assert small != set(paths[:8])


def test_small_classes_are_on_both_sides_and_a_single_image_is_trained_on():
    assert len(training_part(["1", "2"], 0.9)) == len(training_part(["1", "2"], 0.1)) == 1
    assert training_part(["1"], 0.1) == {"1"}
    for fraction in (0, 1):
        with pytest.raises(ValueError, match="above 0 and below 1, got"):
            training_part(["1"], fraction)


@every
def test_what_is_not_the_data_set_is_refused(tmp_path, kind):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=rf"no class folders of images such as .*The data set '{kind}' is "):
        list_images(kind, tmp_path / "empty")
    base = trees.make_scenes(tmp_path / "set", kind) / INNER[kind]
    trees.save(base / "stray.jpg", (0, 0, 0))
    with pytest.raises(ValueError, match=r"has images outside class folders stray\.jpg"):
        list_images(kind, tmp_path / "set")
    (base / "stray.jpg").unlink()
    (base / "zzz").mkdir()
    with pytest.raises(ValueError, match=r"the class folder zzz has no images \(.*\.tif.*\)"):
        list_images(kind, tmp_path / "set")
    trees.save(base / "zzz" / "other.jpg", (0, 0, 0))
    with pytest.raises(ValueError, match=r"the images of 1 class folders are not named like .*: zzz"):
        list_images(kind, tmp_path / "set")


def test_one_set_is_not_read_as_another(tmp_path):
    for kind in INNER:
        trees.make_scenes(tmp_path / kind, kind)
        for other in set(INNER) - {kind}:
            with pytest.raises(ValueError, match=r"are not named like .*, so that this is not"):
                list_images(other, tmp_path / kind / INNER[kind])


def test_a_class_of_one_image_has_none_to_spare(tmp_path):
    trees.make_scenes(tmp_path, "nwpu", [20, 20, 1])
    with pytest.raises(ValueError, match="the class 'airplanec' has 1 training image"):
        load_images(ImagesSpec("nwpu", str(tmp_path)))
