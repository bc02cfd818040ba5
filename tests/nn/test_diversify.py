import re

import pytest
import torch

from gcplib.nn.diversify import DiversificationBlock


def distinct(*shape, dtype=torch.float32):
    """Maps without equal values, all above zero, so that what was multiplied can be read off."""
    return (torch.randperm(torch.Size(shape).numel()).view(shape) + 1).to(dtype)


def peaks(maps):
    return maps == maps.amax((2, 3), keepdim=True)


def in_patches(hit, spared, patch):
    """Whether every patch of a boolean map is all or nothing, but for what is spared, which is never hit."""
    rows, columns = range(0, hit.shape[2], patch), range(0, hit.shape[3], patch)
    for i in rows:
        for j in columns:
            part, out = (t[:, :, i : i + patch, j : j + patch].flatten(2) for t in (hit, spared))
            if not torch.equal((part | out).all(-1) & ~out.all(-1), part.any(-1)):
                return False
    return not (hit & spared).any()


def test_evaluation_is_the_identity_and_draws_nothing():
    maps, block = torch.randn(2, 3, 7, 7), DiversificationBlock().eval()
    before = torch.get_rng_state()
    assert block(maps) is maps
    assert torch.equal(torch.get_rng_state(), before)


SIZES = [(14, 14, 3), (7, 5, 3), (6, 6, 3), (2, 2, 3), (4, 6, 1), (1, 1, 3)]


@pytest.mark.parametrize(("height", "width", "patch"), SIZES)
def test_patches_are_whole_and_spare_the_peak(height, width, patch):
    maps = distinct(4, 5, height, width)
    out = DiversificationBlock(p_peak=0, p_patch=0.5, patch=patch, factor=0.1)(maps)
    hit = out != maps
    torch.testing.assert_close(out, torch.where(hit, 0.1 * maps, maps))
    assert in_patches(hit, peaks(maps), patch)
    assert hit.any() != (height * width == 1)


def test_all_patches_reach_the_border_that_the_side_does_not_divide():
    maps = distinct(2, 3, 7, 8)
    out = DiversificationBlock(p_peak=0, p_patch=1)(maps)
    torch.testing.assert_close(out, torch.where(peaks(maps), maps, 0.1 * maps))


def test_the_peak_alone_whatever_the_patches():
    maps = distinct(2, 3, 7, 7)
    for p_patch, others in ((0, 1.0), (1, 0.25)):
        out = DiversificationBlock(p_peak=1, p_patch=p_patch, factor=0.25)(maps)
        torch.testing.assert_close(out, torch.where(peaks(maps), 0.25 * maps, others * maps))
    assert torch.equal(DiversificationBlock(p_peak=0, p_patch=0)(maps), maps)


def test_of_equal_values_the_first_is_the_peak():
    out = DiversificationBlock(p_peak=1, p_patch=0, factor=0)(torch.ones(2, 3, 4, 4))
    assert out.flatten(2)[..., 0].eq(0).all()
    assert out.sum() == 2 * 3 * 15


def test_how_often_and_independently():
    maps = distinct(50, 40, 6, 6)
    hit = DiversificationBlock(p_peak=0.3, p_patch=0.7)(maps) != maps
    peak = peaks(maps)
    # Binomial standard errors: 0.010 for 2000 peaks, 0.005 for 8000 patches.
    assert hit[peak].double().mean() == pytest.approx(0.3, abs=0.05)
    assert hit[~peak].double().mean() == pytest.approx(0.7, abs=0.03)
    grid = (hit | peak)[:, :, ::3, ::3].flatten(2).double()
    for i in range(3):
        assert abs(torch.corrcoef(torch.stack([grid[..., i].flatten(), grid[..., i + 1].flatten()]))[0, 1]) < 0.15
    # Classes of one image, and images of one class, draw their own.
    assert len({tuple(row) for row in grid[0].tolist()}) > 1
    assert len({tuple(row) for row in grid[:, 0].tolist()}) > 1


def test_the_gradient_is_what_the_maps_were_multiplied_by():
    maps = distinct(2, 3, 7, 7, dtype=torch.float64).requires_grad_()
    out = DiversificationBlock()(maps)
    out.sum().backward()
    torch.testing.assert_close(maps.grad, (out / maps).detach())
    assert set(maps.grad.unique().tolist()) == {0.1, 1.0}


def test_the_same_seed_draws_the_same_and_the_input_stays():
    maps, block = torch.randn(2, 3, 7, 7), DiversificationBlock()
    before = maps.clone()
    torch.manual_seed(1)
    first = block(maps)
    torch.manual_seed(1)
    assert torch.equal(block(maps), first)
    assert not torch.equal(block(maps), first)
    assert torch.equal(maps, before)


def test_no_mean_over_what_is_not_finite_is_hidden():
    maps = torch.zeros(1, 2, 3, 3)
    maps[0, 0, 1, 1], maps[0, 1, 2, 2] = torch.nan, torch.inf
    out = DiversificationBlock(p_peak=1, p_patch=1)(maps)
    assert out[0, 0, 1, 1].isnan()
    assert out[0, 1, 2, 2].isinf()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_follows_the_maps(dtype):
    maps = torch.randn(2, 3, 7, 7, dtype=dtype)
    assert DiversificationBlock()(maps).dtype == dtype


def test_under_autocast_and_compiled_in_one_graph():
    maps = torch.randn(2, 3, 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(DiversificationBlock()(maps.bfloat16()).float()).all()
    block = DiversificationBlock(p_peak=1, p_patch=1)
    torch.testing.assert_close(torch.compile(block, fullgraph=True, backend="aot_eager")(maps), block(maps))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p_peak": 1.5}, "p_peak must be a number from 0 to 1, got 1.5"),
        ({"p_patch": -0.1}, "p_patch must be a number from 0 to 1, got -0.1"),
        ({"factor": float("nan")}, "factor must be a number from 0 to 1, got nan"),
        ({"factor": True}, "factor must be a number from 0 to 1, got True"),
        ({"p_peak": "0.5"}, "p_peak must be a number from 0 to 1, got '0.5'"),
        ({"patch": 0}, "patch must be a positive integer, got 0"),
        ({"patch": 3.0}, "patch must be a positive integer, got 3.0"),
        ({"patch": True}, "patch must be a positive integer, got True"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DiversificationBlock(**options)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 0, 4), (2, 2, 3, 4, 4)])
def test_bad_maps(shape):
    with pytest.raises(
        ValueError, match=re.escape(f"expected class maps (B, classes, h, w) with positions, got {shape}")
    ):
        DiversificationBlock()(torch.zeros(shape))


def test_counts_are_no_class_maps():
    with pytest.raises(TypeError, match="floating-point class maps, got"):
        DiversificationBlock()(torch.ones(2, 3, 4, 4, dtype=torch.int64))


def test_what_a_reader_sees():
    assert repr(DiversificationBlock()) == "DiversificationBlock(p_peak=0.5, p_patch=0.5, patch=3, factor=0.1)"
    assert not list(DiversificationBlock().parameters())
    assert not DiversificationBlock().state_dict()
