"""Truncated spectral maps: their value, their gradient, and where they have none."""

import pytest
import torch

from gcplib.linalg import (
    NonFiniteError,
    covariance,
    covariance_map,
    get_eigenvalue_set,
    get_function,
    get_rule,
    newton_schulz_function,
    pade_function,
    power,
    spectral_map,
    truncate,
)

DOUBLE = torch.float64
SETS = ["top(3)", "bottom(2)", "band(1, 4)", "random(3, 1)", "energy_top(0.6)", "energy_bottom(0.6)"]
FUNCTIONS = [get_function("sqrt"), power(0.3), newton_schulz_function(5), pade_function()]
SIZES = [(6, 20), (6, 4)]  # full rank, deficient


def rule(name, where="both", base="exact"):
    return truncate(base, name, where)


def by_autograd(x, name, fn):
    """The truncated map through torch's own eigendecomposition."""
    rank = min(x.shape[0], x.shape[1] - 1)
    lam, u = torch.linalg.eigh(covariance(x))
    kept = get_eigenvalue_set(name).mask(lam.detach(), rank)
    t = {None: torch.ones((), dtype=x.dtype), "trace": lam.sum(), "norm": lam.square().sum().sqrt()}[fn.scale]
    u, lam = u[:, kept], lam[kept]
    return (u * (t.sqrt() * fn.value(lam / t))) @ u.T


@pytest.mark.parametrize("fn", FUNCTIONS, ids=str)
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("route", ["full", "thin", "svd"])
def test_value_and_gradient_are_those_of_autograd(fn, name, route):
    if route != "full" and fn.zero != 0:
        pytest.skip("no thin route")
    torch.manual_seed(0)
    ours = torch.randn(*SIZES[0], dtype=DOUBLE).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    got, want = covariance_map(ours, fn, rule(name), route), by_autograd(theirs, name, fn)
    torch.testing.assert_close(got, want)
    g = torch.randn(6, 6, dtype=DOUBLE)
    torch.testing.assert_close(torch.autograd.grad(got, ours, g)[0], torch.autograd.grad(want, theirs, g)[0])


@pytest.mark.parametrize("name", ["top(2)", "bottom(2)", "band(1, 3)"])
@pytest.mark.parametrize("route", ["full", "thin", "svd"])
def test_gradcheck_with_fewer_positions_than_channels(name, route):
    torch.manual_seed(1)
    x = torch.randn(*SIZES[1], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: covariance_map(x, "sqrt", rule(name), route), x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("base", ["exact", "original"])
def test_a_set_and_the_rest_add_up(size, base):
    x = torch.randn(2, *size, dtype=DOUBLE)
    rank = min(size[0], size[1] - 1)
    parts = [covariance_map(x, "sqrt", rule(f"band({a}, {b})", base=base)) for a, b in ((0, 2), (2, rank))]
    # As released, what is dropped is the root of eps, and not zero.
    torch.testing.assert_close(sum(parts), covariance_map(x), atol=1e-9 if base == "exact" else 1e-7, rtol=1e-9)
    assert all(p.norm() < covariance_map(x).norm() for p in parts)


@pytest.mark.parametrize("base", ["exact", "original", "taylor", "newton(7)"])
def test_one_pass_at_a_time(base):
    x, g = torch.randn(6, 20, dtype=DOUBLE), torch.randn(6, 6, dtype=DOUBLE)

    def run(chosen):
        features = x.clone().requires_grad_()
        out = covariance_map(features, "sqrt", chosen)
        return out.detach(), torch.autograd.grad(out, features, g)[0]

    (full, full_grad), (both, both_grad) = run(base), run(rule("top(3)", base=base))
    forward, backward = run(rule("top(3)", "forward", base)), run(rule("top(3)", "backward", base))
    assert not torch.allclose(full, both)
    assert not torch.allclose(full_grad, both_grad)
    torch.testing.assert_close(forward, (both, full_grad))
    torch.testing.assert_close(backward, (full, both_grad))


def test_the_published_truncation_is_a_set_under_the_original_rule():
    x, g = torch.randn(3, 6, 20, dtype=DOUBLE), torch.randn(3, 6, 6, dtype=DOUBLE)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, want = covariance_map(ours, "sqrt", rule("top(4)", base="original")), covariance_map(theirs, rule="top_n(2)")
    assert torch.equal(got, want)
    assert torch.equal(torch.autograd.grad(got, ours, g)[0], torch.autograd.grad(want, theirs, g)[0])


def test_the_gradient_across_the_cut_is_one_over_the_gap():
    # Between a kept and a dropped eigenvalue W is f / gap, and grows without bound as they approach each other.
    g = torch.zeros(3, 3, dtype=DOUBLE)
    g[0, 1] = g[1, 0] = 0.5
    for gap in (1e-1, 1e-3, 1e-5):
        s = torch.diag(torch.tensor([2 + gap, 2.0, 1.0], dtype=DOUBLE)).requires_grad_()
        (got,) = torch.autograd.grad(spectral_map(s, "sqrt", rule("top(1)")), s, g)
        torch.testing.assert_close(got[0, 1].item(), (2 + gap) ** 0.5 / gap / 2, rtol=1e-6, atol=0)


def test_a_cut_between_equal_eigenvalues_is_an_error_and_not_infinite():
    s = (2 * torch.eye(3)).requires_grad_()
    root = spectral_map(s, "sqrt", rule("top(2)"))
    with pytest.raises(NonFiniteError, match=r"inside the set top\(2\) equals one outside"):
        root.sum().backward()
    zero = torch.zeros(4, 9).requires_grad_()
    covariance_map(zero, "sqrt", rule("top(2)")).sum().backward()
    assert zero.grad.abs().max() == 0


def test_what_cannot_be_truncated_is_refused():
    with pytest.raises(ValueError, match="truncates already, to all_but_smallest"):
        rule("top(2)", base="top_n(2)")
    with pytest.raises(ValueError, match="truncate exact, or a rule as released"):
        rule("top(2)", base="lyapunov")
    with pytest.raises(ValueError, match=r"'sideways'; known: both, forward, backward"):
        rule("top(2)", "sideways")
    with pytest.raises(ValueError, match=r"'sideways'; known: both, forward, backward"):
        rule(None, "sideways")
    assert rule(None) == get_rule("exact")
    with pytest.raises(ValueError, match="needs 7 eigenvalues, but these covariances have at most 6"):
        covariance_map(torch.randn(6, 20), "sqrt", rule("top(7)"))
    # Four positions: three eigenvalues at most.
    with pytest.raises(ValueError, match="needs 4 eigenvalues, but these covariances have at most 3"):
        covariance_map(torch.randn(6, 4), "sqrt", rule("bottom(4)"))
