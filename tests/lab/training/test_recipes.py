"""Every published recipe, tried on a tiny tree in the dataset of its data set."""

import dataclasses
from functools import partial

import pytest
import torch
import trees
import yaml

from gcplib.lab.cli import main
from gcplib.lab.plain import merge
from gcplib.lab.training import Engine, RunSpec
from gcplib.lab.training.engine import cached_fabric
from gcplib.lab.training.published import list_recipes, load_recipe
from gcplib.lab.training.train import dry_run

MAKERS = {
    "cub": trees.make_cub,
    "cars": trees.make_cars,
    "aircraft": trees.make_aircraft,
    "imagenet": trees.make_imagenet,
    **{kind: partial(trees.make_scenes, kind=kind) for kind in trees.SCENES},
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    made = {}
    for dataset, make in MAKERS.items():
        made[dataset] = tmp_path_factory.mktemp(dataset)
        make(made[dataset])
    return made


def _tiny(name, roots):
    """The recipe with smaller images and batches, and without weights, which would need a network."""
    values = load_recipe(name).spec
    data = {"root": str(roots[values["data"]["dataset"]]), "pixels": 64} | (
        {"scale": 72} if "scale" in values["data"] else {}
    )
    recipe = {"batch_size": 4} | ({"loss": "gce(1)"} if "loss" in values["recipe"] else {})  # there are few classes
    return RunSpec.from_dict(merge(values, {"pretrained": False, "data": data, "recipe": recipe}))


# A pool and gates; the others, which differ in their settings alone, are slow.
QUICK = ("tpami2022/cub", "gsop_net1/imagenet")
EACH = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in list_recipes()]


@pytest.mark.parametrize("name", EACH)
def test_a_recipe_can_be_run(name, roots):
    recipe = load_recipe(name)
    assert recipe.source
    assert recipe.differences
    spec = _tiny(name, roots)
    assert spec.stage == "full"
    assert spec.recipe.report_best
    found = dry_run(spec, cached_fabric(Engine(accelerator="cpu"), spec.recipe.precision), Engine(accelerator="cpu"))
    assert found["classes"] >= 2
    assert found["seconds per step"] > 0
    assert found["pool"] == ("isqrt_cov then svd_pade" if name.startswith("hybrid") else spec.pool)


def test_settings_are_those_of_the_papers():
    def recipe(name):
        return RunSpec.from_dict(merge(load_recipe(name).spec, {"data": {"root": "x"}})).recipe

    birds, aircraft, cars = (recipe(f"tpami2022/{name}") for name in ("cub", "aircraft", "cars"))
    assert (birds.batch_size, birds.epochs, birds.milestones, birds.weight_decay) == (10, 200, (50, 100), 1e-4)
    assert (birds.classifier_factor, cars.classifier_factor, aircraft.classifier_factor) == (20, 10, 5)
    assert (aircraft.batch_size, aircraft.epochs, aircraft.milestones, aircraft.weight_decay) == (8, 50, (21, 40), 1e-3)
    assert {r.learning_rate for r in (birds, aircraft, cars)} == {3e-3}
    assert dataclasses.replace(recipe("iccv2021/cub")) == birds
    newton_schulz = recipe("isqrt/cars")
    assert (newton_schulz.learning_rate, newton_schulz.schedule, newton_schulz.epochs) == (1.2e-3, "constant", 100)
    hybrid = recipe("hybrid/imagenet")
    assert hybrid.switch_epoch(hybrid.switch[0]) == 45


@pytest.mark.slow
def test_the_command_lists_recipes_and_tries_one(roots, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path))
    assert main(["train", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(list_recipes())
    assert main(["train", "--list", "--config", "tpami2022/cub"]) == 0
    assert "Differences:" in capsys.readouterr().out
    changes = [f"data.root={roots['cub']}", "data.pixels=64", "pretrained=false", "recipe.batch_size=4"]
    options = [text for change in changes for text in ("--set", change)]
    assert main(["train", "--config", "isqrt/cub", "--dry-run", "--accelerator", "cpu", *options]) == 0
    assert "hours for all epochs" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_recipe_is_an_error_that_lists_them(capsys):
    assert main(["train", "--config", "tpami2022/birds"]) == 2
    assert "unknown recipe 'tpami2022/birds'; did you mean" in capsys.readouterr().err


def test_a_recipe_in_a_file_is_read_too(roots, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(_tiny("isqrt/cub", roots).to_dict()))
    assert main(["train", "--config", str(file), "--dry-run", "--accelerator", "cpu"]) == 0
    assert torch.get_num_threads() == 1
