import copy
import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import Future

import numpy as np
import pytest
import torch
import yaml

import gcplib.lab.training.train as train_module
from gcplib.lab.outcomes import unpack
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
from gcplib.lab.validation import SpecError

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
    assert table.correct.isna().all()


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
    table = results_table(runs)
    assert table.outcome.tolist() == ["diverged", "finished"]
    assert unpack(table.correct[1]).mean() == pytest.approx(table.test_accuracy[1])
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


def test_of_several_runs_the_longest_begin_first_and_no_process_runs_the_script_again(spec, monkeypatch):
    begun = []

    class Workers:
        def submit(self, work, spec, engine):
            assert not hasattr(sys.modules["__main__"], "__file__")  # a process that starts now would import it
            begun.append(spec)
            future = Future()
            future.set_result(work(spec, engine))
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
    ("values", "problem"),
    [
        ({"pol": "gap"}, "unknown key 'pol'; did you mean 'pool'? known: pool, options, "),
        ({"recipe": {"epoch": 3}}, "recipe: unknown key 'epoch'; did you mean 'epochs'? known: epochs, batch_size, "),
        ({"recipe": {"learning_rate": "1e-3"}}, "recipe.learning_rate: should be a valid number; got '1e-3'"),
        ({"recipe": {"epochs": True}}, "recipe.epochs: should be a valid integer; got True"),
        ({"recipe": {"schedule": "warm"}}, "recipe.schedule: unknown schedule 'warm'; known: one_cycle"),
        ({"recipe": {"epochs": 0}}, "recipe.epochs: should be greater than 0; got 0"),
        (
            {"recipe": {"switch": [{"pool": "cov"}, {"pol": "cov"}]}},
            "recipe.switch[1]: unknown key 'pol'; did you mean",
        ),
        ({"pool": "mpn"}, "pool: unknown pool 'mpn'; did you mean 'mtp'? known: gap"),
        ({"labels": "middle"}, "labels: unknown name 'middle'; known: fine, coarse"),
        ({"reduction": 0}, "reduction: should be greater than 0"),
        ({"options": {"rule": object()}}, "options.rule: "),
        ({"seed": "0"}, "seed: should be a valid integer; got '0'"),
        ({"version": 99}, "version: should be 1; got 99"),
    ],
)
def test_a_wrong_spec_is_refused(values, problem):
    with pytest.raises(SpecError, match=rf"a run has \d problems?:(\n.*)*  - {re.escape(problem)}") as caught:
        RunSpec.from_dict(values)
    assert len(caught.value.problems) == 1 + ("switch" in str(values))
    with pytest.raises(SpecError, match=re.escape(problem)):
        RunSpec(**values)


@pytest.mark.slow
def test_names_do_not_depend_on_the_process(spec):
    code = f"import sys; from gcplib.lab.training import RunSpec; print(RunSpec.from_dict({spec.to_dict()!r}).name)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True)
    assert done.stdout.decode().strip() == spec.name
    for again in (copy.deepcopy(spec), pickle.loads(pickle.dumps(spec)), RunSpec.from_dict(spec.to_dict())):
        assert again == spec
        assert again.name == spec.name


def test_several_workers_with_several_devices_are_refused(spec):
    with pytest.raises(ValueError, match="2 workers with 3 devices each: give one of the two"):
        ensure_all([spec], workers=2, engine=Engine("cpu", devices=3))


def test_numpy_numbers_make_the_same_run():
    assert RunSpec(recipe=Recipe(learning_rate=np.float64(0.2), epochs=np.int64(12))).name == RunSpec().name


def test_integers_are_taken_for_floats_and_none_for_no_reduction():
    spec = RunSpec.from_dict({"recipe": {"learning_rate": 1, "milestones": [2, 3]}, "reduction": None})
    assert spec.recipe.learning_rate == 1.0
    assert spec.recipe.milestones == (2, 3)
    assert spec.reduction is None
