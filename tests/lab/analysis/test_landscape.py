"""Closed forms of the band, the stem of many networks, and a model that is the same bits afterwards."""

import copy
import math

import pandas as pd
import pytest
import timm
import torch
from notebook_code import definitions
from torch import nn
from torch.nn.functional import cross_entropy

from gcplib.lab.analysis import (
    find_stem,
    loss_behind_stem,
    lost_rows,
    measure_while_training,
    models_from_one_start,
    rows_along,
)
from gcplib.linalg import NonFiniteError
from gcplib.models import create_backbone, create_model

notebook = definitions("08")

NOTHING = torch.zeros(0)
A = torch.diag(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64))
ETAS = [0.1, 0.5, 2.0]


class Passing(nn.Module):
    """A network whose stem gives the input and whose output is X, for losses that are functions of X."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Identity()

    def forward(self, inputs):
        return self.stem(inputs)


def quadratic(x, _):
    return x @ A @ x / 2


def loss_landscape(model, inputs, labels, steps, loss=cross_entropy):
    """Rows by the solution of the notebook's task."""
    X, behind = loss_behind_stem(model, inputs, labels, loss)
    return rows_along(notebook.along_gradient, behind, X, steps)


def measures(rows):
    return notebook.measures(pd.DataFrame(rows))


class Small(nn.Module):
    """Convolutions, batch norm and dropout behind a stem."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.rest = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.classifier = nn.Linear(4, 3)

    def forward(self, x):
        return self.classifier(self.rest(self.stem(x)).mean((2, 3)))


def batch(count=8):
    return torch.randn(count, 3, 10, 10), torch.arange(count) % 3


def test_quadratic_in_closed_form():
    x = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    rows = loss_landscape(Passing(), x, NOTHING, {"published": ETAS, "relative": ETAS}, quadratic)
    g = A @ x
    for row, eta in zip(rows[:3], ETAS, strict=True):
        there = x + eta * g
        assert (row["scale"], row["eta"], row["finite"]) == ("published", eta, True)
        assert row["distance"] == pytest.approx(eta * g.norm().item())
        assert row["loss"] == pytest.approx((there @ A @ there / 2).item())
        assert row["change"] == pytest.approx((eta * A @ g).norm().item())
        assert row["loss_here"] == pytest.approx(18.0)
        assert (row["gradient_norm"], row["size"]) == pytest.approx((g.norm().item(), x.norm().item()))
    for row, eta in zip(rows[3:], ETAS, strict=True):
        there = x + eta * x.norm() * g / g.norm()
        assert row["distance"] == pytest.approx(eta * x.norm().item())
        assert row["loss"] == pytest.approx((there @ A @ there / 2).item())


def test_summary_of_a_quadratic_is_the_curvature_along_the_gradient():
    x = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    rows = loss_landscape(Passing(), x, NOTHING, {"published": ETAS, "relative": ETAS}, quadratic)
    g = A @ x
    along = ((A @ g).norm() / g.norm()).item()
    for part in (rows[:3], rows[3:]):
        found = measures(part)
        far = part[-1]["distance"]
        assert found["beta"] == pytest.approx(along)
        assert found["relative_change"] == pytest.approx(along * far / g.norm().item())
        slope = g.norm().item() + far * (g @ A @ g / (g @ g)).item() / 2
        assert found["lipschitz"] == pytest.approx(slope)
        assert found["loss_band"] == pytest.approx(part[2]["loss"] - part[0]["loss"])
        assert found["change_band"] == pytest.approx(along * (far - part[0]["distance"]))


def test_relative_steps_do_not_depend_on_the_size_of_the_gradient():
    x = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    plain, steep = (
        loss_landscape(Passing(), x, NOTHING, {"relative": ETAS}, lambda x, _, c=c: c * quadratic(x, _)) for c in (1, 7)
    )
    assert [row["distance"] for row in plain] == pytest.approx([row["distance"] for row in steep])
    assert [7 * row["loss"] for row in plain] == pytest.approx([row["loss"] for row in steep])


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tf_efficientnet_lite0", "bn1"),
        ("mobilenetv3_small_050", "bn1"),
        ("resnet18", "maxpool"),
        ("densenet121", "features.pool0"),
        ("regnetx_002", "stem"),
        ("convnext_atto", "stem"),
    ],
)
def test_stem_of_timm_networks(name, module):
    network = timm.create_model(name)
    assert find_stem(network) is network.get_submodule(module)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_stem_of_a_whole_model_gives_the_output_that_it_replaces(name):
    model = create_model(create_backbone(name, pretrained=False), "mpn_cov", 3, reduction=4).eval()
    x = torch.randn(2, 3, 64, 64)
    X, behind = loss_behind_stem(model, x, NOTHING, lambda output, _: output)
    assert torch.equal(behind(X), model(x))
    assert torch.equal(behind(X), behind(X))
    assert not torch.equal(behind(X), behind(X + 1))


def test_stem_that_is_not_found_lists_the_modules():
    network = timm.create_model("vgg11")
    with pytest.raises(
        ValueError, match=r"VGG has none of the usual stems \(maxpool, .*; .*: features, pre_logits, head"
    ):
        find_stem(network)
    with pytest.raises(ValueError, match=r"Identity has none of the usual .* are: none"):
        find_stem(nn.Identity())


def test_stem_that_is_called_twice():
    class Twice(Passing):
        def forward(self, inputs):
            return self.stem(inputs) + self.stem(inputs)

    with pytest.raises(ValueError, match="must be called once in a pass, Identity was 2 times"):
        loss_landscape(Twice(), torch.ones(3), NOTHING, {"published": [1.0]}, lambda x, _: x.sum())


def test_model_and_random_numbers_are_the_same_bits_afterwards():
    model = Small().train()
    inputs, labels = batch()
    model(inputs)  # moves the running averages away from their start
    before, numbers = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    rows = loss_landscape(model, inputs, labels, {"published": ETAS, "relative": ETAS})
    assert len(rows) == 6
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), numbers)
    assert model.training
    assert not model.stem._forward_hooks


def test_dropout_drops_the_same_places_at_every_step():
    model = Small().train()
    inputs, labels = batch()
    first, again = (loss_landscape(model, inputs, labels, {"published": [1e-9]})[0] for _ in range(2))
    assert first == again
    assert first["loss"] == pytest.approx(first["loss_here"], rel=1e-6)


def test_state_is_restored_on_an_error():
    class Failing(Small):
        def forward(self, x):
            out = super().forward(x)
            if self.stem[1].num_batches_tracked > 5 or self.calls == 2:
                raise RuntimeError("out of order")
            self.calls += 1
            return out

    model = Failing().train()
    model.calls = 0
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="out of order"):
        loss_landscape(model, *batch(), {"published": ETAS})
    assert model.calls == 2
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not model.stem._forward_hooks


def test_what_is_not_finite_is_an_outcome():
    def root(x, _):
        return x.sqrt().sum()

    here = loss_landscape(Passing(), torch.tensor([0.0, 1.0]), NOTHING, {"published": [1.0, 2.0]}, root)
    assert [(row["eta"], row["finite"], row["change"]) for row in here] == [
        (1.0, False, math.inf),
        (2.0, False, math.inf),
    ]
    assert here[0]["gradient_norm"] == math.inf
    assert here[0]["loss_here"] == 1.0
    assert measures(here)["beta"] == math.inf

    def falling(x, _):
        return (1 - x).log().sum()  # its gradient leads below 0 only for x < 1

    there = loss_landscape(
        Passing(), torch.tensor([0.5]), NOTHING, {"published": [0.1, 1.0]}, lambda x, _: -falling(x, _)
    )
    assert [row["finite"] for row in there] == [True, False]
    found = measures(there)
    assert (found["loss_band"], found["lipschitz"], found["relative_change"]) == (math.inf,) * 3
    assert found["gradient_norm"] == pytest.approx(2.0)


def test_refusal_of_a_pool_is_an_outcome():
    class Refusing(Passing):
        def forward(self, inputs):
            x = super().forward(inputs)
            if x.max() > 5:
                raise NonFiniteError("features are not finite")
            return x

    rows = loss_landscape(Refusing(), torch.ones(2), NOTHING, {"published": [1.0, 9.0]}, lambda x, _: x.sum())
    assert [row["finite"] for row in rows] == [True, False]
    assert math.isnan(rows[1]["loss"])
    rows = loss_landscape(Refusing(), 6 * torch.ones(2), NOTHING, {"published": [1.0]}, lambda x, _: x.sum())
    assert (rows[0]["gradient_norm"], rows[0]["finite"]) == (math.inf, False)


def test_gradient_of_zero():
    with pytest.raises(ValueError, match="the gradient at the stem's output is zero"):
        loss_landscape(Passing(), torch.zeros(2), NOTHING, {"published": [1.0]}, lambda x, _: (x**2).sum())


def test_models_start_alike():
    models = models_from_one_start(
        create_backbone(pretrained=False),
        {"average": {"pool": "gap"}, "root": {"pool": "mpn_cov", "exponent": 0.25}},
        classes=3,
        reduction=4,
    )
    first, second = models["average"], models["root"]
    for one, other in ((first.backbone, second.backbone), (first.head.pool.reduction, second.head.pool.reduction)):
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    assert first.backbone is not second.backbone
    assert (first.head.pool.out_features, second.head.pool.out_features) == (4, 10)


def train_and_look(model, batches, steps, every, clip=0.0):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def look(inputs, labels):
        return loss_landscape(model, inputs, labels, steps)

    return measure_while_training(model, batches, optimizer, look, lost_rows(steps), every, clip)


def test_looking_does_not_change_training():
    batches = [batch() for _ in range(5)]
    looked = Small()
    plain = copy.deepcopy(looked)
    torch.manual_seed(1)
    rows = train_and_look(looked, batches, {"relative": ETAS}, 2, clip=0.5)
    assert [row["step"] for row in rows] == [0] * 3 + [2] * 3 + [4] * 3
    assert all(row["finite"] for row in rows)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    torch.manual_seed(1)
    for inputs, labels in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(inputs), labels).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    for name, value in looked.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


@pytest.mark.parametrize(("bad", "every", "steps"), [(3, 2, [0, 2, 3]), (2, 2, [0, 2]), (0, 1, [0])])
def test_training_that_is_not_finite_ends_with_rows_that_say_so(bad, every, steps):
    batches = [batch() for _ in range(5)]
    batches[bad][0][0, 0, 0, 0] = math.nan
    model = Small()
    rows = train_and_look(model, batches, {"relative": [0.1]}, every)
    assert [row["step"] for row in rows] == steps
    assert [row["finite"] for row in rows] == [True] * (len(steps) - 1) + [False]
    assert measures(rows[-1:])["beta"] == math.inf
