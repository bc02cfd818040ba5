"""The mapping of systems in run files: each by name, together, and refused where they do not fit."""

import re

import pytest
import torch

import gcplib
from gcplib.lab.training.systems import SYSTEMS, build_head, build_model, system_problems
from gcplib.nn import AveragePool, D4Views
from gcplib.nn.gate import Gate


@pytest.fixture
def backbone():
    return gcplib.create_backbone("test_resnet", pretrained=False, stride=16)


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


OPTIONS = {
    "gate": {"stages": ["layer2"], "width": 8},
    "views": {"mode": "all"},
    "diversify": {},
    "coarse2fine": {"maps": 2, "first": 0},
}


def make(backbone, pool, systems, **options):
    return build_model(backbone, gcplib.create_pool(pool, backbone.out_channels, reduction=8, **options), 5, systems)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_by_name(backbone, images, name):
    torch.manual_seed(0)
    model = make(backbone, "gap", {name: OPTIONS[name]})
    outputs = model(images)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [out.shape for out in outputs] == [(2, 5)] * len(outputs)
    sum(out.sum() for out in outputs).backward()
    assert model.eval()(images).shape == (2, 5)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert next(model.backbone.parameters()).grad.abs().sum() > 0


def test_diversify_takes_its_options():
    torch.manual_seed(0)
    head = build_head(AveragePool(6), 3, {"diversify": {"p_peak": 1.0, "p_patch": 1.0, "factor": 0.0}})
    x = torch.randn(2, 6, 5, 5)
    plain = head.classifier(x.mean((2, 3)))
    torch.testing.assert_close(head.eval()(x), plain)
    assert (head.train()(x) - plain).abs().max() > 0.01


def test_a_gate_starts_beside_the_same_pool_and_classifier():
    heads = []
    for systems in ({}, {"gate": {"stages": ["features"], "width": 8}}):
        torch.manual_seed(3)
        heads.append(build_head(gcplib.create_pool("mpn_cov", 8, reduction=4), 5, systems))
    assert torch.equal(heads[0].classifier.weight, heads[1].classifier.weight)
    assert any(isinstance(m, Gate) for m in heads[1].modules())


def test_a_gate_of_views_sees_each_view():
    torch.manual_seed(0)
    head = build_head(gcplib.create_pool("cov", 8), 5, {"gate": {"stages": ["features"], "width": 8}, "views": {}})
    features = torch.randn(2, 8, 8, 4, 4)
    gated = torch.stack([head.eval().gate(view) for view in features.unbind(1)], 1)
    torch.testing.assert_close(head(features), head.classifier(head.pool(gated)))


def test_systems_combine(backbone, images):
    stages = {"layer2": {}, "features": {"stride": 2}}
    systems = {"gate": {"stages": stages, "width": 8}, "views": {"mode": "random"}, "diversify": {}}
    model = make(backbone, "gap", systems)
    assert isinstance(model, D4Views)
    assert [m.stride for m in model.modules() if isinstance(m, Gate)] == [1, 2]
    assert model(images).shape == (2, 5)
    looks = {"coarse2fine": {"first": 0}, "gate": {"stages": ["layer3"], "width": 8}}
    model = make(gcplib.create_backbone("test_resnet", pretrained=False), "mpn_cov", looks, amplify="released")
    coarse, fine = model(images)
    assert coarse.shape == fine.shape == (2, 5)


@pytest.mark.parametrize(
    ("systems", "stage", "message"),
    [
        ({"gates": {}}, "full", "unknown system 'gates'; did you mean 'gate'. known: gate, views, diversify, coarse2f"),
        ({"gate": 3}, "full", "systems.gate must be a mapping of options, got 3"),
        ({"gate": {}}, "full", "systems.gate: stages are a list of names"),
        ({"gate": {"stages": "layer3"}}, "full", "a list of names such as .'layer3'., got 'layer3'"),
        ({"gate": {"stages": {"layer3": 2}}}, "full", "each stage takes a mapping of options"),
        ({"gate": {"stages": ["layer3"]}}, "head", "the stage 'head' has a frozen backbone"),
        ({"gate": {"stages": ["layer3"], "kind": "chanel"}}, "full", "'chanel'; did you mean 'channel'"),
        (
            {"gate": {"stages": ["layer3"], "widht": 8}},
            "full",
            "option 'widht'; did you mean 'width'. known: width, st",
        ),
        ({"views": {"mode": "some"}}, "full", "known: all, random, upright"),
        ({"views": {"group": "D4"}}, "full", "systems.views: unknown option 'group'; known: mode"),
        ({"diversify": {"p_peek": 0.1}}, "full", "systems.diversify: unknown option 'p_peek'; did you mean 'p_peak'"),
        ({"diversify": {"p_peak": 2.0}}, "full", "systems.diversify: p_peak must be a number from 0 to 1"),
        ({"coarse2fine": {}}, "head", "needs the stage 'full'"),
        ({"coarse2fine": {}, "views": {}}, "full", "does not go together with views"),
        (
            {"gates": {}, "views": {"group": 1}},
            "full",
            "unknown system 'gates'.*\n.*systems.views: unknown option 'group'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(systems, stage, message):
    assert re.search(message, "\n".join(system_problems(systems, stage)))


@pytest.mark.parametrize(
    ("pool", "systems", "message"),
    [
        ("gap", {"gate": {"stages": ["layer9"]}}, "no stage 'layer9'; its stages: .*layer1, layer2"),
        ("gap", {"gate": {"stages": ["layer2"], "color": 1}}, "systems.gate: gate 'channel'.*color"),
        ("mpn_cov", {"diversify": {}}, "needs the class maps of average pooling .'gap'., got CovariancePool"),
        ("gap", {"diversify": {}, "views": {"mode": "all"}}, "got all views"),
        ("gap", {"coarse2fine": {"maps": 0}}, "maps must be a positive integer"),
    ],
)
def test_what_does_not_fit_is_refused(backbone, pool, systems, message):
    with pytest.raises(ValueError, match=message):
        make(backbone, pool, systems)
