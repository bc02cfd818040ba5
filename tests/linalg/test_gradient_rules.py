"""The published gradient rules: what each computes, and the trap of each, shown."""

import numpy as np
import pytest
import scipy.linalg
import torch

from gcplib.linalg import (
    clip,
    covariance,
    covariance_map,
    get_function,
    get_rule,
    list_rules,
    newton_schulz,
    newton_schulz_function,
    pade_function,
    power,
    power_iteration,
    spectral_map,
    sqrtm,
    taylor,
    taylor_function,
    top_n,
)

DOUBLE = torch.float64
SQRT = get_function("sqrt")
FULL_RANK, DEFICIENT = (6, 40), (6, 4)


def weights(rule, *lam):
    return get_rule(rule).weights(SQRT, torch.tensor(lam, dtype=DOUBLE))


def feature_gradient(x, g, rule, fn="sqrt"):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(covariance_map(x, fn, rule, route="full"), x, g)[0]


def relative(a, b):
    return float((a - b).norm() / b.norm())


# Per rule: how far the feature gradient may be from the exact one where eigenvalues are well apart. Zero for the rules
# that are exact but for rounding.
@pytest.mark.parametrize(
    ("rule", "least", "most"),
    [
        ("original", 0, 1e-12),
        ("clip", 0, 1e-12),
        ("lyapunov", 0, 1e-12),
        ("pade_released", 0, 1e-10),
        ("taylor", 0, 1e-6),
        ("pade", 0, 1e-12),
        ("newton", 0, 1e-12),
        ("newton(3)", 1e-3, 1),
        ("power_iteration", 1e-6, 1e-1),
        ("power_iteration_released", 1, 1),
    ],
)
def test_rules_where_eigenvalues_are_apart(rule, least, most):
    q = torch.linalg.qr(torch.randn(5, 5, dtype=DOUBLE))[0]
    lam = torch.tensor([1.0, 1.4, 2.0, 3.0, 4.5], dtype=DOUBLE)
    g, s = torch.randn(5, 5, dtype=DOUBLE), (q * lam) @ q.T

    def gradient(rule):
        a = s.clone().requires_grad_()
        return torch.autograd.grad(sqrtm(a, rule), a, g)[0]

    assert least <= relative(gradient(rule), gradient("exact")) <= most


@pytest.mark.parametrize("rule", ["exact", "original", "clip"])
def test_rules_that_are_autograd_through_eigh(rule):
    x, g = torch.randn(3, *FULL_RANK, dtype=DOUBLE), torch.randn(3, 6, 6, dtype=DOUBLE)
    theirs = x.clone().requires_grad_()
    lam, u = torch.linalg.eigh(covariance(theirs))
    (want,) = torch.autograd.grad((u * lam.sqrt().unsqueeze(-2)) @ u.mT, theirs, g)
    torch.testing.assert_close(feature_gradient(x, g, rule), want)


@pytest.mark.parametrize("rule", ["taylor", "pade"])
def test_bounded_rules_are_404_times_too_large_at_a_tie_and_too_small_beside_it(rule):
    exact = 1 / (2 * 2.0**0.5)
    assert weights(rule, 2.0, 2.0)[0, 1].item() == pytest.approx(404 * exact, rel=1e-12)
    assert weights(rule, 2.0, 2.0 * (1 + 1e-6))[0, 1].item() < 1e-3 * exact
    # The derivative of a single eigenvalue is never approximated.
    assert weights(rule, 2.0, 2.0)[0, 0].item() == pytest.approx(exact)


def test_taylor_is_the_geometric_sum():
    a, b = 3.0, 2.4
    k = sum((b / a) ** n for n in range(10)) / a
    assert weights("taylor(9)", a, b)[0, 1].item() == pytest.approx((a**0.5 - b**0.5) * k, rel=1e-12)
    # And with eigenvalues the other way round.
    assert weights("taylor(9)", b, a)[0, 1].item() == pytest.approx((a**0.5 - b**0.5) * k, rel=1e-12)


def test_pade_is_the_exact_quotient_up_to_its_bound():
    for b in (0.1, 0.5, 0.99):
        assert weights("pade", 1.0, b)[0, 1].item() == pytest.approx(1 / (1 + b**0.5), rel=1e-12)
    assert weights("pade", 1.0, 0.999)[0, 1].item() == pytest.approx((1 - 0.999**0.5) * 101, rel=1e-12)


def test_pade_as_released_is_the_exact_quotient_and_caps_nothing():
    for ratio in (0.1, 0.9, 0.999, 0.9999):
        want = 1 / (1 + ratio**0.5)
        assert weights("pade_released", 1.0, ratio)[0, 1].item() == pytest.approx(want, rel=1e-8)
        # So it is far from what its name promises next to a tie, where the bounded form has let go.
    assert weights("pade", 1.0, 0.9999)[0, 1].item() < 0.02
    # Which coefficients the singular system gives depends on the working precision.
    from gcplib.linalg.gradient import _pade_coefficients

    (p20, q20), (p30, _) = _pade_coefficients(50, 20), _pade_coefficients(50, 30)
    assert abs(sum(p20) - sum(p30)) > 1
    assert sum(q20) == pytest.approx(0, abs=1e-9)
    # At a tie it is far from the exact 1/2, in whichever way rounding has it.
    assert abs(weights("pade_released", 1.0, 1.0, 3.0)[0, 1] - 0.5) > 0.25


def test_clip_bounds_k_but_not_the_gradient():
    assert weights("clip", 1.0, 1.0)[0, 1].item() == pytest.approx(2e10)
    assert weights("clip(10)", 1.0, 0.99)[0, 1].item() == pytest.approx((1 - 0.99**0.5) * 10, rel=1e-12)


def test_original_takes_the_largest_finite_entry_at_a_tie():
    # The other gaps are 2, so K is 1/2 on both sides of the tie: twice f K, for an exact 1/2.
    assert weights("original", 1.0, 1.0, 3.0)[0, 1].item() == pytest.approx(2 * 1.0 * 0.5)
    assert torch.isfinite(weights("original", 1.0, 1.0)).all()


def test_power_iteration_is_the_sum_of_powers_of_the_deflated_matrix():
    # Per eigenvector u_i, (I - u_i u_i^T) (S / lam_i)^k / lam_i summed over k: entry j is (lam_j / lam_i)^k / lam_i.
    lam = (1.0, 0.7, 0.2)
    got = weights("power_iteration", *lam)
    for i in range(3):
        for j in range(i + 1, 3):
            k = sum((lam[j] / lam[i]) ** n for n in range(21)) / lam[i]
            assert got[i, j].item() == pytest.approx((lam[i] ** 0.5 - lam[j] ** 0.5) * k, rel=1e-12)


def test_power_iteration_as_released_has_no_gradient():
    # The published formula: (I - U U^T) / |S U| summed over powers of S / |S U|, with every eigenvector in U.
    s = covariance(torch.randn(20, 60, dtype=DOUBLE))
    g = torch.randn(20, 20, dtype=DOUBLE)
    lam, u = torch.linalg.eigh(s)
    norm = (s @ u).norm()
    term = total = (torch.eye(20, dtype=DOUBLE) - u @ u.T) / norm
    for _ in range(20):
        term = s / norm @ term
        total = total + term
    published = total @ ((g + g.T) @ u * lam.sqrt()) @ u.T
    exact = get_rule("exact").weights(SQRT, lam) * (u.T @ g @ u)
    assert published.norm() < 1e-12 * exact.norm()
    assert weights("power_iteration_released", 1.0, 2.0).abs().max() == 0


def test_newton_is_the_exact_root_with_the_gradient_of_newton_schulz():
    x, g = torch.randn(*FULL_RANK, dtype=DOUBLE), torch.randn(6, 6, dtype=DOUBLE)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    root = covariance_map(ours, rule="newton(4)")
    torch.testing.assert_close(root, covariance_map(x))
    (want,) = torch.autograd.grad(newton_schulz(covariance(theirs), 4), theirs, g)
    torch.testing.assert_close(torch.autograd.grad(root, ours, g)[0], want)


def test_top_n_truncates_the_forward_pass_and_its_ties_blow_up_the_gradient():
    x, g = torch.randn(*FULL_RANK, dtype=DOUBLE), torch.randn(6, 6, dtype=DOUBLE)
    eps = torch.finfo(DOUBLE).eps
    lam, u = torch.linalg.eigh(covariance(x))
    lam[:2] = eps
    torch.testing.assert_close(covariance_map(x, rule="top_n(2)"), (u * lam.sqrt()) @ u.T)
    # f' of a dropped eigenvalue is 1 / (2 sqrt(eps)).
    ratio = feature_gradient(x, g, "top_n(2)").norm() / feature_gradient(x, g, "exact").norm()
    assert ratio > 1e5
    # One dropped eigenvalue has no other to coincide with, and the same derivative.
    assert feature_gradient(x, g, "top_n(1)").norm() / feature_gradient(x, g, "exact").norm() > 1e5


@pytest.mark.parametrize("fn", [pade_function(), taylor_function()], ids=str)
def test_lyapunov_rule_solves_the_lyapunov_equation_of_the_approximate_root(fn):
    s = covariance(torch.randn(5, 30, dtype=DOUBLE)).requires_grad_()
    g = torch.randn(5, 5, dtype=DOUBLE)
    root = spectral_map(s, fn, "lyapunov")
    (got,) = torch.autograd.grad(root, s, g)
    want = scipy.linalg.solve_continuous_lyapunov(root.detach().numpy(), ((g + g.T) / 2).numpy())
    np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.parametrize("rule", [r for r in list_rules() if r != "exact"])
@pytest.mark.parametrize("size", [FULL_RANK, DEFICIENT])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_every_rule_gives_a_finite_gradient(rule, size, dtype):
    if rule == "top_n":
        rule = "top_n(2)"
    x = torch.randn(2, *size, dtype=dtype)
    x[0] = 1  # a covariance of zero
    grad = feature_gradient(x, torch.randn(2, size[0], size[0], dtype=dtype), rule)
    assert torch.isfinite(grad).all()
    assert grad[0].abs().max() == 0


def test_rules_by_name_with_a_setting():
    assert get_rule("taylor(9)") == taylor(9)
    assert str(get_rule("top_n(12)").keep) == str(top_n(12).keep) == "all_but_smallest(12)"
    assert get_rule("clip(1e3)").name == clip(1e3).name == "clip(1000)"
    assert get_rule("pade_released(50)").name == "pade_released"
    assert power_iteration(7).name == "power_iteration(7)"
    for name in list_rules():
        assert get_rule(name).name == name


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("rough", r"unknown gradient rule 'rough'.*exact.*top_n"),
        ("exact(3)", "'exact' has no settings"),
        ("top_n(0)", "to drop must be an integer from 1, got 0"),
        ("top_n(1.5)", "to drop must be an integer from 1, got 1.5"),
        ("clip(-1)", "must be positive"),
        ("taylor(-1)", "integer from 0, got -1"),
        ("taylor(2.5)", "integer from 0, got 2.5"),
        ("taylor(nan)", "cannot read"),
        ("taylor(abc)", "cannot read"),
        ("pade(0.5)", "at least 1"),
        ("pade_released(0)", "integer from 1"),
        ("newton(0)", "integer from 1"),
        ("newton(2.5)", "integer from 1"),
    ],
)
def test_bad_rules(rule, message):
    with pytest.raises(ValueError, match=message):
        get_rule(rule)


def test_rules_that_do_not_fit_are_refused():
    x = torch.randn(4, 9)
    with pytest.raises(ValueError, match=r"'thin' has the exact gradient only; gradient rule taylor"):
        covariance_map(x, rule="taylor", route="thin")
    with pytest.raises(ValueError, match=r"all_but_smallest\(50\) needs 51 eigenvalues, .* at most 4"):
        covariance_map(x, rule="top_n")
    with pytest.raises(ValueError, match="newton is one of the square root, not of log"):
        covariance_map(x, "log", "newton")
    with pytest.raises(ValueError, match=r"taylor is one of the square root, not of pade"):
        covariance_map(x, pade_function(), "taylor")
    with pytest.raises(ValueError, match="clip sets eigenvalues to eps and cannot take invsqrt"):
        covariance_map(x, "invsqrt", "clip")
    for fn in ("identity", power(0.25), newton_schulz_function(5)):
        with pytest.raises(ValueError, match="lyapunov is one of the square root"):
            covariance_map(x, fn, "lyapunov")
