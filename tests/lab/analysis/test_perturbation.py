"""Maps at the pixels: captum's own and brute force as oracles, one pass for all sets and heads, and refusals."""

import numpy as np
import pytest
import torch
from captum.attr import Occlusion

from gcplib.lab.analysis import blurred, extremal_map, occlusion_map, pixel_gradient_map, set_scores
from gcplib.lab.analysis.perturbation import _with_area
from gcplib.models import Head, create_backbone
from gcplib.nn import create_pool

SETS, CLASSES, OTHERS = ["bottom(2)", "top(3)"], [0, 2], [1, 1]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    backbone = create_backbone(pretrained=False).eval()
    # Untrained statistics let the signal die out on its way through the network.
    backbone.train()
    with torch.no_grad():
        for _ in range(20):
            backbone(torch.randn(8, 3, 64, 64))
    backbone.eval()
    heads = [Head(create_pool("mpn_cov", 112, reduction=6), 4).eval() for _ in range(2)]
    return backbone, heads


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 255, size=(2, 64, 64, 3), dtype=np.uint8)


def scores_of(network, x, index, other=True):
    backbone, heads = network
    return set_scores(heads[0], backbone(x), SETS, CLASSES[index : index + 1], OTHERS[index : index + 1])


@torch.no_grad()
def test_occlusion_is_captums_at_the_pixels(network, images):
    backbone, heads = network
    (got,) = occlusion_map(backbone, heads[:1], images, SETS, CLASSES, OTHERS)
    assert got.shape == (2, 2, 4, 4)
    x = backbone.prepare(images)
    for i in range(2):
        method = Occlusion(lambda y, i=i: scores_of(network, y, i))
        cover = blurred(x)[i : i + 1].contiguous()
        want = method.attribute(x[i : i + 1], (3, 32, 32), (3, 16, 16), baselines=cover).view(2, 3, 64, 64)
        torch.testing.assert_close(got[i], want[:, 0, ::16, ::16], rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_a_corner_is_covered_by_one_window(network, images):
    backbone, heads = network
    x = backbone.prepare(images)
    covered = x.clone()
    covered[..., -32:, :32] = blurred(x)[..., -32:, :32]
    want = [scores_of(network, x[i : i + 1], i) - scores_of(network, covered[i : i + 1], i) for i in range(2)]
    got = occlusion_map(backbone, heads[:1], images, SETS, CLASSES, OTHERS)[0, :, :, -1, 0]
    torch.testing.assert_close(got, torch.cat(want), rtol=1e-3, atol=1e-5)


def test_heads_share_the_backbones_passes(network, images, monkeypatch):
    backbone, heads = network
    alone = [occlusion_map(backbone, [head], images, SETS, CLASSES) for head in heads]
    calls = []
    handle = backbone.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    together = occlusion_map(backbone, heads, images, SETS, CLASSES)
    handle.remove()
    assert together.shape == (2, 2, 2, 4, 4)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-5)
    # 3 x 3 windows and the whole image, whatever the number of sets and heads.
    assert sum(calls) == 2 * (9 + 1)


def test_pixel_gradients_are_the_slope_of_the_scores(network, images):
    backbone, heads = network
    double = backbone.double(), [head.double() for head in heads]
    try:
        saliency = pixel_gradient_map(backbone, heads[0], images, SETS, CLASSES, OTHERS)
        assert saliency.shape == (2, 2, 64, 64)
        assert (saliency >= 0).all()
        x, step = backbone.prepare(images), 1e-6
        for i, s in ((0, 0), (1, 1)):
            row, column = divmod(int(saliency[i, s].argmax()), 64)
            slopes = []
            for color in range(3):
                move = torch.zeros_like(x[i : i + 1])
                move[0, color, row, column] = step
                with torch.no_grad():
                    ahead, behind = (scores_of(double, x[i : i + 1] + sign * move, i)[0, s] for sign in (1, -1))
                slopes.append(abs(ahead - behind) / (2 * step))
            torch.testing.assert_close(saliency[i, s].amax(), max(slopes), rtol=1e-3, atol=1e-6)
    finally:
        backbone.float()
        for head in heads:
            head.float()


def test_area_is_exact_and_its_gradient_right():
    logits = torch.randn(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    mask = _with_area(logits, 0.2)
    torch.testing.assert_close(mask.mean((1, 2, 3)), torch.full((2,), 0.2, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda a: _with_area(a, 0.2), logits)


def test_extremal_mask_raises_its_score_and_repeats(network, images):
    backbone, heads = network
    settings = {"area": 0.25, "steps": 15}
    masks = extremal_map(backbone, heads[0], images, SETS, CLASSES, OTHERS, **settings)
    assert masks.shape == (2, 2, 4, 4)
    torch.testing.assert_close(masks.mean((2, 3)), torch.full((2, 2), 0.25))
    assert masks.amin() >= 0
    again = extremal_map(backbone, heads[0], images, SETS, CLASSES, OTHERS, **settings)
    assert torch.equal(masks, again)
    x = backbone.prepare(images)
    with torch.no_grad():
        for i, s in ((0, 0), (0, 1), (1, 1)):
            found, flat = [], torch.full((1, 1, 4, 4), 0.25)
            for mask in (masks[i : i + 1, s : s + 1], flat):
                shown = torch.nn.functional.interpolate(mask, (64, 64), mode="bilinear")
                found.append(scores_of(network, torch.lerp(blurred(x)[i : i + 1], x[i : i + 1], shown), i)[0, s])
            assert found[0] > found[1]


def test_blur_keeps_constants_and_removes_detail():
    flat = torch.full((1, 3, 64, 64), 0.7)
    torch.testing.assert_close(blurred(flat), flat)
    noise = torch.randn(1, 3, 64, 64)
    assert blurred(noise).std() < 0.15
    torch.testing.assert_close(blurred(noise).flip(-1), blurred(noise.flip(-1)))


@pytest.mark.parametrize("function", [occlusion_map, pixel_gradient_map, extremal_map])
def test_bad_input(network, images, function):
    backbone, heads = network
    head, averaging = heads[0], Head(create_pool("gap", 112), 4).eval()
    if function is occlusion_map:
        head, averaging = [head], [averaging]
    with pytest.raises(ValueError, match="got 1 classes for 2 images"):
        function(backbone, head, images, SETS, [0])
    with pytest.raises(ValueError, match="got 2 classes against 1"):
        function(backbone, head, images, SETS, CLASSES, [0])
    with pytest.raises(ValueError, match="numbers from 0 to 3"):
        function(backbone, head, images, SETS, [0, 4])
    with pytest.raises(ValueError, match=r"top\(7\) needs 7"):
        function(backbone, head, images, ["top(7)"], CLASSES)
    with pytest.raises(ValueError, match="no set of eigenvalues"):
        function(backbone, head, images, [], CLASSES)
    with pytest.raises(ValueError, match="no covariance pool"):
        function(backbone, averaging, images, SETS, CLASSES)
    with pytest.raises(ValueError, match="backbone is in training mode"):
        function(backbone.train(), head, images, SETS, CLASSES)
    backbone.eval()


def test_settings_out_of_range(network, images):
    backbone, heads = network
    with pytest.raises(ValueError, match="window of 24 in steps of 16 does not fit"):
        occlusion_map(backbone, heads, images, SETS, CLASSES, window=24)
    with pytest.raises(ValueError, match="area between 0 and 1"):
        extremal_map(backbone, heads[0], images, SETS, CLASSES, area=1.0)
