"""What the parameters of a notebook stand for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from trees import make_folder

from gcplib.lab.machine import allotted_cores
from gcplib.lab.setting import make_setting
from gcplib.lab.training import Recipe, slow_optimizer
from gcplib.lab.validation import SpecError

COUNTS = {"families": 3, "train": 4, "validation": 1, "test": 2, "pixels": 64}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path / "cache"))


def test_typefaces_have_two_kinds_of_labels_and_equal_classes(capsys):
    setting = make_setting(**COUNTS, stride=16)
    assert setting.kinds == ["fine", "coarse"]
    assert [len(setting.places[split]) for split in ("train", "validation", "test")] == [12, 3, 6]
    assert setting.chance() == pytest.approx(100 / 3)
    assert setting.described("2 epochs") == (
        "Typefaces, 3 families, 4 training images each, 64 px, stride 16, head stage, 2 epochs"
    )
    assert not capsys.readouterr().out


def test_images_from_disk_say_what_they_lack_and_where_they_are_from(tmp_path, capsys):
    counts = {"train/a": 6, "train/b": 2, "test/a": 2, "test/b": 1}
    root = make_folder(tmp_path / "birds", counts)
    setting = make_setting(dataset="folder", root=str(root), **COUNTS, stride=32, stage="full")
    assert setting.kinds == ["fine"]
    assert "without coarse labels" in capsys.readouterr().out
    trained = np.bincount(setting.labels["fine"][setting.places["train"]])
    assert setting.chance() == pytest.approx(100 * trained.max() / trained.sum())
    told = f"birds (folder), 2 classes, {trained.sum()} training images, 64 px, stride 32, full stage"
    assert setting.described() == told
    assert str(tmp_path) not in told


def test_maps_are_those_of_the_frozen_backbone_cached_or_not(tmp_path):
    settings = [make_setting(**COUNTS, stride=16, stage=stage, device="cpu") for stage in ("head", "full")]
    index = settings[0].some("test", 3)
    cached, computed = (setting.maps(index) for setting in settings)
    torch.testing.assert_close(cached, computed, rtol=1e-3, atol=1e-3)
    assert cached.shape == (3, settings[1].network.out_channels, 4, 4)


def test_runs_are_variants_of_one_and_are_trained_where_the_parameters_say():
    recipe = Recipe(epochs=1, batch_size=4)
    setting = make_setting(**COUNTS, stride=16, device="cpu", recipe=recipe, pool="gap", reduction=4)
    (run,) = setting.train([setting.base])
    assert run.result["device"] == "cpu"
    network, head = setting.parts(run.load_model())
    assert network is setting.network
    assert head(setting.features[:2]).shape == (2, 3)


def test_probes_read_the_stages_of_the_same_network_and_images():
    setting = make_setting(**COUNTS, stride=16, device="cpu")
    stages = setting.stages([16, 32])
    assert set(stages) == {"stride16", "stride32", "own"}
    torch.testing.assert_close(stages["stride16"][:2].float(), setting.features[:2], rtol=1e-2, atol=1e-2)
    found = setting.probe(strides=[32], widths=[8], seeds=0)
    assert [result.name for result in found[:3]] == ["own average", "average", "covariance, 8 channels"]
    assert found[0].correct.shape == (1, len(setting.places["test"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"device": "gpu"}, "accelerator"),
        ({"strides": 16}, "did you mean 'stride'"),
        ({"root": "here"}, "typefaces are drawn on this machine"),
        ({"dataset": "cup"}, "did you mean 'cub'"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises((SpecError, ValueError, TypeError), match=message):
        make_setting(**COUNTS | fields)


@pytest.mark.parametrize(
    ("given", "expected"), [("1", 1), ("", 3), ("0", 3), ("4,2", 3), ("1000", 3)], ids=lambda value: repr(value)
)
def test_numeric_work_takes_the_cores_that_a_job_was_given(given, expected, monkeypatch):
    monkeypatch.setattr("gcplib.lab.machine.cpu_count", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert allotted_cores() == expected


def test_what_a_run_begins_with_and_slow_steps_on_its_batches():
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=0.5, classifier_factor=3.0)
    setting = make_setting(**COUNTS, stride=16, device="cpu", recipe=recipe, pool="gap", reduction=4)
    first, again = (setting.untrained(setting.base).state_dict() for _ in range(2))
    other = setting.untrained(replace(setting.base, seed=1)).state_dict()
    name = "classifier.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    batches = list(setting.batches(0, 2))
    for (inputs, labels), (same, _) in zip(batches, setting.batches(0, 2), strict=True):
        assert (len(inputs), len(labels)) == (4, 4)
        assert torch.equal(inputs, same)
    assert not torch.equal(batches[0][0], batches[1][0])
    groups = slow_optimizer(setting.untrained(setting.base), recipe).param_groups
    assert {group["name"]: group["lr"] for group in groups} == pytest.approx({"pool": 0.05, "classifier": 0.15})
    assert {group["weight_decay"] for group in groups} == {0}
