import io

import pytest
import scipy.linalg
import torch
from torch import nn

from gcplib import create_pool, list_pools
from gcplib.linalg import (
    NonFiniteError,
    covariance,
    covariance_map,
    pade_function,
    second_moment,
    spectral_map,
    taylor_function,
    triu_vector,
)

MATRIX_POOLS = [name for name in list_pools() if name not in ("gap", "cbp", "moment_probing")]


@pytest.mark.parametrize("reduction", [None, 5])
@pytest.mark.parametrize("name", list_pools())
def test_shapes_gradients_and_out_features(name, reduction):
    pool = create_pool(name, 8, reduction=reduction)
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


@pytest.mark.parametrize("rule", ["original", "clip", "power_iteration", "newton", "taylor", "pade"])
def test_svd_pools_are_the_exact_root_with_another_gradient_in_float64(rule):
    x = torch.randn(2, 6, 4, 4)
    pool = create_pool(f"svd_{rule}", 6)
    assert pool.rule.name == rule
    assert (pool(x).dtype, pool.compute_dtype) == (torch.float32, "float64")
    torch.testing.assert_close(pool(x), create_pool("mpn_cov", 6)(x))
    got, want = x.clone().requires_grad_(), x.double().requires_grad_()
    g = torch.randn(2, 21)
    pool(got).backward(g)
    root = covariance_map(want.flatten(2), "sqrt", rule)
    triu_vector(root).backward(g.double())
    torch.testing.assert_close(got.grad, want.grad.float())


def test_top_n_drops_the_papers_share():
    assert create_pool("svd_top_n", 256).rule.name == "top_n"
    assert create_pool("svd_top_n", 112, reduction=64).rule.name == "top_n(12)"
    assert str(create_pool("svd_top_n", 64, drop=3).rule.keep) == "all_but_smallest(3)"
    x = torch.randn(1, 8, 6, 6, dtype=torch.float64)
    root = torch.zeros(8, 8, dtype=torch.float64)
    root[tuple(torch.triu_indices(8, 8))] = create_pool("svd_top_n", 8, drop=3)(x)[0]
    assert torch.linalg.matrix_rank(root + root.triu(1).T, atol=1e-6) == 5


def test_approximate_roots_are_their_functions():
    x = torch.randn(2, 6, 4, 4)
    for name, fn in (("mpa", pade_function()), ("mtp", taylor_function())):
        torch.testing.assert_close(create_pool(name, 6)(x), triu_vector(spectral_map(covariance(x.flatten(2)), fn)))


def test_log_pool_is_the_logarithm_of_the_shrunk_covariance():
    # Rank deficient: without shrinkage there is no logarithm.
    x = torch.randn(2, 6, 2, 2, dtype=torch.float64)
    s = covariance(x.flatten(2))
    shrunk = [0.9 * m + 0.1 * m.trace() / 6 * torch.eye(6, dtype=torch.float64) for m in s]
    want = torch.stack([torch.from_numpy(scipy.linalg.logm(m.numpy())) for m in shrunk])
    torch.testing.assert_close(create_pool("log", 6, shrinkage=0.1)(x), triu_vector(want))
    with pytest.raises(NonFiniteError, match="log needs positive definite"):
        create_pool("log", 6)(torch.ones(1, 6, 2, 2))


def test_compact_bilinear_is_the_published_product_of_transforms():
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    pool = create_pool("cbp", 5, sketch=16)
    # Take the two hashes apart again: bins[i, j] = g_i + h_j and signs[i, j] = s_i t_j, up to what cancels.
    bins, signs = pool.bins.view(5, 5), pool.signs.view(5, 5).double()
    sketches = []
    for place, sign in ((bins[:, 0], signs[:, 0]), ((bins[0] - bins[0, 0]) % 16, signs[0] * signs[0, 0])):
        sketch = torch.zeros(2, 16, 9, dtype=torch.float64)
        sketches.append(sketch.index_add(1, place, x.flatten(2) * sign[:, None]))
    first, second = (torch.fft.fft(sketch, dim=1) for sketch in sketches)
    want = torch.fft.ifft(first * second, dim=1).real.mean(-1)
    want[want.abs() < 1e-12] = 0  # bins without an entry: rounding would have a sign, and the root makes it large
    want = want.sign() * (want.abs() + 1e-8).sqrt()
    torch.testing.assert_close(pool(x), want / want.norm(dim=1, keepdim=True))


def test_compact_bilinear_keeps_inner_products_on_average():
    a, b = torch.randn(2, 1, 6, 3, 3)
    s, t = (second_moment(v.flatten(2)) for v in (a, b))
    found = []
    for seed in range(400):
        pool = create_pool("cbp", 6, sketch=64, seed=seed)
        sketch = [torch.zeros(1, 64).index_add(1, pool.bins, m.flatten(1) * pool.signs) for m in (s, t)]
        found.append((sketch[0] * sketch[1]).sum())
    found, want = torch.stack(found), (s * t).sum()
    assert abs(found.mean() - want) < 4 * found.std() / 20


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


@pytest.mark.parametrize("name", [n for n in MATRIX_POOLS if n != "bcnn"])
def test_one_position_has_no_covariance(name):
    with pytest.raises(ValueError, match=r"at least 2 positions, got a map of 1 x 1"):
        create_pool(name, 8)(torch.randn(2, 8, 1, 1))


@pytest.mark.parametrize("name", list_pools())
def test_zero_positions(name):
    with pytest.raises(ValueError, match=r"positions, got a map of 0 x 3"):
        create_pool(name, 8)(torch.randn(2, 8, 0, 3))


def test_wrong_channels_are_named():
    with pytest.raises(ValueError, match=r"\(B, 8, H, W\), got \(2, 0, 8, 3, 3\)"):
        create_pool("gap", 8)(torch.zeros(2, 0, 8, 3, 3))
    with pytest.raises(ValueError, match=r"\(B, 8, H, W\), got \(2, 7, 3, 3\)"):
        create_pool("mpn_cov", 8)(torch.randn(2, 7, 3, 3))


def test_unknown_pool_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"unknown pool 'mpncov'; did you mean 'mpn_cov'. known: gap, bcnn, cbp, cov, log, mpn_cov, isqrt_cov",
    ):
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
        ("mpn_cov", {"rule": "unknown"}, ValueError),
        ("mpn_cov", {"rule": "taylor", "route": "thin"}, ValueError),
        ("mpn_cov", {"compute_dtype": "float16"}, ValueError),
        ("mpa", {"route": "thin"}, ValueError),
        ("mpa", {"rule": "taylor"}, ValueError),
        ("svd_top_n", {"drop": 8}, ValueError),
        ("svd_top_n", {"drop": 0}, ValueError),
        ("mpn_cov", {"exponent": 0.25, "rule": "lyapunov"}, ValueError),
        ("svd_newton", {"fn": "log"}, ValueError),
        ("log", {"shrinkage": 0.0}, ValueError),
        ("cbp", {"sketch": 0}, ValueError),
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
