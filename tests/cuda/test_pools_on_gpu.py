"""On a GPU every pool computes what it computes on a CPU, at degenerate covariances and under autocast, too."""

import copy

import pytest
import torch

from gcplib import create_backbone, create_model, create_pool, list_pools
from gcplib.linalg import NonFiniteError

pytestmark = pytest.mark.cuda

CHANNELS = 24
# At these covariances the published gradients, signed roots and normalizations amplify rounding noise without bound, by
# themselves: what they return need only be finite. The others must not depend on how a machine rounds.
STABLE = ("cov", "mpn_cov", "isqrt_cov", "mpa", "mtp", "gaussian")


def _regular(dtype):
    return torch.randn(6, CHANNELS, 7, 8, dtype=dtype)


def _repeated(dtype):
    x = torch.randn(4, 64, CHANNELS, dtype=torch.float64)
    q = torch.linalg.qr(x - x.mean(1, keepdim=True))[0]
    return (8 * q.mT).reshape(4, CHANNELS, 8, 8).to(dtype)


def _rank_one(dtype):
    return torch.randn(4, CHANNELS, 1, 1, dtype=dtype) * torch.randn(4, 1, 6, 6, dtype=dtype)


def _dead(dtype):
    x = _regular(dtype)
    x[:, ::2] = 0
    return x


def _one_null(dtype):
    x = _regular(dtype)
    x[1] = 0
    return x


DEGENERATE = {
    "repeated": _repeated,
    "null": lambda dtype: torch.zeros(2, CHANNELS, 5, 5, dtype=dtype),
    "one null among others": _one_null,
    "rank one": _rank_one,
    "dead channels": _dead,
    "few positions": lambda dtype: torch.randn(4, CHANNELS, 3, 3, dtype=dtype),
}


def _pass(pool, x):
    """Return the vectors and the gradient for a direction that is the same on every device, on the CPU."""
    x = x.detach().requires_grad_()
    out = pool(x)
    direction = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out)
    return out.detach().cpu(), torch.autograd.grad(out, x, direction)[0].cpu()


def _both(name, x, device):
    """Return what the CPU and what the device computes, with the same weights and hashes."""
    pool = create_pool(name, CHANNELS, dtype=x.dtype)
    return _pass(pool, x), _pass(copy.deepcopy(pool).to(device), x.to(device))


def _distance(got, want):
    return ((got - want).norm() / want.norm().clamp(min=1e-30)).item()


@pytest.mark.parametrize("name", list_pools())
def test_every_pool_agrees_with_the_cpu_in_float64(name, device, record_property):
    want, got = _both(name, _regular(torch.float64), device)
    apart = [_distance(*pair) for pair in zip(got, want, strict=True)]
    record_property(f"{name}: value and gradient, GPU against CPU", "{:.1e}, {:.1e}".format(*apart))
    assert max(apart) < 1e-9


@pytest.mark.parametrize("batch", DEGENERATE)
@pytest.mark.parametrize("name", STABLE)
def test_degenerate_covariances_agree_with_the_cpu(name, batch, device):
    want, got = _both(name, DEGENERATE[batch](torch.float64), device)
    assert max(_distance(*pair) for pair in zip(got, want, strict=True)) < 1e-7


@pytest.mark.parametrize("batch", DEGENERATE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_every_pool_stays_finite_at_degenerate_covariances(dtype, batch, device):
    x = DEGENERATE[batch](dtype).to(device)
    for name in list_pools():
        pool = create_pool(name, CHANNELS, dtype=dtype, device=device)
        if name == "log" and "null" in batch:
            with pytest.raises(NonFiniteError, match="positive definite"):
                pool(x)
            continue
        for value in _pass(pool, x):
            assert value.isfinite().all(), name


@pytest.mark.parametrize("name", list_pools())
def test_bf16_features_are_pooled_in_full_precision_under_autocast(name, device):
    x = _regular(torch.bfloat16).to(device)
    pool = create_pool(name, CHANNELS, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        got = _pass(pool, x)
    want = _pass(pool, x.float())
    # The gradient reaches the features in their own precision, and so does their mean.
    assert _distance(got[0].float(), want[0]) < (1e-2 if name == "gap" else 1e-4)
    assert _distance(got[1].float(), want[1]) < 1e-2


@pytest.mark.parametrize("name", ["gap", "mpn_cov", "isqrt_cov", "svd_taylor", "log"])
def test_networks_learn_in_bf16(name, device):
    backbone = create_backbone("test_resnet", pretrained=False)
    model = create_model(backbone, name, num_classes=4, reduction=8 if name != "gap" else None, device=device).train()
    images, labels = torch.randn(8, 3, 64, 64, device=device), torch.arange(8, device=device) % 4
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.02), []
    for _ in range(12):
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
