import io

import pytest
import torch
from torch import nn

from gcplib import create_pool, list_pools
from gcplib.linalg import covariance, covariance_map, triu_vector

MATRIX_POOLS = [name for name in list_pools() if name != "gap"]


@pytest.mark.parametrize("reduction", [None, 5])
@pytest.mark.parametrize("name", list_pools())
def test_shapes_gradients_and_out_features(name, reduction):
    pool = create_pool(name, 8, reduction)
    x = torch.randn(3, 8, 4, 5, requires_grad=True)
    out = pool(x)
    assert out.shape == (3, pool.out_features)
    out.square().sum().backward()
    for parameter in [x, *pool.parameters()]:
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 0


def test_pools_are_what_they_say():
    x = torch.randn(2, 6, 3, 4)
    flat = x.flatten(2)
    torch.testing.assert_close(create_pool("gap", 6)(x), flat.mean(-1))
    torch.testing.assert_close(create_pool("cov", 6)(x), triu_vector(covariance(flat)))
    torch.testing.assert_close(create_pool("mpn_cov", 6)(x), triu_vector(covariance_map(flat)))
    torch.testing.assert_close(create_pool("mpn_cov", 6, exponent=1.0)(x), create_pool("cov", 6)(x))
    root = create_pool("mpn_cov", 6)(x)
    torch.testing.assert_close(create_pool("isqrt_cov", 6, steps=30)(x), root, atol=1e-4, rtol=1e-4)
    moment = flat @ flat.mT / 12
    signed = (moment.sign() * (moment.abs() + 1e-8).sqrt()).flatten(1)
    signed = (signed / signed.norm(dim=1, keepdim=True)).view(2, 6, 6)
    torch.testing.assert_close(create_pool("bcnn", 6)(x), triu_vector(signed))


@pytest.mark.parametrize("positions", [4, 49])
def test_newton_schulz_routes_agree_in_float32(positions):
    x = torch.relu(torch.randn(4, 24, positions, positions // 4))
    results = {}
    for route in ("products", "auto", "full", "thin"):
        features = x.clone().requires_grad_()
        out = create_pool("isqrt_cov", 24, route=route)(features)
        results[route] = out, torch.autograd.grad(out, features, torch.ones_like(out))[0]
    for route in ("auto", "full", "thin"):
        for got, want in zip(results[route], results["products"], strict=True):
            assert (got - want).norm() < 1e-5 * want.norm()


@pytest.mark.parametrize("name", list_pools())
def test_pools_do_not_depend_on_the_order_of_positions(name):
    x = torch.randn(2, 6, 1, 12)
    pool = create_pool(name, 6)
    torch.testing.assert_close(pool(x[..., torch.randperm(12)]), pool(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", list_pools())
def test_half_precision_and_autocast_pool_in_float32(name):
    pool = create_pool(name, 8, reduction=4)
    x = torch.randn(2, 8, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = pool(x)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert create_pool(name, 8)(x.bfloat16()).dtype == torch.float32
    assert create_pool(name, 8)(x.double()).dtype == torch.float64


@pytest.mark.parametrize("name", ["cov", "mpn_cov", "isqrt_cov"])
def test_one_position_has_no_covariance(name):
    with pytest.raises(ValueError, match=r"at least 2 positions, got a map of 1 x 1"):
        create_pool(name, 8)(torch.randn(2, 8, 1, 1))


@pytest.mark.parametrize("name", list_pools())
def test_zero_positions(name):
    with pytest.raises(ValueError, match=r"positions, got a map of 0 x 3"):
        create_pool(name, 8)(torch.randn(2, 8, 0, 3))


def test_wrong_channels_are_named():
    with pytest.raises(ValueError, match=r"\(B, 8, H, W\), got \(2, 7, 3, 3\)"):
        create_pool("mpn_cov", 8)(torch.randn(2, 7, 3, 3))


def test_unknown_pool_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown pool 'mpncov'; known: gap, bcnn, cov, mpn_cov, isqrt_cov"):
        create_pool("mpncov", 8)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("mpn_cov", {"exponent": -1}, ValueError),
        ("mpn_cov", {"route": "none"}, ValueError),
        ("isqrt_cov", {"steps": 0}, ValueError),
        ("isqrt_cov", {"route": "none"}, ValueError),
        ("gap", {"steps": 5}, TypeError),
        ("gap", {"reduction": 0}, ValueError),
        ("cov", {"reduction": True}, ValueError),
    ],
)
def test_bad_options_fail_when_the_pool_is_made(name, options, error):
    with pytest.raises(error):
        create_pool(name, 8, **options)


@pytest.mark.parametrize("name", MATRIX_POOLS)
def test_checkpoints_of_another_vector_order_are_refused(name):
    pool = nn.Sequential(create_pool(name, 8))
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    pool.load_state_dict(state)
    state["0.vector_order"] += 1
    with pytest.raises(RuntimeError, match="vector order 2, this version uses 1"):
        pool.load_state_dict(state)
