"""The root by products alone, and products in full precision."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gcplib.linalg import covariance_map, list_functions, newton_schulz, products, sqrtm
from gcplib.linalg.products import add_product, product

DOUBLE = torch.float64


def spread_features(channels, positions, spread, dtype=torch.float32):
    """Return features of covariances whose trace is ``spread`` times the smallest eigenvalue that counts."""
    torch.manual_seed(0)
    rank = min(channels, positions - 1)
    low, high = 0.0, 1.0
    for _ in range(60):
        ratio = (low + high) / 2
        lam = ratio ** torch.arange(rank, dtype=DOUBLE)
        low, high = (low, ratio) if lam.sum() / lam[-1] < spread else (ratio, high)
    u = torch.linalg.qr(torch.randn(3, channels, rank, dtype=DOUBLE)).Q
    v = torch.linalg.qr(torch.cat([torch.ones(3, positions, 1), torch.randn(3, positions, rank)], -1).double()).Q
    return (u * (lam * positions).sqrt() @ v[..., 1:].mT).to(dtype)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("shape", [(64, 196), (128, 400), (256, 49), (64, 49), (49, 49)])
def test_root_by_products_is_exact(shape):
    x = spread_features(*shape, 1e5)
    exact = covariance_map(x.double())
    assert relative(covariance_map(x, route="products"), exact) < 1e-5
    assert relative(covariance_map(x, route="products"), covariance_map(x)) < 1e-5
    x = x.double().requires_grad_()
    g = torch.randn_like(exact)
    (got,), (want,) = (torch.autograd.grad(covariance_map(x, route=r), x, g) for r in ("products", "auto"))
    assert relative(got, want) < 1e-8


def test_eigenvalues_beyond_the_precision_come_out_smaller():
    lam = torch.tensor([1.0, 1e-3, 1e-6, 1e-9, 0.0])
    x = torch.diag(lam.sqrt()) @ torch.linalg.qr(torch.randn(8, 5)).Q.T * 8**0.5
    root = covariance_map(x, route="products", centered=False).diagonal()
    assert root[:3].tolist() == pytest.approx(lam[:3].sqrt().tolist(), rel=5e-2)
    assert 0 <= root[3] < 1e-9**0.5
    assert abs(root[4]) < 1e-9


@pytest.mark.parametrize("fn", ["newton_schulz", "newton_schulz(1)", "accelerated", "taylor", "pade"])
@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("centered", [True, False])
def test_products_and_eigenvalues_compute_the_same_function(fn, shape, centered):
    x = torch.randn(2, *shape, dtype=DOUBLE, requires_grad=True)
    g = torch.randn(2, shape[0], shape[0], dtype=DOUBLE)
    results = []
    for route in ("products", "full"):
        out = covariance_map(x, fn, route=route, centered=centered)
        results.append((out, *torch.autograd.grad(out, x, g)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_a_set_of_equal_features_has_the_root_zero():
    assert covariance_map(torch.ones(2, 4, 6), route="products").abs().max() == 0
    assert covariance_map(torch.ones(2, 6, 4), route="products").abs().max() == 0


def test_products_take_no_eigensolver(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an eigensolver")

    for name in ("eigh", "svd", "eigvalsh", "cholesky", "solve", "inv"):
        monkeypatch.setattr(torch.linalg, name, refuse)
    for shape in ((5, 9), (9, 5)):
        x = torch.randn(2, *shape, requires_grad=True)
        covariance_map(x, route="products").square().sum().backward()
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("fn", [name for name in list_functions() if name in ("invsqrt", "log", "identity")])
def test_products_have_roots_alone(fn):
    if fn == "identity":
        x = torch.randn(2, 3, 5)
        torch.testing.assert_close(covariance_map(x, fn, route="products"), covariance_map(x, fn))
        return
    with pytest.raises(ValueError, match="route 'products' has the square root"):
        covariance_map(torch.randn(2, 3, 5), fn, route="products")


def test_products_have_the_exact_gradient_alone():
    with pytest.raises(ValueError, match="route 'products' has the exact gradient only; gradient rule taylor"):
        covariance_map(torch.randn(2, 3, 5), rule="taylor", route="products")


def test_products_raise_for_nan():
    x = torch.randn(2, 3, 5)
    x[1, 2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"hold 1 non-finite values, the first one at \(1, 2, 3\)"):
        covariance_map(x, route="products")


@pytest.fixture
def lowered(monkeypatch):
    """Let float32 products of this process be as inexact as those of bf16 units, wherever they are called."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    for name in ("matmul", "__matmul__", "bmm"):
        exact = getattr(torch.Tensor, name)

        def rough(a, b, exact=exact):
            return exact(a.bfloat16(), b.bfloat16()).float() if a.dtype == torch.float32 else exact(a, b)

        monkeypatch.setattr(torch.Tensor, name, rough)
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("route", ["full", "thin", "products"])
def test_lowered_precision_stays_outside(route, lowered):
    """On units that do compute in bf16, and, because few have them, on a process that rounds as they do."""
    x = torch.randn(3, 16, 9, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    g = torch.randn(3, 16, 16)
    assert relative((x @ x.mT).detach().double(), (exact @ exact.mT).detach()) > 1e-3
    out, want = covariance_map(x, route=route), covariance_map(exact, route=route)
    assert relative(out.double(), want) < 1e-5
    (a,), (b,) = torch.autograd.grad(out, x, g), torch.autograd.grad(want, exact, g.double())
    assert relative(a.double(), b) < 1e-5
    s = covariance_map(x.detach())
    assert relative(newton_schulz(s).double(), newton_schulz(s.double())) < 1e-5
    assert relative(sqrtm(s + torch.eye(16)).double(), sqrtm(s.double() + torch.eye(16))) < 1e-5
    assert torch.get_float32_matmul_precision() == "medium"


def test_two_threads_with_settings_of_their_own_see_the_callers(monkeypatch):
    """No setting of the process is touched: threads that compute meanwhile never see another one."""
    seen = []
    torch.set_float32_matmul_precision("high")
    try:

        def train(seed):
            x = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(seed)).requires_grad_()
            for _ in range(20):
                seen.append(torch.get_float32_matmul_precision())
                covariance_map(x).square().sum().backward()
            return x.grad

        with ThreadPoolExecutor(2) as threads:
            together = list(threads.map(train, range(2)))
        alone = [train(seed) for seed in range(2)]
        assert set(seen) == {"high"}
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a, b)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_full_precision_costs_no_conversion(monkeypatch):
    a, b, c = torch.randn(2, 3, 4), torch.randn(2, 4, 3), torch.randn(2, 3, 3)
    calls = []
    monkeypatch.setattr(products, "_lowered", lambda device: calls.append(device) or False)
    torch.testing.assert_close(product(a, b), a @ b, rtol=0, atol=0)
    torch.testing.assert_close(add_product(c, a, b, beta=2, alpha=3), torch.baddbmm(c, a, b, beta=2, alpha=3))
    assert calls == ["cpu", "cpu"]


@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
def test_what_counts_as_lowered(setting):
    torch.set_float32_matmul_precision(setting)
    try:
        assert products._lowered("cuda") == (setting != "highest")
        assert products._lowered("cpu") == (setting != "highest")
    finally:
        torch.set_float32_matmul_precision("highest")
