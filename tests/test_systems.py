"""Systems in networks: each by name, together, and refused where they do not fit."""

import pytest
import torch
from torch import nn

import gcplib
from gcplib.models import SYSTEMS, Head, build_head, check_systems
from gcplib.nn import AveragePool, CovariancePool, d4_views, list_pools
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


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_by_name(backbone, images, name):
    torch.manual_seed(0)
    model = gcplib.create_model(backbone, "gap", 5, reduction=8, systems={name: OPTIONS[name]})
    outputs = model(images)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [out.shape for out in outputs] == [(2, 5)] * len(outputs)
    sum(out.sum() for out in outputs).backward()
    assert model.eval()(images).shape == (2, 5)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert next(model.backbone.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize("pool", list_pools())
def test_every_pool_is_invariant_with_all_views(backbone, images, pool):
    torch.manual_seed(0)
    model = gcplib.create_model(backbone, pool, 5, reduction=8, systems={"views": {}}).double().eval()
    want = model(images.double())
    assert (want[0] - want[1]).abs().max() > 1e-6
    for view in d4_views(images.double()).unbind(1)[1:]:
        torch.testing.assert_close(model(view.contiguous()), want, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("pool", ["cov", "mpn_cov", "isqrt_cov", "svd_pade"])
def test_views_pool_the_mean_of_their_covariances(pool):
    torch.manual_seed(0)
    features = torch.randn(3, 8, 6, 4, 4, dtype=torch.double)
    layer = gcplib.create_pool(pool, 6).double().eval()
    x = features.flatten(3) - features.flatten(3).mean(-1, keepdim=True)
    mean = (x @ x.mT / 16).mean(1)
    # The same pool on features that have this covariance: columns of its root.
    values, vectors = torch.linalg.eigh(mean)
    root = (vectors * values.sqrt().unsqueeze(-2)) @ vectors.mT
    columns = torch.cat([root, -root], -1) * 6**0.5  # 12 columns, their mean is zero
    torch.testing.assert_close(layer(features), layer(columns.view(3, 6, 3, 4)), atol=1e-8, rtol=1e-6)


def test_random_views_are_drawn_in_training_only(backbone, images):
    torch.manual_seed(0)
    model = gcplib.create_model(backbone, "mpn_cov", 5, reduction=8, systems={"views": {"mode": "random"}})
    plain = gcplib.models.Model(model.backbone, Head(model.head.pool, 5))
    plain.head.classifier = model.head.classifier
    assert torch.equal(model.eval()(images), plain.eval()(images))
    freeze = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    model.train()
    for module in freeze:
        module.eval()
    outs = torch.stack([model(images) for _ in range(12)])
    views = torch.stack([plain(view.contiguous()) for view in d4_views(images).unbind(1)])
    for image in range(2):
        distance = torch.cdist(outs[:, image], views[:, image])
        assert distance.min(1).values.max() < 1e-4
        assert len(set(distance.argmin(1).tolist())) > 2


@pytest.mark.parametrize("mode", ["upright", "random"])
def test_one_view_of_cached_features(mode):
    torch.manual_seed(0)
    features = torch.randn(3, 8, 6, 4, 4)
    head = build_head(gcplib.create_pool("cov", 6), 4, {"views": {"mode": mode}})
    first = head.classifier(head.pool(features[:, 0]))
    assert torch.equal(head.eval()(features), first)
    found = head.train()(features)
    assert torch.equal(found, first) == (mode == "upright")


def test_class_maps_average_to_logits():
    torch.manual_seed(0)
    head = build_head(AveragePool(6, 4), 3, {"gate": {"stages": ["features"], "width": 4}}).eval()
    x = torch.randn(2, 6, 5, 5)
    maps = head.class_maps(x)
    assert maps.shape == (2, 3, 5, 5)
    torch.testing.assert_close(maps.mean((2, 3)), head(x))
    with pytest.raises(TypeError, match="only average pooling has class maps, got CovariancePool"):
        Head(CovariancePool(6), 3).class_maps(x)


def test_diversify_acts_in_training_only():
    torch.manual_seed(0)
    head = build_head(AveragePool(6), 3, {"diversify": {"p_peak": 1.0, "p_patch": 1.0, "factor": 0.0}})
    x = torch.randn(2, 6, 5, 5)
    plain = head.classifier(x.mean((2, 3)))
    torch.testing.assert_close(head.eval()(x), plain)
    assert (head.train()(x) - plain).abs().max() > 0.01


def test_a_gate_starts_beside_the_same_pool_and_classifier(backbone):
    heads = []
    for systems in ({}, {"gate": {"stages": ["features"], "width": 8}}):
        torch.manual_seed(3)
        heads.append(build_head(gcplib.create_pool("mpn_cov", 8, 4), 5, systems))
    assert torch.equal(heads[0].classifier.weight, heads[1].classifier.weight)
    assert any(isinstance(m, Gate) for m in heads[1].modules())


def test_a_gate_of_views_sees_each_view(backbone):
    torch.manual_seed(0)
    head = build_head(gcplib.create_pool("cov", 8), 5, {"gate": {"stages": ["features"], "width": 8}, "views": {}})
    features = torch.randn(2, 8, 8, 4, 4)
    gated = torch.stack([head.eval().gate(view) for view in features.unbind(1)], 1)
    torch.testing.assert_close(head(features), head.classifier(head.pool(gated)))


def test_systems_combine(backbone, images):
    stages = {"layer2": {}, "features": {"stride": 2}}
    systems = {"gate": {"stages": stages, "width": 8}, "views": {"mode": "random"}, "diversify": {}}
    model = gcplib.create_model(backbone, "gap", 5, systems=systems)
    assert [m.stride for m in model.modules() if isinstance(m, Gate)] == [1, 2]
    assert model(images).shape == (2, 5)
    looks = {"coarse2fine": {"first": 0}, "gate": {"stages": ["layer3"], "width": 8}}
    model = gcplib.create_model(
        gcplib.create_backbone("test_resnet", pretrained=False),
        "mpn_cov",
        5,
        reduction=8,
        systems=looks,
        amplify="released",
    )
    coarse, fine = model(images)
    assert coarse.shape == fine.shape == (2, 5)


@pytest.mark.parametrize(
    ("systems", "stage", "message"),
    [
        ({"gates": {}}, "full", "unknown system 'gates'; known: gate, views, diversify, coarse2fine"),
        ({"gate": 3}, "full", "systems.gate must be a mapping of options, got 3"),
        ({"gate": {}}, "full", "systems.gate needs its stages"),
        ({"gate": {"stages": "layer3"}}, "full", "a list of names such as .'features'., got 'layer3'"),
        ({"gate": {"stages": {"layer3": 2}}}, "full", "each stage takes a mapping of options"),
        ({"gate": {"stages": ["layer3"]}}, "head", "the stage 'head' has a frozen backbone"),
        ({"views": {"mode": "some"}}, "full", "all | random | upright"),
        ({"views": {"group": "D4"}}, "full", "systems.views is"),
        ({"coarse2fine": {}}, "head", "needs the stage 'full'"),
        ({"coarse2fine": {}, "views": {}}, "full", "does not go together with views"),
    ],
)
def test_what_does_not_go_together_is_refused(systems, stage, message):
    with pytest.raises(ValueError, match=message):
        check_systems(systems, stage)


@pytest.mark.parametrize(
    ("pool", "systems", "message"),
    [
        ("gap", {"gate": {"stages": ["layer9"]}}, "no stage 'layer9'; its stages: .*layer1, layer2"),
        ("gap", {"gate": {"stages": ["layer2"], "color": 1}}, "systems.gate: gate 'channel'.*color"),
        ("mpn_cov", {"diversify": {}}, "needs the class maps of average pooling .'gap'., got CovariancePool"),
        ("gap", {"diversify": {}, "views": {"mode": "all"}}, "got all views"),
        ("gap", {"diversify": {"p_peak": 2.0}}, "p_peak"),
        ("gap", {"diversify": {"color": 1}}, "systems.diversify: .*color"),
        ("gap", {"coarse2fine": {"maps": 0}}, "at least one map"),
    ],
)
def test_what_does_not_fit_is_refused(backbone, pool, systems, message):
    with pytest.raises(ValueError, match=message):
        gcplib.create_model(backbone, pool, 5, reduction=8, systems=systems)


def test_images_that_are_not_square_have_no_eight_views(backbone):
    model = gcplib.create_model(backbone, "gap", 5, systems={"views": {}})
    with pytest.raises(ValueError, match="square"):
        model(torch.randn(1, 3, 64, 48))


def test_turned_images_keep_the_layout_in_memory(images):
    """Or the eight views of an image take twice the time of eight images."""
    for mode in ("all", "random"):
        backbone = gcplib.create_backbone("test_resnet", pretrained=False)
        model = gcplib.create_model(backbone, "gap", 5, systems={"views": {"mode": mode}}).train()
        seen = []
        backbone.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        for layout in (torch.channels_last, torch.contiguous_format):
            model(images.contiguous(memory_format=layout))
            assert seen.pop().is_contiguous(memory_format=layout)
