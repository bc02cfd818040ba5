import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcplib.linalg import (
    NonFiniteError,
    SpectralFunction,
    covariance,
    covariance_map,
    invsqrtm,
    logm,
    newton_schulz,
    pade_root,
    power,
    powm,
    spectral_map,
    sqrtm,
    taylor_root,
)

DOUBLE = torch.float64
ROUTES = ["full", "thin", "svd"]
# Channels and positions: full rank, rank deficient, square, a single position pair.
SIZES = [(5, 40), (12, 5), (6, 6), (6, 7), (4, 2)]


def features(channels, positions, condition=10.0, dtype=DOUBLE, batch=()):
    """Return centered features whose singular values fall from 1 to 1 / condition."""
    rank = min(channels, positions - 1)
    u = torch.linalg.qr(torch.randn(*batch, channels, rank, dtype=DOUBLE))[0]
    ones = torch.ones(*batch, positions, 1, dtype=DOUBLE)
    v = torch.linalg.qr(torch.cat([ones, torch.randn(*batch, positions, rank, dtype=DOUBLE)], -1))[0][..., 1:]
    values = torch.logspace(0, -np.log10(condition), rank, dtype=DOUBLE)
    return ((u * values) @ v.mT * positions**0.5).to(dtype)


def gradient(x, route, g, fn="sqrt"):
    x = x.detach().clone().requires_grad_()
    out = covariance_map(x, fn, route=route)
    (grad,) = torch.autograd.grad(out, x, g.to(x.dtype))
    return out.detach().double(), grad.double()


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("route", ROUTES)
def test_square_root_squares_to_the_covariance(size, route):
    x = torch.randn(3, *size, dtype=DOUBLE)
    root = covariance_map(x, route=route)
    torch.testing.assert_close(root @ root, covariance(x))
    torch.testing.assert_close(root, root.mT)
    assert torch.linalg.eigvalsh(root).min() > -1e-12


@pytest.mark.parametrize("exponent", [0.25, 0.5, 0.75, 1.5, 2.0])
def test_powers_agree_with_scipy(exponent):
    s = covariance(torch.randn(6, 30, dtype=DOUBLE))
    want = scipy.linalg.fractional_matrix_power(s.numpy(), exponent)
    np.testing.assert_allclose(powm(s, exponent), want, rtol=1e-10)
    if exponent == 0.5:
        np.testing.assert_allclose(sqrtm(s), scipy.linalg.sqrtm(s.numpy()), rtol=1e-10)


def test_square_root_agrees_with_fifty_digits():
    a = [[2, 1, 0], [1, 3, 1], [0, 1, 1e-3 + 0.5]]
    with mpmath.workdps(50):
        want = mpmath.sqrtm(mpmath.matrix(a))
        want = np.array(want.tolist(), dtype=float)
    np.testing.assert_allclose(sqrtm(torch.tensor(a, dtype=DOUBLE)), want, rtol=1e-14)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("fn", ["sqrt", power(0.3), power(2.0)], ids=str)
def test_gradient_is_right_through_the_features(size, route, fn):
    # At rank-deficient covariances the map of X is not differentiable across null directions, so the perturbation
    # must stay in a family of constant rank: x = x0 + p @ x0 @ q keeps row and column space small.
    x0 = features(*size)
    p = torch.randn(size[0], size[0], dtype=DOUBLE, requires_grad=True)

    def through_x(p):
        x = x0 + 0.1 * torch.tanh(p) @ x0
        return covariance_map(x, fn, route=route)

    assert torch.autograd.gradcheck(through_x, p)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fn", ["sqrt", power(0.3)], ids=str)
def test_routes_agree(size, fn):
    x, g = features(*size, batch=(2,)), torch.randn(2, size[0], size[0], dtype=DOUBLE)
    want = gradient(x, "svd", g, fn)
    for route in ("full", "thin", "auto"):
        for got, expected in zip(gradient(x, route, g, fn), want, strict=True):
            assert relative(got, expected) < 1e-9


@pytest.mark.parametrize("lam", [[1.0, 1.0, 1.0], [2.0, 2.0, 1.0], [1.0, 1.0 + 1e-14, 3.0]])
def test_gradient_at_repeated_eigenvalues_solves_the_lyapunov_equation(lam):
    q = torch.linalg.qr(torch.randn(3, 3, dtype=DOUBLE))[0]
    s = ((q * torch.tensor(lam, dtype=DOUBLE)) @ q.mT).requires_grad_()
    g = torch.randn(3, 3, dtype=DOUBLE)
    root = sqrtm(s)
    (got,) = torch.autograd.grad(root, s, g)
    want = scipy.linalg.solve_continuous_lyapunov(root.detach().numpy(), ((g + g.T) / 2).numpy())
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_gradient_equals_autograd_through_eigh_where_that_is_finite():
    s = covariance(torch.randn(4, 6, 40, dtype=DOUBLE))
    g = torch.randn(4, 6, 6, dtype=DOUBLE)
    ours, theirs = s.clone().requires_grad_(), s.clone().requires_grad_()
    (got,) = torch.autograd.grad(sqrtm(ours), ours, g)
    lam, u = torch.linalg.eigh(theirs)
    (want,) = torch.autograd.grad((u * lam.sqrt().unsqueeze(-2)) @ u.mT, theirs, g)
    torch.testing.assert_close(got, (want + want.mT) / 2)


def test_orthogonal_equivariance():
    x = torch.randn(7, 12, dtype=DOUBLE)
    q = torch.linalg.qr(torch.randn(7, 7, dtype=DOUBLE))[0]
    torch.testing.assert_close(covariance_map(q @ x), q @ covariance_map(x) @ q.T)


# Measured bounds (about a factor of three above what was seen): see RANK_FACTOR in linalg/tolerance.py.
@pytest.mark.parametrize("size", [(48, 400), (96, 40), (64, 196)])
@pytest.mark.parametrize(
    ("condition", "route", "bound"),
    [(10, "auto", 1e-5), (100, "auto", 3e-4), (1000, "auto", 1e-1), (1000, "svd", 3e-5)],
)
def test_float32_gradient_against_float64(size, condition, route, bound):
    x, g = features(*size, condition), torch.randn(size[0], size[0], dtype=DOUBLE)
    want = gradient(x, "svd", g)
    got = gradient(x.float(), route, g)
    assert relative(got[1], want[1]) < bound


def test_float32_gradient_where_channels_are_dependent():
    # Rank 20 of 48 channels over 400 positions: null eigenvalues are rounding noise and must not leak.
    x = torch.randn(48, 20, dtype=DOUBLE) @ torch.randn(20, 400, dtype=DOUBLE)
    g = torch.randn(48, 48, dtype=DOUBLE)
    want = gradient(x, "svd", g)
    for route in ROUTES:
        assert relative(gradient(x.float(), route, g)[1], want[1]) < 1e-3


@pytest.mark.parametrize("name", ["log", "invsqrt", power(-0.25)], ids=str)
def test_functions_of_positive_definite_matrices(name):
    s = covariance(torch.randn(2, 5, 40, dtype=DOUBLE))
    oracle = {"log": scipy.linalg.logm, "invsqrt": lambda a: np.linalg.inv(scipy.linalg.sqrtm(a))}.get(
        name, lambda a: scipy.linalg.fractional_matrix_power(a, -0.25)
    )
    for got, matrix in zip(spectral_map(s, name), s, strict=True):
        np.testing.assert_allclose(got, oracle(matrix.numpy()), rtol=1e-9, atol=1e-12)
    x = torch.randn(5, 12, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: covariance_map(x, name), x)
    repeated = torch.eye(3, dtype=DOUBLE).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: spectral_map((s + s.T) / 2, name), repeated)
    with pytest.raises(NonFiniteError, match="positive definite"):
        covariance_map(torch.randn(5, 4), name)


def test_named_forms():
    s = covariance(torch.randn(4, 30, dtype=DOUBLE))
    torch.testing.assert_close(invsqrtm(s) @ s @ invsqrtm(s), torch.eye(4, dtype=DOUBLE))
    torch.testing.assert_close(torch.linalg.matrix_exp(logm(s)), s)
    torch.testing.assert_close(powm(s, -0.5), invsqrtm(s))


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("route", ROUTES)
def test_square_root_and_gradient_scale_as_they_must(scale, route):
    # Eigenvalues of that size in float32: C(cX) = c C(X) and dC/dX does not change.
    x, g = torch.randn(6, 9), torch.randn(6, 6, dtype=DOUBLE)
    root, grad = gradient(x, route, g)
    scaled_root, scaled_grad = gradient(x * scale**0.5, route, g)
    torch.testing.assert_close(scaled_root / scale**0.5, root, rtol=1e-4, atol=1e-5)
    assert relative(scaled_grad, grad) < 1e-3


def test_an_overflow_is_said():
    with pytest.raises(NonFiniteError, match=r"power\(-2\) overflows torch.float32"):
        powm(1e-30 * torch.eye(3), -2)
    s = (1e-30 * torch.eye(3)).requires_grad_()
    root = invsqrtm(s)
    with pytest.raises(NonFiniteError, match=r"the gradient of invsqrt overflows"):
        root.sum().backward()


@pytest.mark.parametrize("route", ROUTES)
def test_autocast_changes_nothing(route):
    x, g = torch.randn(2, 6, 9), torch.randn(2, 6, 6)
    results = []
    for enabled in (False, True):
        y = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            for fn in ("sqrt", "identity"):
                out = covariance_map(y, fn, route=route)
                results.append((out, torch.autograd.grad(out, y, g)[0]))
    for plain, autocast in zip(results[:2], results[2:], strict=True):
        assert all(map(torch.equal, plain, autocast))


@settings(max_examples=80, deadline=None)
@given(
    lam=st.lists(
        st.one_of(st.just(0.0), st.sampled_from([1.0, 1.0 + 1e-7, 2.0]), st.floats(1e-30, 1e30)), min_size=2, max_size=6
    ),
    route=st.sampled_from(["auto", *ROUTES]),
    dtype=st.sampled_from([torch.float32, DOUBLE]),
    positions=st.integers(1, 9),
)
def test_never_silently_non_finite(lam, route, dtype, positions):
    generator = torch.Generator().manual_seed(0)
    channels = len(lam)
    q = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=dtype))[0]
    x = (q * torch.tensor(lam, dtype=dtype).sqrt()) @ torch.randn(channels, positions, generator=generator, dtype=dtype)
    x.requires_grad_()
    out = covariance_map(x, route=route)
    (grad,) = torch.autograd.grad(out, x, torch.randn(channels, channels, generator=generator, dtype=dtype))
    assert torch.isfinite(out).all()
    assert torch.isfinite(grad).all()


@settings(max_examples=80, deadline=None)
@given(
    st.floats(1e-6, 1e6), st.one_of(st.just(0.0), st.floats(1e-12, 1e6)), st.floats(0.1, 3.0), st.floats(-1e-7, 1e-7)
)
def test_divided_difference_of_powers_agrees_with_fifty_digits(a, b, exponent, near):
    for other in (b, a * (1 + near)):
        got = power(exponent).quotient(torch.tensor(a, dtype=DOUBLE), torch.tensor(other, dtype=DOUBLE)).item()
        with mpmath.workdps(50):
            x, y, p = mpmath.mpf(a), mpmath.mpf(other), mpmath.mpf(exponent)
            want = p * x ** (p - 1) if x == y else (x**p - y**p) / (x - y)
        assert got == pytest.approx(float(want), rel=1e-7 if exponent != 0.5 else 1e-12)


def test_one_position_and_empty_batch():
    assert covariance_map(torch.randn(2, 4, 1)).abs().max() == 0
    assert covariance_map(torch.randn(0, 4, 9)).shape == (0, 4, 4)


def test_non_contiguous_features():
    x = torch.randn(2, 9, 5, dtype=DOUBLE).mT
    torch.testing.assert_close(covariance_map(x), covariance_map(x.contiguous()))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_features_are_located(route, bad):
    x = torch.randn(2, 4, 9)
    x[1, 2, 3] = bad
    for fn in ("sqrt", "identity"):
        with pytest.raises(NonFiniteError, match=r"hold 1 non-finite values.*\(1, 2, 3\)"):
            covariance_map(x, fn, route=route)


@pytest.mark.parametrize("silent", [False, True])
def test_eigendecomposition_that_fails_in_float32_is_done_in_float64(monkeypatch, silent):
    x, eigh = torch.randn(4, 9), torch.linalg.eigh
    want = covariance_map(x)

    def fails_in_float32(s):
        lam, u = eigh(s)
        if s.dtype == torch.float64:
            return lam, u
        if silent:
            return lam, torch.full_like(u, float("nan"))
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fails_in_float32)
    got = covariance_map(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want)


def test_overflowing_covariance_is_said():
    with pytest.raises(NonFiniteError, match=r"covariance overflows torch.float32"):
        covariance_map(1e30 * torch.randn(4, 9))


def test_unknown_names_are_listed():
    x = torch.randn(4, 9)
    with pytest.raises(ValueError, match=r"'cube'.*sqrt"):
        covariance_map(x, "cube")
    with pytest.raises(ValueError, match=r"'rough'.*exact"):
        covariance_map(x, rule="rough")
    with pytest.raises(ValueError, match=r"'scenic'.*thin"):
        covariance_map(x, route="scenic")


def test_half_precision_is_refused_with_the_cure():
    with pytest.raises(TypeError, match=r"bfloat16.*float32"):
        covariance_map(torch.randn(4, 9, dtype=torch.bfloat16))


def test_functions_with_a_value_at_zero_take_the_full_route_only():
    shifted = SpectralFunction("shifted", lambda lam: lam + 1, lambda a, b: torch.ones_like(a + b), zero=1.0)
    x = torch.randn(6, 4, dtype=DOUBLE)
    torch.testing.assert_close(covariance_map(x, shifted), covariance(x) + torch.eye(6, dtype=DOUBLE))
    for fn in (shifted, "log", "invsqrt", power(-0.25)):
        for route in ("thin", "svd"):
            with pytest.raises(ValueError, match=r"f\(0\) = 0, but .* has f\(0\) = "):
                covariance_map(x, fn, route=route)


@pytest.mark.parametrize("root", [spectral_map, newton_schulz, taylor_root, pade_root])
def test_matrices_that_are_not_symmetric_are_refused(root):
    s = covariance(torch.randn(3, 4, 20, dtype=DOUBLE))
    skew = torch.randn(4, 4, dtype=DOUBLE)
    s[2] += skew - skew.T
    with pytest.raises(ValueError, match=r"number 2 differ .* take \(S \+ S\^T\) / 2"):
        root(s)
    rounding = 1e-6 * (skew - skew.T)
    torch.testing.assert_close(spectral_map(s[:2] + rounding), spectral_map(s[:2]))


@pytest.mark.parametrize("fn", ["sqrt", "power(0.3)", "invsqrt", "log", "newton_schulz", "pade"])
def test_matrices_with_negative_eigenvalues_are_refused(fn):
    s = torch.diag_embed(torch.tensor([[4.0, 9.0], [4.0, -9.0]]))
    with pytest.raises(NonFiniteError, match="number 1 of 2"):
        spectral_map(s, fn)


def test_power_must_not_be_zero():
    with pytest.raises(ValueError, match="other than 0, got 0"):
        power(0)
