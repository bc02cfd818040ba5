import pytest
import torch
from torch import nn

from gcplib.lab.training import Recipe, learning_rate_factor
from gcplib.lab.training.engine import Engine, cached_fabric
from gcplib.lab.training.loop import Diverged, evaluate, train_epoch
from gcplib.lab.training.sources import Source
from gcplib.lab.training.state import TrainingState, make_average, make_optimizer


def test_one_cycle_warms_up_and_ends_at_zero():
    recipe = Recipe(epochs=10)
    factors = [learning_rate_factor(recipe, t / 10) for t in range(101)]
    assert factors[0] == pytest.approx(0.04)
    assert max(factors) == factors[30] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0, abs=1e-12)
    assert factors[:31] == sorted(factors[:31])
    assert factors[30:] == sorted(factors[30:], reverse=True)


def test_step_schedule_decays_at_its_milestones():
    recipe = Recipe(schedule="step", milestones=(2, 4))
    assert [learning_rate_factor(recipe, e) for e in (0, 1.9, 2, 3.9, 4)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert learning_rate_factor(Recipe(schedule="constant"), 3) == 1


FABRIC = cached_fabric(Engine("cpu"), "float32")


class _Head(nn.Module):
    """A network with the parts that have learning rates of their own."""

    def __init__(self):
        super().__init__()
        self.pool, self.classifier = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.classifier(self.pool(x))


def _state(network, recipe, epoch=0):
    state = TrainingState(network, network, make_optimizer(network, recipe), epoch)
    state.average = make_average(network, recipe.ema)
    state.model, state.optimizer = FABRIC.setup(network, state.optimizer)
    return state


def _setting(recipe, inputs):
    state = _state(_Head(), recipe)
    labels = torch.arange(len(inputs)) % 3
    return state, Source(lambda batch: inputs[batch], labels, torch.device("cpu"))


def test_classifier_has_its_own_learning_rate_and_gradients_are_clipped():
    recipe = Recipe(epochs=1, schedule="constant", classifier_factor=7.0, momentum=0.0, weight_decay=0.0, clip=1e-3)
    state, source = _setting(recipe, torch.randn(32, 4))
    before = [p.detach().clone() for p in state.model.parameters()]
    train_epoch(state, FABRIC, source, torch.arange(32), recipe, seed=0)
    assert [group["lr"] for group in state.optimizer.param_groups] == pytest.approx([0.2, 1.4])
    moved = sum((p.detach() - b).square().sum() for p, b in zip(state.model.parameters(), before, strict=True)).sqrt()
    assert moved <= 1.4 * 1e-3 * 1.001  # one step of a gradient clipped to norm 0.001
    assert moved >= 0.2 * 1e-3 * 0.5


def test_non_finite_loss_stops_with_its_place():
    inputs = torch.randn(32, 4)
    inputs[3, 1] = float("inf")
    recipe = Recipe(epochs=1, batch_size=32)
    state, source = _setting(recipe, inputs)
    with pytest.raises(Diverged, match="epoch 0, step 0: loss nan"):
        train_epoch(state, FABRIC, source, torch.arange(32), recipe, seed=0)


def test_the_order_depends_on_seed_and_epoch():
    seen = []
    recipe = Recipe(epochs=2, batch_size=32)
    state, source = _setting(recipe, torch.randn(32, 4))
    recording = Source(lambda batch: seen.append(batch) or source.inputs(batch), source.labels, source.device)
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        state.epoch = epoch
        train_epoch(state, FABRIC, recording, torch.arange(32), recipe, seed)
    assert seen[0].equal(seen[1])
    assert not seen[0].equal(seen[2])
    assert not seen[0].equal(seen[3])


class _Recorder(nn.Module):
    """A linear classifier of tiny images that keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.pool, self.classifier = nn.Identity(), nn.Linear(12, 3)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.clone())
        return self.classifier(x.flatten(1))


def _epoch_of_images(recipe, seed=0, epoch=0, count=65):
    """Return the inputs of an epoch, and their places."""
    images = torch.arange(count * 12.0).view(count, 3, 2, 2)
    model, places = _Recorder(), []
    state, labels = _state(model, recipe, epoch), torch.arange(count) % 3
    source = Source(lambda batch: (places.append(batch), images[batch])[1], labels, torch.device("cpu"))
    train_epoch(state, FABRIC, source, torch.arange(count), recipe, seed)
    places = torch.cat(places)
    return torch.cat(model.seen), images[places], places


def test_half_of_the_images_are_flipped_by_seed_and_epoch():
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=1e-9, flip=True)
    got, upright, places = _epoch_of_images(recipe)
    flipped = (got == upright.flip(-1)).flatten(1).all(1)
    assert (flipped ^ (got == upright).flatten(1).all(1)).all()  # every image is one or the other, never a mixture
    assert 16 <= flipped.sum() <= 48
    again, _, same_places = _epoch_of_images(recipe)
    assert torch.equal(again, got)
    assert torch.equal(same_places, places)

    def of_each_image(seed, epoch):
        got, upright, places = _epoch_of_images(recipe, seed, epoch)
        return set(places[(got != upright).flatten(1).any(1)].tolist())

    assert len({frozenset(of_each_image(*which)) for which in ((0, 0), (0, 1), (1, 0))}) == 3


def test_flip_leaves_the_order_alone_and_no_flip_the_images():
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=1e-9)
    got, upright, places = _epoch_of_images(recipe)
    assert torch.equal(got, upright)
    flipping = Recipe(epochs=2, batch_size=16, learning_rate=1e-9, flip=True)
    assert torch.equal(_epoch_of_images(flipping)[2], places)


def test_evaluation_averages_the_logits_of_image_and_mirror_image(monkeypatch):
    monkeypatch.setattr("gcplib.lab.training.loop.EVAL_BATCH", 2)
    images, labels, model = torch.randn(5, 3, 2, 2), torch.zeros(5, dtype=torch.long), _Recorder()
    source = Source(lambda batch: images[batch], labels, torch.device("cpu"))
    plain = evaluate(model, FABRIC, source, torch.arange(5))
    both = evaluate(model, FABRIC, source, torch.arange(5), flip=True)
    with torch.no_grad():
        torch.testing.assert_close(plain, model(images))
        torch.testing.assert_close(both, (model(images) + model(images.flip(-1))) / 2)
    assert not torch.allclose(plain, both)
