"""Pools inside the machinery of torch: compiled, distributed, checkpointed."""

import pytest
import torch
from distributed_gradients import check_distributed

from gcplib import create_pool, list_pools

# One of each way to the root; the others take long.
QUICK = ("mpn_cov", "isqrt_cov", "svd_newton", "cbp")


@pytest.mark.parametrize(
    "size",
    [pytest.param((4, 4), id="many positions"), pytest.param((2, 3), id="few positions", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in list_pools()]
)
def test_compiles_in_one_graph(name, size):
    # aot_eager traces forward and backward as every backend does, but needs no C++ compiler.
    torch._dynamo.reset()
    pool = create_pool(name, 8)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 8, *size)
    results = []
    for layer in (pool, compiled):
        y = x.clone().requires_grad_()
        out = layer(y)
        results.append((out, torch.autograd.grad(out, y, torch.ones_like(out))[0]))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mpn_cov", {"keep": "top(3)"}),
        pytest.param("mpn_cov", {"keep": "random(3, 1)"}, marks=pytest.mark.slow),
        pytest.param("svd_original", {"keep": "energy_bottom(0.5)", "where": "forward"}, marks=pytest.mark.slow),
        pytest.param("mpn_cov", {"amplify": "released"}, marks=pytest.mark.slow),
        ("isqrt_cov", {"amplify": "exp_relative"}),
    ],
)
def test_truncated_and_amplified_pools_compile(name, options):
    torch._dynamo.reset()
    pool = create_pool(name, 8, **options)
    compiled = torch.compile(pool, backend="aot_eager", fullgraph=True)
    x, y = (torch.ones(3, 8, 4, 4).normal_(generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in "xy")
    got, want = compiled(x), pool(y)
    torch.testing.assert_close(got, want)
    got.sum().backward()
    want.sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mpn_cov", "isqrt_cov", "log"])
def test_compiled_pools_are_not_silent_about_nan(name):
    torch._dynamo.reset()
    compiled = torch.compile(create_pool(name, 8), backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 8, 4, 4)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises((RuntimeError, ValueError), match="finite"):
        compiled(x)


def test_distributed_gradients_are_those_of_the_whole_batch(tmp_path):
    check_distributed(tmp_path, "gloo")


@pytest.mark.parametrize("name", list_pools())
def test_state_loads_into_a_new_pool(name):
    x = torch.randn(2, 12, 4, 4)
    # Another seed of the sketch: the hashes must come from the checkpoint.
    options = {"seed": 1} if name == "cbp" else {}
    old, new = create_pool(name, 12, reduction=8, **options).eval(), create_pool(name, 12, reduction=8).eval()
    new.load_state_dict(old.state_dict())
    assert torch.equal(new(x), old(x))
