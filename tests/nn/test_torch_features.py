"""Pools inside the machinery of torch: compiled, distributed, checkpointed."""

import os

import pytest
import torch
from torch import nn

from gcplib import create_pool, list_pools


@pytest.mark.parametrize("size", [(4, 4), (2, 3)], ids=["many positions", "few positions"])
@pytest.mark.parametrize("name", list_pools())
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
        ("mpn_cov", {"keep": "random(3, 1)"}),
        ("svd_original", {"keep": "energy_bottom(0.5)", "where": "forward"}),
        ("mpn_cov", {"amplify": "released"}),
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


def _network(name):
    torch.manual_seed(0)
    pool = create_pool(name, 6)
    return nn.Sequential(nn.Conv2d(3, 6, 1), pool, nn.Linear(pool.out_features, 2))


def _gradients(model, x, target):
    nn.functional.cross_entropy(model(x), target).backward()
    return [p.grad for p in model.parameters()]


def _worker(rank, place, x, target, want):
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    try:
        half = slice(4 * rank, 4 * rank + 4)
        for name, gradients in want.items():
            model = nn.parallel.DistributedDataParallel(_network(name))
            for got, expected in zip(_gradients(model, x[half], target[half]), gradients, strict=True):
                torch.testing.assert_close(got, expected)
    finally:
        torch.distributed.destroy_process_group()


def test_distributed_gradients_are_those_of_the_whole_batch(tmp_path):
    x, target = torch.randn(8, 3, 4, 4), torch.randint(2, (8,))
    want = {name: _gradients(_network(name), x, target) for name in ("mpn_cov", "isqrt_cov", "svd_taylor")}
    torch.multiprocessing.spawn(_worker, (tmp_path / "meeting", x, target, want), nprocs=2)


@pytest.mark.parametrize("name", list_pools())
def test_state_loads_into_a_new_pool(name):
    x = torch.randn(2, 12, 4, 4)
    # Another seed of the sketch: the hashes must come from the checkpoint.
    options = {"seed": 1} if name == "cbp" else {}
    old, new = create_pool(name, 12, reduction=8, **options).eval(), create_pool(name, 12, reduction=8).eval()
    new.load_state_dict(old.state_dict())
    assert torch.equal(new(x), old(x))
