import pytest
import torch

from gcplib.linalg import (
    covariance,
    covariance_map,
    newton_schulz,
    newton_schulz_function,
    pade_function,
    spectral_map,
    taylor_function,
)

DOUBLE = torch.float64
FUNCTIONS = [newton_schulz_function(5), newton_schulz_function(1), taylor_function(), pade_function()]
SIZES = [(6, 40), (12, 5), (6, 6)]


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("route", ["full", "thin", "svd"])
def test_newton_schulz_on_the_eigenvalues_is_newton_schulz_by_products(steps, size, route):
    x = torch.randn(2, *size, dtype=DOUBLE)
    g = torch.randn(2, size[0], size[0], dtype=DOUBLE)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = covariance_map(ours, newton_schulz_function(steps), route=route)
    want = newton_schulz(covariance(theirs), steps)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, ours, g)[0], torch.autograd.grad(want, theirs, g)[0])


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda fn: fn.name)
@pytest.mark.parametrize("rank", [2, 5])
def test_gradient_of_the_matrix_also_where_it_is_singular(fn, rank):
    # Polynomials and rationals are smooth at zero eigenvalues, so the check needs no full rank.
    root = torch.randn(5, rank, dtype=DOUBLE)
    s = (root @ root.T).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: spectral_map((s + s.T) / 2, fn), s)


def _matrix(eigenvalues):
    return torch.diag(torch.tensor(eigenvalues, dtype=DOUBLE))


# x = lam / norm; the values of the published iterations at 0.01 of the norm and at zero.
@pytest.mark.parametrize(
    ("fn", "x", "want"),
    [
        (pade_function(), 0.01, 0.1247),
        (pade_function(), 0.0, 0.0909),
        (taylor_function(), 0.01, 0.1936),
        (taylor_function(), 0.0, 0.1762),
    ],
    ids=str,
)
def test_small_eigenvalues_are_inflated(fn, x, want):
    s = _matrix([(1 - x * x) ** 0.5, x])
    assert spectral_map(s, fn)[1, 1].item() == pytest.approx(want, rel=2e-3)


def test_taylor_is_the_matrix_polynomial_of_the_paper():
    s = covariance(torch.randn(5, 30, dtype=DOUBLE))
    norm, eye = s.norm(), torch.eye(5, dtype=DOUBLE)
    b, total, power, coefficient = eye - s / norm, eye.clone(), eye, 1.0
    for k in range(1, 11):
        coefficient *= (0.5 - k + 1) / k
        power = power @ b
        total -= abs(coefficient) * power
    torch.testing.assert_close(spectral_map(s, taylor_function(10)), norm.sqrt() * total)


def test_pade_is_the_matrix_quotient_of_the_paper():
    s = covariance(torch.randn(5, 30, dtype=DOUBLE))
    norm, eye = s.norm(), torch.eye(5, dtype=DOUBLE)
    b = eye - s / norm
    p = [1, -11 / 4, 11 / 4, -77 / 64, 55 / 256, -11 / 1024]
    q = [1, -9 / 4, 7 / 4, -35 / 64, 15 / 256, -1 / 1024]
    above, below = (sum(c * torch.linalg.matrix_power(b, k) for k, c in enumerate(row)) for row in (p, q))
    torch.testing.assert_close(spectral_map(s, pade_function()), norm.sqrt() * torch.linalg.solve(below, above))


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda fn: fn.name)
def test_zero_matrix_and_repeated_eigenvalues_are_finite(fn):
    for s in (torch.zeros(3, 3), torch.eye(3), torch.ones(3, 3)):
        s = s.clone().requires_grad_()
        out = spectral_map(s, fn)
        (grad,) = torch.autograd.grad(out, s, torch.randn(3, 3))
        assert torch.isfinite(out).all()
        assert torch.isfinite(grad).all()


def test_functions_with_a_floor_do_not_take_the_thin_route():
    x = torch.randn(6, 4)
    assert torch.linalg.eigvalsh(covariance_map(x, pade_function())).min() > 0
    with pytest.raises(ValueError, match=r"f\(0\) = 0.09"):
        covariance_map(x, pade_function(), route="thin")


def test_too_few_steps_or_terms():
    with pytest.raises(ValueError, match="steps must be an integer from 1, got 0"):
        newton_schulz_function(0)
    with pytest.raises(ValueError, match="terms must be an integer from 1, got 0"):
        taylor_function(0)
