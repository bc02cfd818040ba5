"""What the eigendecomposition does where a device has none, or a solver is wrong."""

import pytest
import torch

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
