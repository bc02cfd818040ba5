"""Features of any network: against timm's own outputs, at every stage, with tokens and without."""

import pytest
import timm
import torch

from gcplib import create_backbone
from gcplib.features import create_features

NETWORKS = ["resnet18", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "convnext_atto"]
NETWORKS += ["swin_tiny_patch4_window7_224", "vit_small_patch14_reg4_dinov2"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.randn(2, 3, 224, 224)


@pytest.mark.filterwarnings("ignore:.*searchsorted:UserWarning", "ignore:Using a non-tuple sequence:UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_own_vector_is_that_of_the_whole_network_and_the_last_stage_has_the_final_norm(name, images):
    features = create_features(name, pretrained=False, pixels=224)
    network = features.network
    out = features(images)
    final = network.forward_features(images)
    torch.testing.assert_close(out["own"], network.forward_head(final, pre_logits=True))
    last = out[features.keys[-1]]
    if "tokens" in out:
        count = network.num_prefix_tokens
        assert out["tokens"].shape[1] == count
        torch.testing.assert_close(out["tokens"], final[:, :count])
        torch.testing.assert_close(last.flatten(2).transpose(1, 2), final[:, count:])
    elif final.shape[-1] == last.shape[1]:  # channels last, as Swin's
        torch.testing.assert_close(last, final.permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
@torch.no_grad()
def test_one_stage_is_what_the_pruned_backbone_gives(name, images):
    features = create_features(name, pretrained=False, strides=[-1, -2])
    out = features(images)
    assert len(features.keys) == 2
    for key, stride in zip(features.keys, (-2, -1), strict=True):
        backbone = create_backbone(name, pretrained=False, stride=stride).eval()
        backbone.network.load_state_dict(features.network.state_dict(), strict=False)
        torch.testing.assert_close(out[key], backbone(images))


def test_strides_are_found_by_themselves_and_wrong_ones_refused():
    assert create_backbone("vit_small_patch14_dinov2", pretrained=False, pixels=56).stride == 14
    assert create_backbone("vit_small_patch32_224", pretrained=False).stride == 32
    assert create_features("resnet18", pretrained=False).keys == ["stride16", "stride32"]
    with pytest.raises(ValueError, match=r"resnet18 has features of stride \[2, 4, 8, 16, 32\], not 12; .* -1 to -5"):
        create_features("resnet18", pretrained=False, strides=[12])


def test_images_of_another_size_than_the_weights():
    backbone = create_backbone("vit_tiny_patch16_224", pretrained=False, pixels=96).eval()
    assert backbone(torch.randn(1, 3, 96, 96)).shape == (1, 192, 6, 6)
    with pytest.raises(ValueError, match="takes images of a multiple of 16 pixels, got 100; give 96 or 112"):
        create_backbone("vit_tiny_patch16_224", pretrained=False, pixels=100)


@pytest.mark.parametrize("what", ["as published", "prefixed", "another classifier", "no classifier"])
def test_a_checkpoint_with_another_classifier_or_none_loads(tmp_path, what):
    state = timm.create_model("resnet18", num_classes=1000).state_dict()
    values = {
        "as published": state,
        "prefixed": {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        "another classifier": {key: value[:7] if key.startswith("fc.") else value for key, value in state.items()},
        "no classifier": {key: value for key, value in state.items() if not key.startswith("fc.")},
    }[what]
    path = tmp_path / "weights.pth"
    torch.save(values, path)
    for made in (create_backbone("resnet18", str(path)), create_features("resnet18", str(path))):
        assert torch.equal(made.network.layer3[0].conv1.weight, state["layer3.0.conv1.weight"])


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_packaged_weights_see_what_is_on_a_picture(name):
    # Weights mapped to wrong places would give nearly equal vectors of unlike images.
    features = create_features(name)
    flat = torch.zeros(64, 64, 3, dtype=torch.uint8)
    stripes = flat.clone()
    stripes[::8] = 255
    with torch.no_grad():
        own = features(features.prepare(torch.stack([flat, stripes])))["own"]
    assert torch.nn.functional.cosine_similarity(own[0], own[1], dim=0) < 0.9
