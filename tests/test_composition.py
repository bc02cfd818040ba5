"""Parts that compose: views of a model, heads with gates and diversification, gates in a backbone."""

import pytest
import timm
import torch
from torch import nn

import gcplib
from gcplib.models import Head, Model, create_model
from gcplib.nn import (
    AveragePool,
    ChannelGate,
    Coarse2Fine,
    CovariancePool,
    D4Views,
    DiversificationBlock,
    create_gate,
    d4_views,
    insert_gates,
    list_pools,
)


@pytest.fixture
def backbone():
    return gcplib.create_backbone("test_resnet", pretrained=False, stride=16)


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pool", list_pools())
def test_every_pool_is_invariant_with_all_views(backbone, images, pool):
    torch.manual_seed(0)
    model = D4Views(create_model(backbone, pool, 5, reduction=8)).double().eval()
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
    plain = create_model(backbone, "mpn_cov", 5, reduction=8)
    model = D4Views(plain, mode="random")
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


def test_upright_views_are_the_images(backbone, images):
    plain = create_model(backbone, "mpn_cov", 5, reduction=8).eval()
    assert torch.equal(D4Views(plain, mode="upright")(images), plain(images))


def test_views_of_any_timm_model_and_their_interface(backbone, images):
    other = timm.create_model("test_resnet", num_classes=7).eval()
    assert torch.equal(D4Views(other, mode="random").eval()(images), other(images))
    model = D4Views(create_model(backbone, "gap", 5))
    features = model.forward_features(images)
    assert features.shape == (2, 8, model.num_features, 4, 4)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    model.reset_classifier(9)
    assert (model(images).shape, model.num_classes) == ((2, 9), 9)
    assert model.get_classifier() is model.head.classifier
    assert repr(model).startswith("D4Views(\n  mode=all\n")


@pytest.mark.parametrize("mode", ["upright", "random"])
def test_one_view_of_cached_features(mode):
    torch.manual_seed(0)
    features = torch.randn(3, 8, 6, 4, 4)
    head = Head(gcplib.create_pool("cov", 6), 4, views=mode)
    first = head.classifier(head.pool(features[:, 0]))
    assert torch.equal(head.eval()(features), first)
    found = head.train()(features)
    assert torch.equal(found, first) == (mode == "upright")


def test_class_maps_average_to_logits():
    torch.manual_seed(0)
    head = Head(AveragePool(6, reduction=4), 3, gate=ChannelGate(6, width=4)).eval()
    x = torch.randn(2, 6, 5, 5)
    maps = head.class_maps(x)
    assert maps.shape == (2, 3, 5, 5)
    torch.testing.assert_close(maps.mean((2, 3)), head(x))
    with pytest.raises(TypeError, match="only average pooling has class maps, got CovariancePool"):
        Head(CovariancePool(6), 3).class_maps(x)


def test_diversification_acts_in_training_and_on_logits_only():
    torch.manual_seed(0)
    head = Head(AveragePool(6), 3, diversify=DiversificationBlock(p_peak=1.0, p_patch=1.0, factor=0.0))
    x = torch.randn(2, 6, 5, 5)
    plain = head.classifier(x.mean((2, 3)))
    torch.testing.assert_close(head.eval()(x), plain)
    assert (head.train()(x) - plain).abs().max() > 0.01
    torch.testing.assert_close(head(x, pre_logits=True), x.mean((2, 3)))


@pytest.mark.parametrize("gate", ["position", ChannelGate, create_gate(8, "se")])
def test_a_gate_by_name_class_or_object(gate):
    torch.manual_seed(3)
    plain = Head(gcplib.create_pool("mpn_cov", 8, reduction=4), 5)
    torch.manual_seed(3)
    head = Head(gcplib.create_pool("mpn_cov", 8, reduction=4), 5, gate=gate)
    assert torch.equal(plain.classifier.weight, head.classifier.weight)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(head.eval()(x), plain.eval()(x))  # a gate starts as the identity


def test_gates_in_a_backbone(backbone, images):
    want = backbone.eval()(images)
    gates = insert_gates(backbone, {"layer2": {}, "layer3": {"stride": 2}}, width=8)
    assert [gate.stride for gate in gates] == [1, 2]
    assert torch.equal(backbone(images), want)
    assert all(gate in set(backbone.modules()) for gate in gates)
    with pytest.raises(TypeError, match="every stage gets a gate of its own"):
        insert_gates(backbone, ["layer1"], ChannelGate(16))


def test_parts_compose(images):
    backbone = gcplib.create_backbone("test_resnet", pretrained=False)
    insert_gates(backbone, ["layer2"], width=8)
    head = Head(AveragePool(backbone.out_channels), 5, gate="channel", diversify=DiversificationBlock())
    model = D4Views(Model(backbone, head), mode="random").train()
    model(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda b: Head(CovariancePool(8), 3, diversify=DiversificationBlock()), ValueError, "got CovariancePool"),
        (lambda b: Head(AveragePool(8), 3, diversify=DiversificationBlock(), views="all"), ValueError, "got all views"),
        (lambda b: Head(AveragePool(8), 0, diversify=DiversificationBlock()), ValueError, "got no classes"),
        (lambda b: Head(AveragePool(8), 3, views="some"), ValueError, "unknown mode of views 'some'.*known: all, ran"),
        (lambda b: Head(AveragePool(8), 3, gate="chanel"), ValueError, "'chanel'; did you mean 'channel'"),
        (
            lambda b: Head(AveragePool(8), 3, gate=ChannelGate(9)),
            ValueError,
            "made for 9 channels, the features have 8",
        ),
        (
            lambda b: D4Views(create_model(b, "gap", 3), mode="al"),
            ValueError,
            "unknown mode of views 'al'; did you mean",
        ),
        (lambda b: D4Views(b), TypeError, "forward_features and forward_head, got Backbone"),
        (
            lambda b: D4Views(Model(b, Head(AveragePool(b.out_channels), 3, diversify=DiversificationBlock()))),
            ValueError,
            "diversification needs the class maps of one image, got all views",
        ),
        (
            lambda b: Coarse2Fine(b, Head(AveragePool(b.out_channels), 3, views="random")),
            ValueError,
            "Coarse2Fine does not go together with views in its head",
        ),
        (lambda b: D4Views(Coarse2Fine(b, Head(AveragePool(b.out_channels), 3))), TypeError, "got Coarse2Fine"),
    ],
)
def test_what_does_not_go_together_is_refused_when_it_is_made(backbone, make, error, message):
    with pytest.raises(error, match=message):
        make(backbone)


def test_images_that_are_not_square_have_no_eight_views(backbone):
    with pytest.raises(ValueError, match="square"):
        D4Views(create_model(backbone, "gap", 5))(torch.randn(1, 3, 64, 48))


def test_turned_images_keep_the_layout_in_memory(images):
    """Or the eight views of an image take twice the time of eight images."""
    for mode in ("all", "random"):
        backbone = gcplib.create_backbone("test_resnet", pretrained=False)
        model = D4Views(create_model(backbone, "gap", 5), mode=mode).train()
        seen = []
        backbone.register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        for layout in (torch.channels_last, torch.contiguous_format):
            model(images.contiguous(memory_format=layout))
            assert seen.pop().is_contiguous(memory_format=layout)
