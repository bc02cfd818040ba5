import dataclasses
import json
from concurrent.futures import Future

import numpy as np
import pytest
import torch
import yaml

import gcplib.lab.training.train as train_module
from gcplib.lab.training import (
    Engine,
    Recipe,
    RunSpec,
    cache_features,
    ensure,
    ensure_all,
    metrics_table,
    results_table,
)
from gcplib.lab.training.runs import run_directory

QUICK = Recipe(epochs=3, batch_size=8, learning_rate=0.05)


@pytest.fixture
def own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def spec(tiny_spec, own_runs):
    return RunSpec(pool="mpn_cov", reduction=8, data=tiny_spec, recipe=QUICK)


def test_a_run_leaves_its_files_and_is_not_trained_again(spec, monkeypatch):
    run = ensure(spec)
    assert RunSpec.from_dict(yaml.safe_load((run.directory / "spec.yaml").read_text())) == spec
    assert run.result["outcome"] == "finished"
    assert run.metrics.epoch.tolist() == [0, 1, 2]
    assert run.metrics.notna().all().all()
    right = (run.predictions.label == run.predictions.prediction).mean()
    assert run.result["test_accuracy"] == pytest.approx(100 * right)
    assert len(run.predictions) == 4 * spec.data.test
    assert not list(run.directory.glob("checkpoint*"))

    monkeypatch.setattr(train_module, "train_epoch", None)  # training again would call it
    assert ensure(spec).result == run.result


def test_training_learns_and_the_model_can_be_loaded(spec, tiny_data):
    longer = dataclasses.replace(spec, recipe=dataclasses.replace(QUICK, epochs=20), labels="coarse")
    run = ensure(longer)
    assert run.metrics.train_loss.iloc[-1] < 0.5 * run.metrics.train_loss.iloc[0]
    logits = run.load_model()(cache_features(tiny_data)[run.predictions.image.tolist()])
    assert logits.argmax(1).tolist() == run.predictions.prediction.tolist()


def test_an_interrupted_run_continues_to_the_same_weights(spec, monkeypatch):
    whole = ensure(spec).load_model().state_dict()
    again = dataclasses.replace(spec, seed=0)
    directory = run_directory(again)
    for file in directory.iterdir():
        file.unlink()
    monkeypatch.setattr("gcplib.lab.training.writer.CHECKPOINT_FRACTION", float("inf"))
    train_epoch = train_module.train_epoch

    def killed_in_the_last_epoch(state, *args):
        if state.epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(state, *args)

    monkeypatch.setattr(train_module, "train_epoch", killed_in_the_last_epoch)
    with pytest.raises(KeyboardInterrupt):
        ensure(again, Engine(checkpoint_seconds=0))
    assert not (directory / "result.json").exists()
    epochs = []
    monkeypatch.setattr(train_module, "train_epoch", lambda s, *a: epochs.append(s.epoch) or train_epoch(s, *a))
    resumed = ensure(again)
    assert epochs == [2]
    for name, value in resumed.load_model().state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_divergence_is_an_outcome(spec):
    wild = dataclasses.replace(spec, pool="cov", recipe=dataclasses.replace(QUICK, learning_rate=1e18, clip=0.0))
    run = ensure(wild)
    assert run.result["outcome"] == "diverged"
    assert "step" in run.result["reason"]
    assert run.result["test_accuracy"] is None
    json.dumps(run.result, allow_nan=False)
    table = results_table([run])
    assert table.outcome.tolist() == ["diverged"]


@pytest.mark.parametrize("pool", ["gap", "mpn_cov"])
def test_divergence_seen_only_in_evaluation_is_an_outcome_too(spec, monkeypatch, pool):
    train_epoch = train_module.train_epoch

    def last_step_goes_too_far(state, *args):
        row = train_epoch(state, *args)
        for parameter in state.model.parameters():
            parameter.data.fill_(float("nan"))
        return row

    monkeypatch.setattr(train_module, "train_epoch", last_step_goes_too_far)
    run = ensure(dataclasses.replace(spec, pool=pool))
    assert run.result["outcome"] == "diverged"
    assert run.result["reason"].startswith("evaluation: ")
    assert run.result["test_accuracy"] is None


def test_tables_hold_runs_that_diverged_at_once(spec):
    wild = dataclasses.replace(spec, pool="cov", recipe=dataclasses.replace(QUICK, learning_rate=1e18, clip=0.0))
    runs = [ensure(wild), ensure(spec)]
    assert runs[0].metrics.empty
    assert results_table(runs).outcome.tolist() == ["diverged", "finished"]
    assert metrics_table(runs).pool.tolist() == ["mpn_cov"] * 3


def test_full_stage_trains_the_backbone(spec):
    full = dataclasses.replace(spec, stage="full", recipe=dataclasses.replace(QUICK, epochs=1, learning_rate=0.01))
    run = ensure(full)
    from gcplib import create_backbone

    trained, start = run.load_model().backbone.state_dict(), create_backbone().state_dict()
    changed = [name for name in start if name.endswith("weight") and not torch.equal(trained[name], start[name])]
    assert len(changed) > 50


def test_many_runs_in_two_processes_are_those_of_one(spec):
    specs = [dataclasses.replace(spec, seed=seed, pool=pool) for pool in ("gap", "mpn_cov") for seed in (0, 1)]
    several = ensure_all([*specs, specs[0]], workers=2)
    assert [run.spec for run in several] == [*specs, specs[0]]
    want = several[3].load_model().state_dict()
    for file in several[3].directory.iterdir():
        file.unlink()
    for name, value in ensure(specs[3]).load_model().state_dict().items():
        assert torch.equal(value, want[name])
    assert set(metrics_table(several[:4]).groupby(["pool", "seed"]).size()) == {3}


def test_of_several_runs_the_longest_begin_first(spec, monkeypatch):
    begun = []

    class Workers:
        def submit(self, work, spec):
            begun.append(spec)
            future = Future()
            future.set_result(work(spec))
            return future

    monkeypatch.setattr("gcplib.lab.training.runs._pool", lambda *_: Workers())
    specs = [dataclasses.replace(spec, recipe=dataclasses.replace(QUICK, epochs=epochs)) for epochs in (1, 3, 2)]
    assert [run.spec for run in ensure_all(specs, workers=2)] == specs
    assert begun == [specs[1], specs[2], specs[0]]


def test_every_part_of_a_spec_counts(spec):
    others = [
        dataclasses.replace(spec, seed=1),
        dataclasses.replace(spec, labels="coarse"),
        dataclasses.replace(spec, options={"exponent": 0.25}),
        dataclasses.replace(spec, recipe=dataclasses.replace(QUICK, clip=1.0)),
        dataclasses.replace(spec, data=dataclasses.replace(spec.data, seed=1)),
    ]
    assert len({s.name for s in [spec, *others]}) == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pol": "gap"}, r"unknown keys in spec: \['pol'\]"),
        ({"recipe": {"epoch": 3}}, r"unknown keys in recipe: \['epoch'\]"),
        ({"recipe": {"learning_rate": "1e-3"}}, r"recipe.learning_rate must be .*float.*'1e-3' \(str\)"),
        ({"recipe": {"epochs": True}}, r"recipe.epochs must be .*int.*True \(bool\)"),
        ({"recipe": {"schedule": "warm"}}, r"unknown schedule 'warm'; known: one_cycle"),
        ({"pool": "mpn"}, r"unknown pool 'mpn'; known: gap"),
        ({"labels": "middle"}, r"unknown labels 'middle'; known: fine, coarse"),
        ({"recipe": {"epochs": 0}}, r"recipe.epochs must be at least 1, got 0"),
        ({"version": 99}, r"version 99"),
    ],
)
def test_a_wrong_spec_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        RunSpec.from_dict(values)


def test_numpy_numbers_make_the_same_run():
    assert RunSpec(recipe=Recipe(learning_rate=np.float64(0.2), epochs=np.int64(12))).name == RunSpec().name


def test_integers_are_taken_for_floats_and_none_for_no_reduction():
    spec = RunSpec.from_dict({"recipe": {"learning_rate": 1, "milestones": [2, 3]}, "reduction": None})
    assert spec.recipe.learning_rate == 1.0
    assert spec.recipe.milestones == (2, 3)
    assert spec.reduction is None
