"""Transforms of torch.func and higher derivatives, against loops, finite differences and closed forms."""

from functools import partial

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from gcplib.linalg import (
    covariance,
    covariance_map,
    list_rules,
    logm,
    newton_schulz,
    pade_root,
    spectral_map,
    sqrtm,
    taylor_root,
    truncate,
)

DOUBLE = torch.float64
SLOW = [pytest.param(fn, marks=pytest.mark.slow) for fn in ("power(1.7)", "power(-0.6)", "accelerated")]
FUNCTIONS = ["sqrt", "invsqrt", "log", "power(0.3)", "identity", *SLOW]
APPROXIMATIONS = ["newton_schulz", "taylor", "pade"]
MAPS = {
    "covariance": covariance,
    "full": partial(covariance_map, route="full"),
    "thin": lambda x: covariance_map(x[..., :4], route="thin"),
    "svd": lambda x: covariance_map(x[..., :4], route="svd"),
    "products": partial(covariance_map, route="products"),
    "uncentered": partial(covariance_map, centered=False),
    "identity": partial(covariance_map, fn="identity"),
    "log": lambda x: logm(covariance(x) + torch.eye(5, dtype=x.dtype)),
    "newton_schulz": lambda x: newton_schulz(covariance(x)),
    "taylor": lambda x: taylor_root(covariance(x)),
    "pade": lambda x: pade_root(covariance(x)),
}


def features(*shape):
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=DOUBLE)


def symmetric(f):
    return lambda s: f((s + s.mT) / 2)


def twice_differentiable(f, x):
    x = x.requires_grad_()
    assert gradcheck(f, x, check_forward_ad=True)
    assert gradgradcheck(f, x, check_fwd_over_rev=True)


@pytest.mark.parametrize("fn", FUNCTIONS + APPROXIMATIONS)
def test_second_derivatives_of_matrices(fn):
    twice_differentiable(symmetric(partial(spectral_map, fn=fn)), covariance(features(2, 3, 9)))


@pytest.mark.parametrize("route", ["full", "thin", "svd", "products"])
@pytest.mark.parametrize("centered", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fn", ["sqrt", pytest.param("newton_schulz", marks=pytest.mark.slow)])
def test_second_derivatives_of_features(fn, centered, route):
    f = partial(covariance_map, fn=fn, route=route, centered=centered)
    twice_differentiable(f, features(2, 4, 3) if route in ("thin", "svd") else features(2, 3, 5))


@pytest.mark.parametrize("root", [partial(newton_schulz, steps=1), newton_schulz, taylor_root, pade_root])
def test_second_derivatives_of_iterations(root):
    twice_differentiable(symmetric(root), covariance(features(2, 3, 9)))


@pytest.mark.parametrize("fn", ["sqrt", "log", pytest.param("power(0.3)", marks=pytest.mark.slow)])
def test_second_derivatives_at_repeated_eigenvalues(fn):
    s = torch.diag(torch.tensor([1.0, 1, 1, 4], dtype=DOUBLE))
    twice_differentiable(symmetric(partial(spectral_map, fn=fn)), s)


def test_third_derivative_of_a_number_is_that_of_its_root():
    x = torch.tensor([[4.0]], dtype=DOUBLE)
    third = jacrev(jacfwd(jacrev(sqrtm)))(x)
    assert third.item() == pytest.approx(3 / 8 * 4**-2.5)
    assert jacrev(jacrev(jacrev(jacrev(logm))))(x).item() == pytest.approx(-6 / 4**4)
    assert jacrev(hessian(partial(spectral_map, fn="power(0.3)")))(x).item() == pytest.approx(0.3 * 0.7 * 1.7 * 4**-2.7)


@pytest.mark.parametrize("fn", ["sqrt", "power(0.3)"])
@pytest.mark.parametrize("shape", [(6, 9), (6, 4)])
def test_second_derivatives_along_changes_that_keep_the_rank(fn, shape):
    """A dead channel and one that repeats another make null directions, through which f has no derivative."""
    mix = torch.eye(6, dtype=DOUBLE)
    mix[4] = 0
    mix[5] = mix[0]
    weights = features(6, 6)
    for route in ("full", "thin") if shape[1] <= shape[0] else ("full",):

        def loss(x, route=route):
            return (covariance_map(mix @ x, fn, route=route) * weights).sum()

        x, v = features(*shape), features(2, *shape)[1]
        product = jvp(grad(loss), (x,), (v,))[1]
        step = 1e-5
        numeric = (grad(loss)(x + step * v) - grad(loss)(x - step * v)) / (2 * step)
        torch.testing.assert_close(product, numeric, rtol=1e-6, atol=1e-6 * numeric.abs().max().item())


@pytest.mark.parametrize("name", MAPS)
def test_transforms_agree_with_loops(name):
    f, x, weights = MAPS[name], features(3, 5, 9), features(5, 5)

    def loss(x):
        return (f(x) * weights).sum()

    jacobian, second = torch.autograd.functional.jacobian, torch.autograd.functional.hessian
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    close(vmap(f)(x), torch.stack([f(one) for one in x]))
    close(vmap(f, in_dims=2, out_dims=1)(x.movedim(0, 2)), f(x).movedim(0, 1))
    close(vmap(grad(loss))(x), torch.stack([jacobian(loss, one) for one in x]))
    close(jacrev(f)(x[0]), jacobian(f, x[0]))
    close(jacfwd(f)(x[0]), jacobian(f, x[0]))
    close(hessian(loss)(x[0]), second(loss, x[0]))
    close(vmap(jacrev(jacrev(loss)))(x)[1], second(loss, x[1]))
    close(vmap(vmap(f))(x[None])[0], f(x))


@pytest.mark.parametrize("rule", [*list_rules(), truncate("exact", "top(2)")])
def test_rules_have_transforms_but_no_second_derivative(rule):
    f = partial(covariance_map, rule=rule, route="full")
    x, weights = features(3, 4, 9), features(4, 4)
    if rule == "top_n":
        f = partial(covariance_map, rule="top_n(1)", route="full")

    def loss(x):
        return (f(x) * weights).sum()

    first = torch.autograd.functional.jacobian(lambda x: loss(x), x)
    torch.testing.assert_close(vmap(grad(loss))(x), first)
    # Forward and reverse mode of one linear map.
    v = features(2, 3, 4, 9)[1]
    torch.testing.assert_close(jvp(loss, (x,), (v,))[1], (first * v).sum())
    if rule == "exact":
        return
    with pytest.raises(NotImplementedError, match="has no second derivative"):
        hessian(loss)(x[0])
    x.requires_grad_()
    (g,) = torch.autograd.grad(loss(x), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="has no second derivative"):
        g.square().sum().backward()
    with pytest.raises(NotImplementedError, match="has no second derivative"):
        torch.autograd.grad(g.square().sum(), x)


def test_errors_under_vmap_say_which():
    x = features(2, 3, 4, 5)
    x[1, 0, 2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"hold 1 non-finite values, the first one at \(1, 0, 2, 3\)"):
        vmap(covariance_map)(x)
