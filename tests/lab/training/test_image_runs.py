"""Runs on images from disk: both stages, flips that survive an interruption, and names that stay."""

import dataclasses
import re

import pytest
import timm
import torch
import yaml
from PIL import Image
from trees import make_cub, shaded

import gcplib.lab.training.train as train_module
from gcplib.lab.data import ImagesSpec, TypefacesSpec, load_data
from gcplib.lab.training import Engine, Recipe, RunSpec, cache_features, ensure, ensure_all

QUICK = Recipe(epochs=2, batch_size=4, learning_rate=0.01)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights in a file: features of an untrained backbone are not cached."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet10t.pth"
    torch.save(timm.create_model("resnet10t", pretrained=False).state_dict(), path)
    return str(path)


@pytest.fixture
def spec(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path / "cache"))
    data = ImagesSpec("cub", str(make_cub(tmp_path / "CUB_200_2011", paint=shaded)), pixels=64)
    return RunSpec(reduction=8, backbone="resnet10t", pretrained=weights, data=data, recipe=QUICK)


@pytest.fixture
def flipping(spec):
    return dataclasses.replace(spec, stage="full", recipe=dataclasses.replace(QUICK, epochs=3, flip=True))


def test_head_runs_on_images_from_disk(spec):
    coarse = dataclasses.replace(spec, labels="coarse")
    run, other = ensure_all([spec, coarse])
    assert run.result["outcome"] == other.result["outcome"] == "finished"
    assert run.result["data"] == spec.data.digest
    assert run.predictions.label.tolist() == [0, 0, 1, 1, 2, 2]
    assert other.predictions.label.tolist() == [0, 0, 0, 0, 1, 1]
    assert RunSpec.from_dict(yaml.safe_load((run.directory / "spec.yaml").read_text())) == spec


def test_full_runs_train_on_flips_and_evaluate_both_images(flipping, monkeypatch):
    evaluate, seen = train_module.evaluate, []
    monkeypatch.setattr(train_module, "evaluate", lambda *a: seen.append(evaluate(*a)) or seen[-1])
    run = ensure(flipping)
    assert run.result["outcome"] == "finished"
    model, data = run.load_model(), load_data(flipping.data)
    # The last two: validation images after the last epoch, and test images.
    for split, logits in zip(("validation", "test"), seen[-2:], strict=True):
        inputs = model.backbone.prepare(data.images(data.indices(split)))
        with torch.inference_mode():
            mean = (model(inputs) + model(inputs.flip(-1))) / 2
        torch.testing.assert_close(logits, mean)
        assert not torch.allclose(logits, model(inputs), rtol=1e-3)
    assert run.predictions.image.tolist() == data.indices("test").tolist()
    assert run.predictions.prediction.tolist() == seen[-1].argmax(1).tolist()
    plain = ensure(dataclasses.replace(flipping, recipe=dataclasses.replace(flipping.recipe, flip=False)))
    assert plain.metrics.train_loss.tolist() != run.metrics.train_loss.tolist()


def test_an_interrupted_run_flips_the_same_images(flipping, monkeypatch):
    whole = ensure(flipping)
    want, losses = whole.load_model().state_dict(), whole.metrics.train_loss.tolist()
    for file in whole.directory.iterdir():
        file.unlink()
    monkeypatch.setattr("gcplib.lab.training.writer.CHECKPOINT_FRACTION", float("inf"))
    train_epoch, epochs = train_module.train_epoch, []

    def killed_in_the_second_epoch(state, *args):
        if state.epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(state, *args)

    monkeypatch.setattr(train_module, "train_epoch", killed_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        ensure(flipping, Engine(checkpoint_seconds=0))
    monkeypatch.setattr(train_module, "train_epoch", lambda s, *a: epochs.append(s.epoch) or train_epoch(s, *a))
    torch.rand(5)  # whatever else the process draws
    again = ensure(flipping)
    assert epochs == [1, 2]
    assert again.metrics.train_loss.tolist() == losses
    for name, value in again.load_model().state_dict().items():
        assert torch.equal(value, want[name]), name


def test_a_moved_data_set_keeps_its_runs_and_features(spec, tmp_path, monkeypatch):
    run = ensure(spec)
    (tmp_path / "CUB_200_2011").rename(tmp_path / "birds")
    moved = dataclasses.replace(spec, data=dataclasses.replace(spec.data, root=str(tmp_path / "birds")))
    assert moved != spec
    monkeypatch.setattr(train_module, "train_epoch", None)
    assert ensure(moved).directory == run.directory
    monkeypatch.setattr("gcplib.lab.training.features.create_backbone", None)
    assert len(cache_features(load_data(moved.data), spec.backbone, 16, spec.pretrained)) == 21


def test_what_counts_in_the_name_of_a_run_on_images(spec, tmp_path):
    others = [
        dataclasses.replace(spec, data=dataclasses.replace(spec.data, resize="both")),
        dataclasses.replace(spec, stage="full"),
        dataclasses.replace(spec, stage="full", recipe=dataclasses.replace(QUICK, flip=True)),
    ]
    names = {s.name for s in [spec, *others]}
    (tmp_path / "CUB_200_2011" / "images" / "003.House_Wren" / "House_Wren_0.jpg").write_bytes(b"another")
    names.add(dataclasses.replace(spec, data=dataclasses.replace(spec.data)).name)
    assert len(names) == 5


@pytest.mark.parametrize(
    ("data", "want"),
    [
        ({"dataset": "cub", "root": "birds"}, ImagesSpec("cub", "birds")),
        ({"dataset": "folder", "root": "x", "pixels": 64, "validation": 0.25}, ImagesSpec("folder", "x", 64, 0.25)),
        ({"families": 4, "pixels": 64}, TypefacesSpec(families=4, pixels=64)),
        ({"pixels": 64}, TypefacesSpec(pixels=64)),
        ({}, TypefacesSpec()),
    ],
)
def test_the_kind_of_data_is_told_by_its_keys(data, want):
    spec = RunSpec.from_dict({"data": data})
    assert spec.data == want
    assert RunSpec.from_dict(spec.to_dict()) == spec
    assert RunSpec.from_dict(yaml.safe_load(yaml.safe_dump(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"data": {"root": "birds"}}, "data.dataset: is missing"),
        ({"data": {"dataset": "cub"}}, "data.root: is missing"),
        (
            {"data": {"dataset": "cub", "root": "x", "families": 3}},
            "data: unknown key 'families'; known: dataset, root",
        ),
        ({"data": {"familes": 3}}, "data: unknown key 'familes'; did you mean 'families'? known: families, train"),
        ({"data": {"dataset": "cub", "root": "x", "pixels": 64.5}}, "data.pixels: should be a valid integer; got 64.5"),
        (
            {"data": {"dataset": "cub", "root": "x", "validation": 0}},
            "data.validation: should be greater than 0; got 0",
        ),
        ({"data": {"dataset": "cub", "root": 2024}}, "data.root: should be a valid string (in YAML, put it in quotes)"),
        ({"data": "cub"}, "data: should be a dictionary or an instance of TypefacesSpec; got 'cub'"),
        ({"recipe": {"flip": True}}, "recipe.flip True needs stage 'full', got 'head'"),
        ({"recipe": {"flip": 1}}, "recipe.flip: should be a valid boolean; got 1"),
    ],
)
def test_a_wrong_spec_is_refused(values, problem):
    with pytest.raises(ValueError, match=rf"a run has 1 problem:\n  - {re.escape(problem)}"):
        RunSpec.from_dict(values)


def test_coarse_labels_that_are_not_there_stop_the_run_before_it_begins(spec, tmp_path):
    for place in ("train/a/1.png", "train/a/2.png", "train/b/1.png", "train/b/2.png", "test/a/1.png", "test/b/1.png"):
        path = tmp_path / "flat" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(path)
    flat = dataclasses.replace(spec, labels="coarse", data=ImagesSpec("folder", str(tmp_path / "flat"), pixels=64))
    with pytest.raises(ValueError, match="has no coarse labels"):
        ensure(flat)
    gone = dataclasses.replace(spec, data=ImagesSpec("folder", str(tmp_path / "gone"), pixels=64))
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*gone'"):
        ensure(gone)
