"""What the eigendecomposition does where a device has none, or a solver is wrong."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gcplib.linalg import NonFiniteError, covariance_map, set_residual_check, sqrtm
from gcplib.linalg.eigen import NoEigensolverError, eigensolver_faults


@pytest.fixture
def no_eigensolver(monkeypatch):
    def refuse(s):
        raise NotImplementedError("not for this device")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_without_an_eigensolver_products_take_its_place_and_say_so(shape, no_eigensolver, monkeypatch):
    x = torch.randn(2, *shape, dtype=torch.float64)
    with pytest.warns(UserWarning, match="cpu has no eigendecomposition; use route='products': taken here"):
        out = covariance_map(x)
    monkeypatch.undo()
    torch.testing.assert_close(out, covariance_map(x))


def test_without_an_eigensolver_what_needs_one_says_so(no_eigensolver):
    x = torch.randn(2, 4, 9)
    with pytest.raises(ValueError, match="route 'products' has the square root") as raised:
        covariance_map(x, "power(0.3)")
    assert isinstance(raised.value.__cause__, NoEigensolverError)
    with pytest.raises(ValueError, match="gradient rule taylor needs the eigenvalues"):
        covariance_map(x, rule="taylor")


@pytest.fixture
def residual_check():
    set_residual_check(True)
    yield
    set_residual_check(False)


def rotated(solver, wrong):
    """Return a solver with orthonormal eigenvectors that are not those of the matrix."""

    def solve(s):
        lam, u = solver(s)
        return (lam, u.roll(1, -1)) if s.dtype in wrong else (lam, u)

    return solve


def test_wrong_eigenvectors_are_found_and_found_again_in_float64(monkeypatch, residual_check):
    x = torch.randn(2, 5, 9)
    want = covariance_map(x)
    solver = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", rotated(solver, {torch.float32}))
    torch.testing.assert_close(covariance_map(x), want)
    monkeypatch.setattr(torch.linalg, "eigh", rotated(solver, {torch.float32, torch.float64}))
    with pytest.raises(NonFiniteError, match="also in float64"):
        covariance_map(x)
    set_residual_check(False)
    assert (covariance_map(x) - want).norm() > 0.1 * want.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 8, 64, 256])
def test_right_eigenvectors_pass(dtype, rows, residual_check, monkeypatch):
    calls = []
    solver = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda s: calls.append(s.dtype) or solver(s))
    for condition in (0, 3, 6):
        u = torch.linalg.qr(torch.randn(2, rows, rows, dtype=dtype)).Q
        sqrtm(u * torch.logspace(0, -condition, rows, dtype=dtype) @ u.mT)
    assert calls == [dtype] * 3


def test_known_faults_of_versions():
    assert eigensolver_faults("2.13.0+cu130", None) == eigensolver_faults("2.12.0", "11.7.3.90") == []
    (slow,) = eigensolver_faults("2.11.1+cu126", "11.7.3.90")
    assert "one at a time" in slow
    (wrong,) = eigensolver_faults("2.12.0", "11.7.1.2")
    assert "11.7.3.90 mends" in wrong


class Looks(TorchDispatchMode):
    """Counts values that the host reads, each of which makes it wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(("route", "forward", "backward"), [("full", 2, 2), ("thin", 2, 2), ("products", 1, 0)])
def test_the_host_reads_few_values(route, forward, backward):
    """Of the decomposition, and once of all that is checked; and on a CPU whether a direction is null."""
    x = torch.randn(3, 6, 6, requires_grad=True)
    with Looks() as looks:
        out = covariance_map(x, route=route)
    assert looks.count == forward
    with Looks() as looks:
        torch.autograd.grad(out, x, torch.ones_like(out))
    assert looks.count == backward
