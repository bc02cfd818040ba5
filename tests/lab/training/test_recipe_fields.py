"""What each field of a recipe does, by closed forms, and which values are refused."""

import dataclasses
import math
import re
import shutil

import pytest
import torch
from torch import nn

from gcplib.lab.data import ImagesSpec, TypefacesSpec
from gcplib.lab.training import Engine, PoolSwitch, Recipe, RunSpec, ensure, learning_rate_factor
from gcplib.lab.training.engine import PRECISIONS, cached_fabric
from gcplib.lab.training.loop import plan_epoch, train_epoch
from gcplib.lab.training.sources import Batch, Source
from gcplib.lab.training.state import TrainingState, make_average, make_optimizer
from gcplib.lab.validation import SpecError
from gcplib.models import Head
from gcplib.nn import create_pool

ENGINE = Engine("cpu", loaders=0)
PLAIN = {"schedule": "constant", "momentum": 0.0, "weight_decay": 0.0, "clip": 0.0, "classifier_factor": 1.0}


def test_short_schedules_are_those_of_the_paper():
    fast, adju = Recipe(epochs=30, schedule="fast"), Recipe(epochs=50, schedule="adju")
    for epoch in range(30):
        # The script counts epochs from 1: 0.1 (1 - (e - 1) / 52)^11.
        assert 0.1 * learning_rate_factor(fast, epoch) == pytest.approx(0.1 * (1 - epoch / 52) ** 11, rel=1e-12)
    for epoch in range(50):
        assert learning_rate_factor(adju, epoch) == pytest.approx((1 - epoch / 49) ** 2, abs=1e-12)
    # All epoch long the rate of its start.
    assert learning_rate_factor(fast, 7.99) == learning_rate_factor(fast, 7)
    assert learning_rate_factor(adju, 7.99) == learning_rate_factor(adju, 7)


def test_short_schedules_are_stretched_to_other_lengths():
    fast = Recipe(epochs=60, schedule="fast")
    assert learning_rate_factor(fast, 30) == pytest.approx((1 - 15 / 52) ** 11)
    for name, published in (("fast", 30), ("adju", 50)):
        whole, short = Recipe(epochs=published, schedule=name), Recipe(epochs=4, schedule=name)
        for part in range(100):
            now = (part + 0.5) / 100
            assert learning_rate_factor(short, 4 * now) == learning_rate_factor(whole, published * now)
    # A last step of the published schedule has rate 0, and none longer than its share.
    one = Recipe(epochs=1, schedule="adju")
    assert [learning_rate_factor(one, e) > 0 for e in (0, 0.5, 0.97, 0.99)] == [True, True, True, False]


def test_cosine_goes_from_one_to_zero():
    recipe = Recipe(epochs=8, schedule="cosine")
    got = [learning_rate_factor(recipe, epochs) for epochs in (0, 2, 4, 6, 8)]
    assert got == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0])


@pytest.mark.parametrize("schedule", ["cosine", "constant", "step", "fast", "adju"])
def test_warm_up_is_linear_and_multiplies_the_schedule(schedule):
    recipe = Recipe(epochs=10, schedule=schedule, milestones=(1,))
    warm = dataclasses.replace(recipe, warm_up=4.0)
    for epochs, factor in ((0, 0.01), (1, 0.2575), (2, 0.505), (3.5, 0.87625), (4, 1), (9, 1)):
        want = factor * learning_rate_factor(recipe, epochs)
        assert learning_rate_factor(warm, epochs) == pytest.approx(want, rel=1e-12)


POSITIVE, COUNT, NUMBER = "should be greater than 0", "should be greater than or equal to 0", "should be a valid number"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"epochs": 0}, f"epochs: {POSITIVE}; got 0"),
        ({"batch_size": 0}, f"batch_size: {POSITIVE}; got 0"),
        ({"accumulate": 0}, f"accumulate: {POSITIVE}; got 0"),
        ({"accumulate": 33}, "accumulate is 33, more than the 32 images of a batch"),
        ({"learning_rate": 0.0}, f"learning_rate: {POSITIVE}; got 0.0"),
        ({"classifier_factor": -1.0}, f"classifier_factor: {POSITIVE}; got -1.0"),
        ({"backbone_factor": 0.0}, f"backbone_factor: {POSITIVE}; got 0.0"),
        ({"momentum": -0.1}, f"momentum: {COUNT}; got -0.1"),
        ({"weight_decay": -1.0}, f"weight_decay: {COUNT}; got -1.0"),
        ({"clip": -1.0}, f"clip: {COUNT}; got -1.0"),
        ({"warm_up": -1.0}, f"warm_up: {COUNT}; got -1.0"),
        ({"warm_up": 1.0}, "warm_up is 1.0, but one_cycle has a warm-up of its own; set it to 0"),
        ({"ema": 1.0}, "ema: should be less than 1; got 1.0"),
        ({"label_smoothing": -0.1}, f"label_smoothing: {COUNT}; got -0.1"),
        ({"schedule": "warm"}, "unknown schedule 'warm'; known: one_cycle, step, cosine, constant, fast, adju"),
        ({"precision": "half"}, "precision: unknown name 'half'; known: float32, bf16, fp16"),
        ({"crop": "centre"}, "crop: unknown name 'centre'; did you mean 'center'? known: center, random"),
        ({"learning_rate": math.nan}, "learning_rate: should be a finite number; got nan"),
        ({"learning_rate": math.inf}, "learning_rate: should be a finite number; got inf"),
        ({"learning_rate": "0.1"}, f"learning_rate: {NUMBER}; got '0.1'"),
        ({"learning_rate": True}, f"learning_rate: {NUMBER}; got True"),
        ({"clip": None}, f"clip: {NUMBER}; got None"),
        ({"epochs": 2.5}, "epochs: should be a valid integer; got 2.5"),
        ({"epochs": True}, "epochs: should be a valid integer; got True"),
        ({"freeze_batch_norm": "yes"}, "freeze_batch_norm: should be a valid boolean; got 'yes'"),
        ({"compile": 1}, "compile: should be a valid boolean; got 1"),
        ({"milestones": [1, -1]}, f"milestones[1]: {COUNT}; got -1"),
        ({"switch": [PoolSwitch("cov", epoch=12)]}, "switch is at epochs [12]; give rising ones below 12"),
        (
            {"switch": [PoolSwitch("cov", epoch=3), PoolSwitch("mpn_cov", epoch=3)]},
            "switch is at epochs [3, 3]; give rising ones below 12",
        ),
        (
            {"switch": [PoolSwitch("cov")], "milestones": (3,)},
            "switch is at the last decay, but the schedule 'one_cycle' with milestones [3] has none",
        ),
        (
            {"switch": [PoolSwitch("cov")], "schedule": "step", "milestones": (12, 20)},
            "'step' with milestones [12, 20] has none before epoch 12; give the epoch as a number",
        ),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(fields, problem):
    with pytest.raises(ValueError, match=rf"Recipe has 1 problem:\n  - .*{re.escape(problem)}"):
        Recipe(**fields)


def test_everything_that_does_not_fit_is_told_at_once():
    with pytest.raises(SpecError) as caught:
        Recipe(accumulate=64, warm_up=2, label_smoothing=0.1, loss="gce(5)", switch=[PoolSwitch("cov", epoch=12)])
    assert len(caught.value.problems) == 4
    with pytest.raises(SpecError) as caught:
        RunSpec(recipe={"flip": True, "crop": "random"}, systems={"coarse2fine": {"first": 12}})
    assert [problem.split()[0] for problem in caught.value.problems] == [
        *("systems.coarse2fine", "systems.coarse2fine", "recipe.flip", "recipe.crop", "recipe.crop")
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"pool": "mpn_cof"}, "unknown pool 'mpn_cof'; did you mean 'mpn_cov'? known: gap, "),
        ({"pool": "cov", "epoch": 0}, "epoch: should be greater than 0"),
        ({"pool": "cov", "epoch": True}, "epoch: should be a valid integer, or should be 'last_decay'; got True"),
        ({"pool": "cov", "epoch": "first_decay"}, "did you mean 'last_decay'?"),
        ({"pool": "cov", "options": {"rule": object}}, "options.rule: "),
        ({}, "pool: is missing"),
    ],
)
def test_a_switch_that_makes_no_sense_is_refused(fields, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        PoolSwitch(**fields)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"accelerator": "tpu"}, "accelerator: unknown name 'tpu'; did you mean 'cpu'? known: auto, cpu, cuda"),
        ({"devices": 0}, f"devices: {POSITIVE}; got 0"),
        ({"loaders": -1}, f"loaders: {COUNT}; got -1"),
        ({"checkpoint_seconds": -1.0}, f"checkpoint_seconds: {COUNT}; got -1.0"),
        ({"checkpoint_seconds": math.nan}, "checkpoint_seconds: should be a finite number; got nan"),
    ],
)
def test_an_engine_that_makes_no_sense_is_refused(fields, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        Engine(**fields)


def test_a_gpu_that_is_not_there_is_refused_and_auto_takes_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="accelerator 'cuda' was asked for, but torch sees no GPU; use auto or cpu"):
        Engine("cuda")
    assert Engine().kind == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Engine().kind == Engine("cuda").kind == "cuda"
    assert Engine("cpu").kind == "cpu"


@pytest.mark.parametrize("crop", [{"flip": True}, {"crop": "random"}])
def test_images_that_change_need_the_full_stage(crop):
    with pytest.raises(ValueError, match=r"recipe.\w+ (True|'random') needs stage 'full', got 'head': cached features"):
        RunSpec(recipe=Recipe(**crop))


# --- what a step does ---


def make_state(network, recipe):
    state = TrainingState(network, network, make_optimizer(network, recipe))
    state.average = make_average(network, recipe.ema)
    state.model, state.optimizer = cached_fabric(ENGINE, recipe.precision).setup(network, state.optimizer)
    return state


def small_head(pool="mpn_cov"):
    torch.manual_seed(0)
    return Head(create_pool(pool, 6, reduction=4), 3)


def train_head(network=None, images=20, **fields):
    """Train a head on random features for an epoch, in batches of 8, and return the state and its row."""
    recipe = Recipe(**PLAIN | {"epochs": 1, "batch_size": 8, "learning_rate": 0.1} | fields)
    state = make_state(network or small_head(), recipe)
    features = torch.randn(images, 6, 5, 5, generator=torch.Generator().manual_seed(1))
    source = Source(lambda batch: features[batch], torch.arange(images) % 3, torch.device("cpu"))
    fabric = cached_fabric(ENGINE, recipe.precision)
    return state, train_epoch(state, fabric, source, torch.arange(images), recipe, seed=0)


def weights(state):
    return {name: value.clone() for name, value in state.network.state_dict().items()}


@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_parts_of_a_batch_do_what_the_whole_does(clip):
    (whole, row), (parts, other) = (
        train_head(accumulate=accumulate, clip=clip, freeze_batch_norm=True) for accumulate in (1, 3)
    )
    for name in ("train_loss", "train_accuracy", "gradient_norm"):
        assert other[name] == pytest.approx(row[name], rel=1e-5)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, atol=1e-6, rtol=1e-5, msg=name)
    assert row["gradient_norm"] > 0.3


@pytest.mark.parametrize(("images", "count", "sizes"), [(8, 4, [2] * 4), (7, 4, [2, 2, 2, 1]), (2, 4, [1, 1])])
def test_parts_of_a_batch_are_nearly_equal(images, count, sizes):
    whole = Batch(torch.arange(images), torch.arange(images) % 2 == 0, torch.rand(images, 2))
    parts = whole.parts(count)
    assert [len(part) for part in parts] == sizes
    for name in ("indices", "flips", "places"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def test_a_last_batch_of_one_image_is_left_out_unless_it_is_the_only_one():
    recipe = Recipe(batch_size=4)
    assert [len(batch) for batch in plan_epoch(torch.arange(9), recipe, 0, 0)] == [4, 4]
    assert [len(batch) for batch in plan_epoch(torch.arange(10), recipe, 0, 0)] == [4, 4, 2]
    assert [len(batch) for batch in plan_epoch(torch.arange(1), recipe, 0, 0)] == [1]


@pytest.mark.parametrize("data", [TypefacesSpec(), ImagesSpec("folder", "x", 64, resize="both")])
def test_random_crops_need_room(data):
    with pytest.raises(ValueError, match=r"crop 'random' needs images with room .*resize='both'|families="):
        RunSpec(stage="full", data=data, recipe=Recipe(crop="random"))
    roomy = ImagesSpec("folder", "x", 64, resize="both", scale=72)
    RunSpec(stage="full", data=roomy, recipe=Recipe(crop="random"))
    RunSpec(stage="full", data=ImagesSpec("folder", "x", 64), recipe=Recipe(crop="random"))


def test_places_of_random_crops_depend_on_seed_and_epoch_alone():
    recipe = Recipe(batch_size=4, crop="random")

    def places(seed, epoch):
        return torch.cat([batch.places for batch in plan_epoch(torch.arange(10), recipe, seed, epoch)])

    assert torch.equal(places(0, 0), places(0, 0))
    assert places(0, 0).shape == (10, 2)
    assert not torch.equal(places(0, 0), places(0, 1))
    assert not torch.equal(places(0, 0), places(1, 0))
    center = plan_epoch(torch.arange(10), Recipe(batch_size=4), 0, 0)
    assert center[0].places is None
    assert torch.equal(center[0].indices, plan_epoch(torch.arange(10), recipe, 0, 0)[0].indices)


class _Logits(nn.Module):
    """Its logits do not depend on its input."""

    def __init__(self, logits):
        super().__init__()
        self.pool, self.classifier = nn.Identity(), nn.Linear(1, len(logits), bias=False)
        self.classifier.weight.data = torch.tensor(logits)[:, None]

    def forward(self, x):
        return self.classifier(x)


def test_label_smoothing_spreads_a_share_of_the_target():
    recipe = Recipe(**PLAIN | {"epochs": 1, "batch_size": 4, "learning_rate": 1.0, "label_smoothing": 0.3})
    state = make_state(_Logits([1.0, 2.0, 4.0]), recipe)
    source = Source(lambda batch: torch.ones(len(batch), 1), torch.full((4,), 2), torch.device("cpu"))
    row = train_epoch(state, cached_fabric(ENGINE, "float32"), source, torch.arange(4), recipe, 0)
    probabilities = torch.tensor([1.0, 2.0, 4.0]).softmax(0)
    target = torch.tensor([0.1, 0.1, 0.8])  # 0.7 on the right class, and 0.3 over all three
    assert row["train_loss"] == pytest.approx(-(target * probabilities.log()).sum().item(), rel=1e-6)
    moved = state.network.classifier.weight.detach()[:, 0] - torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(moved, target - probabilities)


def test_the_moving_average_is_the_one_made_by_hand(monkeypatch):
    seen = []
    step = torch.optim.SGD.step

    def recorded(self, *args, **kwargs):
        step(self, *args, **kwargs)
        seen.append([p.detach().clone() for group in self.param_groups for p in group["params"]])

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    state, _ = train_head(ema=0.7)
    assert len(seen) == 3
    # It starts with the weights after the first step.
    want = seen[0]
    for values in seen[1:]:
        want = [0.7 * old + 0.3 * new for old, new in zip(want, values, strict=True)]
    got = dict(state.evaluated.named_parameters())
    names = {id(p): name for name, p in state.network.named_parameters()}
    order = [names[id(p)] for group in state.optimizer.param_groups for p in group["params"]]
    for name, value in zip(order, want, strict=True):
        torch.testing.assert_close(got[name], value, msg=name)
        assert not torch.equal(got[name], state.network.get_parameter(name))
    assert state.evaluated is not state.network


def test_the_moving_average_keeps_whole_numbers():
    state, _ = train_head(Head(create_pool("cbp", 6, reduction=4), 3), ema=0.9, images=40)
    for name, buffer in state.network.named_buffers():
        if not buffer.is_floating_point():
            assert torch.equal(state.evaluated.get_buffer(name), buffer), name
    running = "pool.reduction.1.running_mean"
    assert not torch.equal(state.evaluated.get_buffer(running), state.network.get_buffer(running))


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_weights():
    before = small_head().state_dict()
    for frozen in (True, False):
        after = weights(train_head(freeze_batch_norm=frozen)[0])
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(after[f"pool.reduction.1.{name}"], before[f"pool.reduction.1.{name}"]) == frozen
        assert not torch.equal(after["pool.reduction.1.weight"], before["pool.reduction.1.weight"])


def test_backbone_and_classifier_have_their_own_rates(small):
    spec = small(backbone_factor=0.25, classifier_factor=5.0, learning_rate=0.04)
    from gcplib.models import Model, create_backbone

    backbone = create_backbone(spec.backbone, False, 16)
    network = Model(backbone, Head(create_pool("mpn_cov", backbone.out_channels, reduction=8), 4))
    groups = {group["name"]: group for group in make_optimizer(network, spec.recipe).param_groups}
    assert {name: group["base"] for name, group in groups.items()} == pytest.approx(
        {"backbone": 0.01, "pool": 0.04, "classifier": 0.2}
    )
    ids = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(ids) == sorted(map(id, network.parameters()))
    assert {id(p) for p in groups["backbone"]["params"]} == {id(p) for p in backbone.parameters()}


class _Watching(nn.Module):
    """A pool that keeps the types of what it is given and of what it computes with."""

    def __init__(self, pool):
        super().__init__()
        self.inner, self.seen = pool, []
        self.out_features, compute = pool.out_features, pool.pool
        pool.pool = lambda x: self.seen.append((x.dtype, torch.is_autocast_enabled("cpu"))) or compute(x)

    def forward(self, x):
        self.seen.append(x.dtype)
        return self.inner(x)


def test_bf16_trains_and_pools_in_float32():
    pool = _Watching(create_pool("mpn_cov", 6, reduction=4))
    network = Head(pool, 3)
    network.backbone = nn.Conv2d(6, 6, 1)
    network.register_forward_pre_hook(lambda module, inputs: module.backbone(inputs[0]))
    state, row = train_head(network, precision="bf16")
    assert set(pool.seen) == {torch.bfloat16, (torch.float32, False)}
    assert math.isfinite(row["train_loss"])
    assert {p.dtype for p in state.network.parameters()} == {torch.float32}
    exact = train_head(precision="float32")[1]["train_loss"]
    assert train_head(precision="bf16")[1]["train_loss"] == pytest.approx(exact, rel=0.02)


def test_fp16_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match=r"recipe\.precision 'fp16' needs a GPU; on a CPU give bf16 or float32"):
        cached_fabric(ENGINE, "fp16")


def test_every_precision_of_a_recipe_is_known_to_the_engine():
    for precision in PRECISIONS:
        assert Recipe(precision=precision).precision == precision


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler")
def test_a_compiled_run_is_that_of_the_plain_network(tiny_spec, own_runs):
    recipe = Recipe(epochs=2, batch_size=8, freeze_batch_norm=True)
    plain = RunSpec(pool="isqrt_cov", options={"steps": 1}, reduction=8, data=tiny_spec, recipe=recipe)
    runs = [
        ensure(dataclasses.replace(plain, recipe=dataclasses.replace(recipe, compile=c)), ENGINE) for c in (False, True)
    ]
    assert runs[0].directory != runs[1].directory
    assert runs[1].metrics.train_loss.tolist() == pytest.approx(runs[0].metrics.train_loss.tolist(), rel=1e-4)
    weights, compiled = (run.load_model().state_dict() for run in runs)
    for name, value in weights.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-4, rtol=1e-3, msg=name)
