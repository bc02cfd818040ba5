import pytest
import torch
from torch import nn

from gcplib import create_pool, list_pools
from gcplib.linalg import covariance_map, triu_vector
from gcplib.nn.base import Reduction


def weights(reduction):
    """How many weights its convolutions have."""
    return sum(layer.weight.numel() for layer in list(reduction)[::3])


def test_one_width_draws_and_names_what_it_always_did():
    torch.manual_seed(3)
    convolution = nn.Conv2d(12, 6, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    after = torch.rand(1)
    torch.manual_seed(3)
    reduction = Reduction(12, 6)
    assert torch.equal(reduction[0].weight, convolution.weight)
    assert torch.equal(torch.rand(1), after)
    wanted = ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert list(reduction.state_dict()) == wanted
    pool = create_pool("mpn_cov", 12, reduction=6)
    assert "reduction.0.weight" in pool.state_dict()
    assert [type(layer) for layer in reduction] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


@pytest.mark.parametrize("widths", [(10, 6), [10, 6]])
def test_several_widths_are_convolution_norm_and_relu_each(widths):
    reduction, x = Reduction(12, widths).eval(), torch.randn(2, 12, 3, 3)
    assert reduction.widths == (10, 6)
    assert [type(layer) for layer in reduction] == 2 * [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    want = x
    for place in (0, 3):
        want = torch.relu(torch.einsum("oi,bihw->bohw", reduction[place].weight[..., 0, 0], want) / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(reduction(x), want)


@pytest.mark.parametrize("widths", [6, (9, 6)])
def test_groups_do_not_see_each_other(widths):
    reduction, x = Reduction(12, widths, groups=3).eval(), torch.randn(1, 12, 2, 2)
    changed = x.clone()
    changed[:, 4:8] += 1
    moved = (reduction(changed) != reduction(x)).flatten(2).any(-1)[0]
    assert not moved[:2].any()
    assert moved[2:4].any()
    assert not moved[4:].any()
    whole = weights(Reduction(12, widths))
    assert weights(reduction) == whole / 3


def test_grouped_filters_are_as_long_as_others():
    reductions = (Reduction(256, 128, groups=groups) for groups in (1, 4))
    plain, grouped = (reduction[0].weight.flatten(1).norm(dim=1).mean().item() for reduction in reductions)
    assert grouped == pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize("name", list_pools())
def test_every_pool_takes_widths_and_groups(name):
    pool = create_pool(name, 12, reduction=(8, 6), reduction_groups=2)
    assert (pool.channels, pool.reduction.widths, pool.reduction[3].groups) == (6, (8, 6), 2)
    out = pool(torch.randn(3, 12, 4, 4))
    assert out.shape == (3, pool.out_features)
    assert pool.out_features == create_pool(name, 12, reduction=6).out_features


def test_no_reduction_leaves_the_features_as_they_are():
    assert isinstance(create_pool("mpn_cov", 12).reduction, nn.Identity)


@pytest.mark.parametrize(
    ("reduction", "options", "message"),
    [
        ((), {}, "reduction must be a positive integer or several, got none"),
        ((8, 0), {}, "reduction must be a positive integer, got 0"),
        ((8, True), {}, "reduction must be a positive integer, got True"),
        ("64", {}, "reduction must be a positive integer, got '64'"),
        (6.0, {}, "reduction must be a positive integer, got 6.0"),
        ((8, 6), {"reduction_groups": 4}, "reduction_groups must divide the channels, but 6 channels make no 4 equal"),
        (10, {"reduction_groups": 5}, "but 12 channels make no 5 equal parts"),
        (6, {"reduction_groups": 0}, "reduction_groups must be a positive integer, got 0"),
        (None, {"reduction_groups": 2}, "reduction_groups 2 needs a reduction"),
        (6, {"blocks": 4}, "blocks must divide the channels, but 6 channels make no 4 equal parts"),
        (6, {"blocks": 0}, "blocks must be a positive integer, got 0"),
        (6, {"blocks": 2, "keep": "top(4)"}, "top"),
    ],
)
def test_bad_reductions(reduction, options, message):
    with pytest.raises(ValueError, match=message):
        create_pool("mpn_cov", 12, reduction=reduction, **options)


@pytest.mark.parametrize("name", ["cov", "mpn_cov", "svd_pade", "mpa"])
def test_blocks_are_the_pool_of_each_part(name):
    x = torch.randn(2, 12, 4, 5)
    pool = create_pool(name, 12, blocks=3)
    parts = [create_pool(name, 4)(part) for part in x.split(4, dim=1)]
    assert pool.out_features == 3 * 10
    torch.testing.assert_close(pool(x), torch.cat(parts, dim=1))


def test_blocks_of_the_exact_root_have_its_gradient():
    x = torch.randn(1, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(create_pool("mpn_cov", 6, blocks=2), x)
    assert torch.autograd.gradcheck(create_pool("mpn_cov", 6, blocks=2, amplify="exp_relative"), x)
    matrix = create_pool("mpn_cov", 6, blocks=2).matrix(x.flatten(2))
    assert matrix.shape == (1, 2, 3, 3)
    torch.testing.assert_close(triu_vector(matrix[:, 1]), triu_vector(covariance_map(x[:, 3:].flatten(2))))


def test_top_n_drops_its_fraction_of_the_last_width_and_of_a_block():
    assert create_pool("svd_top_n", 112, reduction=(96, 64)).rule.name == "top_n(12)"
    assert create_pool("svd_top_n", 112, reduction=64, blocks=2).rule.name == "top_n(6)"


def test_blocks_and_groups_go_together():
    # Each block then depends on its own group of the backbone's channels alone.
    pool, x = create_pool("cov", 12, reduction=6, reduction_groups=2, blocks=2).eval(), torch.randn(1, 12, 4, 4)
    changed = x.clone()
    changed[:, :6] += torch.randn(4, 4)
    first, second = (pool(changed) - pool(x)).detach().abs().view(2, 6).amax(1)
    assert first > 1e-4
    assert second == 0


def test_blocks_compile_in_one_graph():
    torch._dynamo.reset()
    pool = create_pool("mpn_cov", 12, reduction=(8, 8), reduction_groups=2, blocks=2).eval()
    x = torch.randn(2, 12, 4, 4)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), pool(x))
