"""Runs with systems built in: what is trained, by which loss, and that they continue exactly."""

import dataclasses
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

import gcplib.lab.training.train as train_module
from gcplib.lab.data import load_data
from gcplib.lab.training import Engine, Recipe, RunSpec, cache_features, ensure, ensure_all, results_table
from gcplib.lab.training.build import features_of, make_network, set_up
from gcplib.lab.training.engine import cached_fabric
from gcplib.lab.training.loop import Stopped, train_epoch
from gcplib.lab.training.runs import run_directory
from gcplib.lab.training.sources import Batch
from gcplib.lab.training.state import make_optimizer
from gcplib.models import create_backbone
from gcplib.nn import d4_views, gradient_boosting_cross_entropy, list_pools

ENGINE = Engine("cpu", loaders=0)
QUICK = Recipe(epochs=2, batch_size=8, learning_rate=0.05)
HEAD = [
    ("gap", {"diversify": {}}, "gce(2)"),
    ("mpn_cov", {"gate": {"stages": ["features"], "kind": "channel", "width": 8}}, "gce(2)"),
    ("isqrt_cov", {"views": {"mode": "all"}}, "cross_entropy"),
    ("idccp", {"views": {"mode": "all"}}, "cross_entropy"),
    ("gap", {"views": {"mode": "random"}, "diversify": {"p_peak": 0.3}}, "cross_entropy"),
]
FULL = [
    ("isqrt_cov", {"gate": {"stages": ["layer2", "features"], "width": 8}}),
    ("isqrt_cov", {"views": {"mode": "all"}}),
    ("gap", {"views": {"mode": "random"}, "diversify": {}}),
    ("gap", {"coarse2fine": {"maps": 2, "first": 1}}),
]


@pytest.fixture
def spec(tiny_spec, own_runs):
    return RunSpec(pool="gap", reduction=8, data=tiny_spec, recipe=QUICK)


@pytest.fixture
def interrupted(monkeypatch):
    """Train a run, but stop it in the middle of its second epoch; call it again to the end."""

    def make(spec):
        calls = []

        def train_and_stop(state, fabric, source, indices, recipe, seed, watch, stop):
            def stop_here():
                calls.append(state.epoch)
                return calls.count(1) == 2

            return train_epoch(state, fabric, source, indices, recipe, seed, watch, stop_here)

        with monkeypatch.context() as patch:
            patch.setattr(train_module, "train_epoch", train_and_stop)
            with pytest.raises(Stopped):
                ensure(spec, ENGINE)
        return ensure(spec, ENGINE)

    return make


def check_exact(spec, interrupted, monkeypatch, tmp_path):
    once = ensure(spec, ENGINE)
    want = load_file(once.directory / "model.safetensors")
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "again"))
    again = interrupted(spec)
    assert again.directory != once.directory
    found = load_file(again.directory / "model.safetensors")
    assert list(found) == list(want)
    assert all(torch.equal(found[name], want[name]) for name in want)
    assert again.result["test_accuracy"] == once.result["test_accuracy"]
    again.load_model()


@pytest.mark.slow
@pytest.mark.parametrize(("pool", "systems", "loss"), HEAD)
def test_a_head_with_systems_continues_exactly(spec, interrupted, monkeypatch, tmp_path, pool, systems, loss):
    recipe = dataclasses.replace(QUICK, loss=loss)
    spec = dataclasses.replace(spec, pool=pool, systems=systems, recipe=recipe)
    check_exact(spec, interrupted, monkeypatch, tmp_path)


@pytest.mark.parametrize(("pool", "systems"), FULL)
def test_a_network_with_systems_continues_exactly(small, own_runs, interrupted, monkeypatch, tmp_path, pool, systems):
    spec = dataclasses.replace(small(), pool=pool, systems=systems)
    check_exact(spec, interrupted, monkeypatch, tmp_path)


def test_the_name_of_a_run_has_systems_and_loss_only_where_they_are_set(spec):
    assert "systems" not in spec.name
    plain = dataclasses.replace(spec, systems={}, recipe=dataclasses.replace(QUICK, loss="cross_entropy"))
    assert plain.name == spec.name
    names = {spec.name, dataclasses.replace(spec, recipe=dataclasses.replace(QUICK, loss="gce(2)")).name}
    for systems in ({"diversify": {}}, {"diversify": {"factor": 0.2}}, {"views": {"mode": "random"}}):
        other = dataclasses.replace(spec, systems=systems)
        assert other.name.startswith(f"gap.{next(iter(systems))}-fine-head-0-")
        names.add(other.name)
        assert RunSpec.from_dict(json.loads(json.dumps(other.to_dict()))) == other
    assert len(names) == 5
    stages = [{"gate": {"stages": kind(["features"])}} for kind in (list, tuple)]
    assert len({dataclasses.replace(spec, systems=systems).name for systems in stages}) == 1


def test_several_reductions_are_one_field(spec):
    several = dataclasses.replace(spec, reduction=[12, 8])
    assert several.reduction == (12, 8)
    assert RunSpec.from_dict(json.loads(json.dumps(several.to_dict()))) == several
    assert several.name != spec.name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"systems": {"gates": {}}}, "unknown system 'gates'; did you mean 'gate'. known: gate, views, diversify"),
        ({"systems": {"gate": ["features"]}}, "systems.gate: should be a valid dictionary"),
        ({"systems": {"gate": {"stages": ["blocks.4"]}}}, "has a frozen backbone; gate .'features'. there"),
        ({"systems": {"coarse2fine": {}}}, "needs the stage 'full'"),
        ({"systems": {"coarse2fine": {"first": 2}}, "stage": "full"}, "from epoch 2 on, but the run has 2 epochs"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(spec, fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(spec, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "gce(0)"}, "must be a positive integer, got 0"),
        ({"loss": "hinge"}, "hinge"),
        ({"loss": "gce(2)", "label_smoothing": 0.1}, "label_smoothing is for the loss cross_entropy"),
    ],
)
def test_a_loss_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


@pytest.mark.parametrize("pool", list_pools())
def test_the_optimizer_has_every_parameter_of_the_network(spec, pool):
    state, _, _ = set_up(dataclasses.replace(spec, pool=pool), cached_fabric(ENGINE, "float32"), ENGINE)
    optimized = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in state.network.parameters()}


def test_the_projection_of_idccp_is_trained_and_stays_orthonormal(spec):
    spec = dataclasses.replace(spec, pool="idccp", options={"projection": 3})
    state, dataset, source = set_up(spec, cached_fabric(ENGINE, "float32"), ENGINE)
    before = state.network.pool.projection.weight.detach().clone()
    indices = torch.as_tensor(dataset.indices("train"))
    train_epoch(state, cached_fabric(ENGINE, "float32"), source, indices, spec.recipe, 0)
    after = state.network.pool.projection.weight.detach()
    assert (after - before).abs().max() > 1e-4
    torch.testing.assert_close(after.mT @ after, torch.eye(3), atol=1e-5, rtol=0)


def test_the_loss_of_the_recipe_is_what_is_minimized(spec):
    spec = dataclasses.replace(spec, recipe=dataclasses.replace(QUICK, loss="gce(1)", learning_rate=1e-8, clip=0.0))
    state, dataset, source = set_up(spec, cached_fabric(ENGINE, "float32"), ENGINE)
    indices = torch.as_tensor(dataset.indices("train"))[:8]
    x, y = source.inputs(indices), source.labels[indices]
    logits = state.network.train()(x)
    want = gradient_boosting_cross_entropy(logits, y, 1)
    assert want < functional.cross_entropy(logits, y)  # a class is missing from the sum
    row = train_epoch(state, cached_fabric(ENGINE, "float32"), source, indices, spec.recipe, 0)
    assert row["train_loss"] == pytest.approx(want.item(), rel=1e-5)


def test_a_network_that_looks_twice_is_trained_on_the_mean_of_both_losses(small, own_runs):
    spec = dataclasses.replace(small(learning_rate=1e-8, clip=0.0), systems={"coarse2fine": {"first": 0}})
    state, dataset, source = set_up(spec, cached_fabric(ENGINE, "float32"), ENGINE)
    indices = torch.as_tensor(dataset.indices("train"))[:4]
    (x,) = source.batches([Batch(indices)])
    y = source.labels[indices]
    coarse, fine = state.network.train()(x)
    want = (functional.cross_entropy(coarse, y) + functional.cross_entropy(fine, y)) / 2
    row = train_epoch(state, cached_fabric(ENGINE, "float32"), source, indices, spec.recipe, 0)
    assert row["train_loss"] == pytest.approx(want.item(), rel=1e-4)


@pytest.mark.slow
def test_features_of_all_views_are_those_of_the_transformed_images(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path))
    features = cache_features(tiny_data, views=True)
    plain = cache_features(tiny_data)
    assert features.shape == (len(tiny_data), 8, *plain.shape[1:])
    torch.testing.assert_close(features[:, 0], plain, atol=1e-4, rtol=1e-4)
    backbone = create_backbone().eval()
    with torch.inference_mode():
        want = backbone(d4_views(backbone.prepare(tiny_data.images([3])))[0])
    torch.testing.assert_close(features[3], want, atol=1e-4, rtol=1e-4)
    assert (features[3, 0] - features[3, 1]).abs().max() > 0.1


def test_runs_with_and_without_views_read_their_own_features(spec):
    views = dataclasses.replace(spec, systems={"views": {"mode": "upright"}})
    assert features_of(spec)[-1] is False
    assert features_of(views)[-1] is True
    plain, upright = ensure_all([spec, views])
    # The same images: only rounding differs between features of one view and of eight.
    assert upright.result["train_accuracy"] == pytest.approx(plain.result["train_accuracy"], abs=15)
    table = results_table([plain, upright])
    assert table.systems.isna().tolist() == [True, False]


def test_what_is_new_in_the_backbone_learns_as_fast_as_the_pool(small):
    systems = {"gate": {"stages": ["layer2", "features"], "width": 8}}
    spec = dataclasses.replace(small(backbone_factor=0.1, classifier_factor=10.0), systems=systems)
    network = make_network(spec, 4)
    groups = {group["name"]: group for group in make_optimizer(network, spec.recipe).param_groups}
    assert {name: group["base"] for name, group in groups.items()} == pytest.approx(
        {"backbone": 0.001, "pool": 0.01, "classifier": 0.1}
    )
    gates = {p for m in network.modules() if getattr(m, "learns_as_pool", False) for p in m.parameters()}
    assert gates <= set(groups["pool"]["params"])
    assert len(gates) > 8
    everything = [p for group in groups.values() for p in group["params"]]
    assert len(everything) == len(set(everything)) == len(list(network.parameters()))


def test_the_stages_of_training_follow_the_epochs(small, own_runs, monkeypatch):
    stages = []

    def watched(state, *args):
        stages.append(state.network.coarse_only)
        return train_epoch(state, *args)

    monkeypatch.setattr(train_module, "train_epoch", watched)
    ensure(dataclasses.replace(small(epochs=3), systems={"coarse2fine": {"first": 2}}), ENGINE)
    assert stages == [True, True, False]


def test_asked_to_end_during_the_last_evaluation_a_run_is_whole_and_the_next_does_not_begin(spec, monkeypatch):
    evaluate, calls = train_module.evaluate, []

    def ask_then_evaluate(*args):
        calls.append(len(args))
        if len(calls) == QUICK.epochs + 1:  # after the validation images of each epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args)

    monkeypatch.setattr(train_module, "evaluate", ask_then_evaluate)
    other = dataclasses.replace(spec, seed=1)
    with pytest.raises(Stopped) as stopped:
        ensure_all([spec, other])
    assert stopped.value.code == 143
    assert (run_directory(spec) / "result.json").exists()
    assert not run_directory(other).exists()


def test_a_loaded_network_prepares_images_as_in_training(tiny_spec, own_runs):
    recipe = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-3)
    spec = RunSpec(pool="gap", reduction=None, stage="full", data=tiny_spec, recipe=recipe)
    run = ensure(spec, ENGINE)
    trained, loaded = make_network(spec, 4).backbone, run.load_model().backbone
    assert (loaded.mean, loaded.std) == (trained.mean, trained.std)
    data = load_data(tiny_spec)
    test = data.indices("test")
    with torch.inference_mode():
        logits = run.load_model()(loaded.prepare(data.images(test)))
    assert logits.argmax(1).tolist() == run.predictions.prediction.tolist()
