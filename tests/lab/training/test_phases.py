"""Runs with several pools, the best epoch beside the last, trying a run, and event files."""

import dataclasses
import json

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gcplib.lab.training.train as train_module
from gcplib.lab.cli import main
from gcplib.lab.data import load_data
from gcplib.lab.training import Engine, PoolSwitch, Recipe, RunSpec, cache_features, ensure
from gcplib.lab.training.build import make_network
from gcplib.lab.training.engine import cached_fabric
from gcplib.lab.training.runs import run_directory
from gcplib.lab.training.train import dry_run
from gcplib.nn import CovariancePool, NewtonSchulzPool

ENGINE = Engine("cpu", loaders=0)
QUICK = Recipe(epochs=4, batch_size=8, learning_rate=0.05, schedule="step", milestones=(1, 2))


@pytest.fixture
def plain(tiny_spec, own_runs):
    return RunSpec(pool="isqrt_cov", reduction=8, data=tiny_spec, recipe=QUICK)


@pytest.fixture
def hybrid(plain):
    return with_recipe(plain, switch=(PoolSwitch("svd_pade"),))


def with_recipe(spec, **fields):
    return dataclasses.replace(spec, recipe=dataclasses.replace(spec.recipe, **fields))


@pytest.fixture
def epochs(monkeypatch):
    """Call a function with the state before every epoch; it returns the pools of the epochs."""
    train_epoch, pools = train_module.train_epoch, []

    def watch(before=lambda state: None):
        def watched(state, *args):
            before(state)
            pools.append((state.epoch, type(state.network.pool), state.evaluated.pool.reduction[0].weight.clone()))
            return train_epoch(state, *args)

        monkeypatch.setattr(train_module, "train_epoch", watched)
        return pools

    return watch


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_another_pool_takes_over_at_the_last_decay_with_the_weights(hybrid, plain, epochs, ema):
    pools = epochs()
    run = ensure(with_recipe(hybrid, ema=ema), ENGINE)
    kinds = [kind for _, kind, _ in pools]
    assert kinds == [NewtonSchulzPool, NewtonSchulzPool, CovariancePool, CovariancePool]
    model = run.load_model()
    assert isinstance(model.pool, CovariancePool)
    features = cache_features(load_data(hybrid.data))[run.predictions.image.tolist()]
    with torch.inference_mode():
        assert model(features).argmax(1).tolist() == run.predictions.prediction.tolist()
    # Until then it is the run without a switch, and the epochs after it go on from there.
    other = epochs()
    other.clear()
    alone = ensure(with_recipe(plain, ema=ema), ENGINE)
    columns = ["train_loss", "validation_loss", "gradient_norm"]
    assert run.metrics[columns][:2].equals(alone.metrics[columns][:2])
    assert run.metrics.train_loss[2] == pytest.approx(alone.metrics.train_loss[2], rel=0.05)
    assert run.metrics.train_loss[2] != alone.metrics.train_loss[2]
    assert torch.equal(pools[2][2], other[2][2])


def test_where_the_switch_is():
    step = Recipe(epochs=60, schedule="step", milestones=(30, 45, 90), switch=(PoolSwitch("svd_pade"),))
    assert step.switch_epoch(step.switch[0]) == 45
    number = Recipe(switch=(PoolSwitch("svd_pade", epoch=3), PoolSwitch("mpn_cov", {"exponent": 0.25}, 7)))
    spec = RunSpec(pool="isqrt_cov", options={"steps": 3}, recipe=number)
    assert [spec.pool_at(epoch) for epoch in (0, 2, 3, 6, 7, 11)] == [
        *[("isqrt_cov", {"steps": 3})] * 2,
        *[("svd_pade", {})] * 2,
        *[("mpn_cov", {"exponent": 0.25})] * 2,
    ]


def test_the_name_of_a_hybrid_run_and_its_spec(hybrid, plain):
    assert hybrid.name.startswith("isqrt_cov+svd_pade-fine-head-0-")
    assert hybrid.name.rpartition("-")[2] != plain.name.rpartition("-")[2]
    assert RunSpec.from_dict(yaml.safe_load(yaml.safe_dump(hybrid.to_dict()))) == hybrid
    by_number = with_recipe(plain, switch=(PoolSwitch("svd_pade", epoch=2),))
    assert by_number.name != hybrid.name


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_hybrid_run_is_continued_in_every_phase(hybrid, epochs, monkeypatch, stop):
    monkeypatch.setattr("gcplib.lab.training.writer.CHECKPOINT_FRACTION", float("inf"))
    # Pools with other numbers to keep, of the same length: hashes and signs.
    compact = PoolSwitch("cbp", {"sketch": 36}, 2)
    spec = with_recipe(hybrid, switch=(compact,), ema=0.8)
    want = ensure(spec, ENGINE).load_model().state_dict()
    for file in run_directory(spec).iterdir():
        file.unlink()

    def interrupt(state):
        if state.epoch == stop:
            raise KeyboardInterrupt

    epochs(interrupt)
    with pytest.raises(KeyboardInterrupt):
        ensure(spec, dataclasses.replace(ENGINE, checkpoint_seconds=0))
    pools = epochs(lambda state: None)
    pools.clear()
    got = ensure(spec, ENGINE).load_model().state_dict()
    assert [epoch for epoch, _, _ in pools] == list(range(stop, 4))
    for name, value in want.items():
        assert torch.equal(got[name], value), name


def test_a_pool_with_other_vectors_is_refused_before_training(hybrid, epochs):
    pools = epochs()
    message = r"recipe.switch: gap has vectors of 8 entries, the pool before it 36; the classifier fits one length only"
    with pytest.raises(ValueError, match=message):
        ensure(with_recipe(hybrid, switch=(PoolSwitch("gap", epoch=3),)), ENGINE)
    assert pools == []


def test_options_of_a_later_pool_are_looked_at_before_training(hybrid, epochs):
    pools = epochs()
    with pytest.raises((TypeError, ValueError), match="exponnent"):
        ensure(with_recipe(hybrid, switch=(PoolSwitch("svd_pade", {"exponnent": 2}, 3),)), ENGINE)
    assert pools == []


# --- the best epoch ---


@pytest.fixture
def known_history(monkeypatch):
    """Let given fractions of the validation images be right, and keep the networks evaluated on the test images."""

    def install(spec, fractions):
        data, evaluate, evaluated = load_data(spec.data), train_module.evaluate, []
        validation, labels = torch.as_tensor(data.indices("validation")), torch.as_tensor(data.labels())
        fractions = iter(fractions)

        def known(network, fabric, source, indices, flip):
            if not torch.equal(indices, validation):
                weights = {name: value.clone() for name, value in network.state_dict().items()}
                evaluated.append((type(network.pool), weights, evaluate(network, fabric, source, indices, flip)))
                return evaluated[-1][2]
            right = round(next(fractions) * len(indices))
            wrong = torch.arange(len(indices)) >= right
            classes = len(data.class_names())
            return torch.nn.functional.one_hot((labels[indices] + wrong) % classes, classes).float()

        monkeypatch.setattr(train_module, "evaluate", known)
        return evaluated, labels[torch.as_tensor(data.indices("test"))]

    return install


def accuracy(logits, labels):
    return 100 * (logits.argmax(1) == labels).double().mean().item()


@pytest.mark.parametrize(
    ("fractions", "best"),
    [((0.25, 0.75, 0.5, 0.5), 1), ((0.75, 0.75, 0.5, 0.5), 1), ((0.25, 0.5, 0.5, 0.75), 3), ((0.5, 0.5, 0.5, 0.5), 3)],
)
def test_the_best_epoch_is_that_of_the_validation_images_the_last_of_equals(hybrid, known_history, fractions, best):
    spec = with_recipe(hybrid, report_best=True)
    evaluated, labels = known_history(spec, fractions)
    run = ensure(spec, ENGINE)
    assert run.metrics.validation_accuracy.tolist() == list(fractions)
    assert run.result["best_epoch"] == best
    # The last epoch is evaluated on the test images, and the best one if it is another.
    assert len(evaluated) == (1 if best == 3 else 2)
    assert evaluated[0][0] is CovariancePool
    assert evaluated[-1][0] is (CovariancePool if best >= 2 else NewtonSchulzPool)
    assert run.result["test_accuracy"] == pytest.approx(accuracy(evaluated[0][2], labels))
    assert run.result["best_test_accuracy"] == pytest.approx(accuracy(evaluated[-1][2], labels))
    # What is kept is the last epoch, whichever was best.
    for name, value in run.load_model().state_dict().items():
        assert torch.equal(value, evaluated[0][1][name]), name
    assert run.predictions.prediction.tolist() == evaluated[0][2].argmax(1).tolist()
    if best < 3:
        assert not torch.equal(evaluated[1][1]["classifier.weight"], evaluated[0][1]["classifier.weight"])


def test_the_best_weights_are_those_of_a_shorter_run(plain, known_history):
    """With a constant rate the weights after two epochs are those of a run of two."""
    constant = with_recipe(plain, schedule="constant", report_best=True)
    evaluated, _ = known_history(constant, (0.25, 0.75, 0.5, 0.5))
    ensure(constant, ENGINE)
    short, _ = known_history(constant, (0.25, 0.75))
    ensure(with_recipe(constant, epochs=2), ENGINE)
    for name, value in evaluated[1][1].items():
        assert torch.equal(value, short[0][1][name]), name


def test_without_report_best_there_is_only_the_last_epoch(plain, known_history):
    evaluated, _ = known_history(plain, (0.75, 0.25, 0.25, 0.25))
    assert not {"best_epoch", "best_test_accuracy"} & ensure(plain, ENGINE).result.keys()
    assert len(evaluated) == 1


# --- trying a run, and following it ---


def test_a_dry_run_tells_what_a_run_will_be_and_writes_nothing(small, own_runs):
    spec = small(epochs=4, switch=(PoolSwitch("svd_pade", epoch=2),), flip=True, ema=0.9)
    found = dry_run(spec, cached_fabric(ENGINE, "float32"), ENGINE)
    assert [found[f"{name} images"] for name in ("train", "validation", "test")] == [52, 4, 8]
    assert (found["classes"], found["loaders"], found["device"]) == (4, 0, "cpu")
    assert found["pool"] == "isqrt_cov then svd_pade"
    assert 0 < found["seconds per step"] < 10
    hours = found["seconds per step"] * 13 * 4 / 3600
    assert found["hours for all epochs, without evaluation"] == pytest.approx(hours)
    assert found["parameters"] == sum(p.numel() for p in make_network(spec, 4).parameters())
    assert found["GPU memory in GB"] is None
    assert not own_runs.exists()


def test_a_dry_run_of_the_command(small, own_runs, tmp_path, capsys):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(small().to_dict()))
    assert main(["train", "--config", str(tmp_path / "spec.yaml"), "--dry-run", "--accelerator", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "Dry run, nothing is written" in printed
    assert "train images: 52" in printed
    assert not own_runs.exists()


def test_tensorboard_has_every_column_of_the_metrics(plain):
    run = ensure(plain, dataclasses.replace(ENGINE, tensorboard=True))
    events = EventAccumulator(str(run.directory / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == set(run.metrics.columns)
    for name in run.metrics.columns:
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [0, 1, 2, 3]
        assert [scalar.value for scalar in scalars] == pytest.approx(run.metrics[name].tolist(), rel=1e-6)


def test_event_files_of_a_continued_run_hold_each_epoch_once(plain, epochs, monkeypatch):
    monkeypatch.setattr("gcplib.lab.training.writer.CHECKPOINT_FRACTION", float("inf"))
    engine = dataclasses.replace(ENGINE, tensorboard=True, checkpoint_seconds=0)

    def interrupt(state):
        if state.epoch == 2:
            raise KeyboardInterrupt

    epochs(interrupt)
    with pytest.raises(KeyboardInterrupt):
        ensure(plain, engine)
    epochs()
    run = ensure(plain, engine)
    events = EventAccumulator(str(run.directory / "tensorboard")).Reload()
    assert [scalar.step for scalar in events.Scalars("train_loss")] == [0, 1, 2, 3]


def test_the_devices_are_in_the_result(plain):
    result = json.loads((ensure(plain, ENGINE).directory / "result.json").read_text())
    assert (result["device"], result["devices"]) == ("cpu", 1)
