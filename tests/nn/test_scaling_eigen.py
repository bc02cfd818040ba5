import pytest
import torch

from gcplib.linalg import (
    covariance,
    covariance_map,
    get_function,
    list_rules,
    newton_schulz_function,
    pade_function,
    power,
    spectral_map,
    taylor_function,
)
from gcplib.nn import amplify, create_pool, list_amplifiers

DOUBLE = torch.float64
ROOTS = [get_function("sqrt"), newton_schulz_function(5), pade_function(), taylor_function()]
ANY_ROOT = ["released", "exp", "exp_relative", "exp_relative(4)"]
GCP_POOLS = [
    "cov",
    "mpn_cov",
    "isqrt_cov",
    "mpa",
    "mtp",
    "svd_original",
    "svd_clip",
    "svd_taylor",
    "svd_pade",
    "svd_top_n",
]


def branch_as_released(s, q):
    """Steps 2 to 6 of the published code, by matrices."""
    t = q @ torch.linalg.matrix_exp(-s).mT
    return q * (t / (t / t.norm())) + q


@pytest.mark.parametrize("fn", ROOTS, ids=str)
def test_released_is_the_published_layer_and_one_factor_per_image(fn):
    s = covariance(torch.randn(2, 6, 40, dtype=DOUBLE))
    q = spectral_map(s, fn)
    got = spectral_map(s, amplify(fn, "released", 6))
    for i in range(2):
        torch.testing.assert_close(got[i], branch_as_released(s[i], q[i]))
        torch.testing.assert_close(got[i], (1 + (q[i] @ torch.linalg.matrix_exp(-s[i])).norm()) * q[i])
    ratio = got / q
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))
    assert ratio[0, 0, 0] != pytest.approx(ratio[1, 0, 0].item())


def test_the_published_layer_is_not_defined_where_a_product_is_zero_and_ours_is():
    s = torch.diag(torch.tensor([1.0, 2.0], dtype=DOUBLE))
    assert branch_as_released(s, s.sqrt()).isnan().sum() == 2
    q = torch.tensor([1.0, 2.0], dtype=DOUBLE).sqrt()
    want = q * (1 + torch.tensor([1.0, 2.0], dtype=DOUBLE).mul(-2).exp().mul(q**2).sum().sqrt())
    torch.testing.assert_close(spectral_map(s, amplify("sqrt", "released", 2)), torch.diag(want))


@pytest.mark.parametrize("fn", ROOTS, ids=str)
@pytest.mark.parametrize("how", ANY_ROOT)
@pytest.mark.parametrize("size", [(5, 12), (6, 4)])
def test_gradcheck_through_the_features(fn, how, size):
    if how == "exp" and fn.scale is not None:
        how = "exp_relative(2)"  # exp is refused there, see below
    torch.manual_seed(0)
    x = torch.randn(*size, dtype=DOUBLE, requires_grad=True)
    for route in ("full", "thin", "svd") if fn.zero == 0 else ("full",):
        assert torch.autograd.gradcheck(lambda x: covariance_map(x, amplify(fn, how, size[0]), route=route), x)  # noqa: B023


@pytest.mark.parametrize("size", [(5, 12), (6, 4)])
def test_gradcheck_of_the_relative_power(size):
    x = torch.randn(*size, dtype=DOUBLE, requires_grad=True)
    for route in ("full", "thin"):
        fn = amplify("sqrt", "power(0.25)", size[0])
        assert torch.autograd.gradcheck(lambda x: covariance_map(x, fn, route=route), x)  # noqa: B023


def test_closed_forms():
    lam = torch.tensor([0.1, 0.5, 3.0], dtype=DOUBLE)
    m = lam.mean()
    wanted = {
        "exp": lam.sqrt() * (1 + (-lam).exp()),
        "exp_relative": lam.sqrt() * (1 + (-lam / m).exp()),
        "exp_relative(4)": lam.sqrt() * (1 + 4 * (-lam / m).exp()),
        "power(0.25)": m.sqrt() * (lam / m) ** 0.25,
    }
    for how, want in wanted.items():
        torch.testing.assert_close(spectral_map(torch.diag(lam), amplify("sqrt", how, 3)), torch.diag(want))


@pytest.mark.parametrize("how", ["exp", "exp_relative", "exp_relative(4)", "power(0.25)"])
def test_all_but_the_released_form_raise_the_share_of_small_eigenvalues(how):
    lam = torch.logspace(-3, 1, 12, dtype=DOUBLE)
    shares = spectral_map(torch.diag(lam), amplify("sqrt", how, 12)).diagonal().square()
    assert shares[:6].sum() / shares.sum() > 1.05 * lam[:6].sum() / lam.sum()
    released = spectral_map(torch.diag(lam), amplify("sqrt", "released", 12)).diagonal().square()
    torch.testing.assert_close(released / released.sum(), lam / lam.sum())


@pytest.mark.parametrize("how", ["exp_relative", "power(0.25)"])
def test_the_relative_forms_do_not_depend_on_the_scale(how):
    x = torch.randn(5, 20, dtype=DOUBLE)
    for fn in ROOTS if how == "exp_relative" else ROOTS[:1]:
        fn = amplify(fn, how, 5)
        torch.testing.assert_close(covariance_map(100 * x, fn), 100 * covariance_map(x, fn))
    assert not torch.allclose(
        covariance_map(100 * x, amplify("sqrt", "exp", 5)), 100 * covariance_map(x, amplify("sqrt", "exp", 5))
    )


def test_closeness_of_eigenvalues_costs_no_precision():
    fn, single = amplify("sqrt", "exp", 2), torch.tensor(1.3)
    want = amplify("sqrt", "exp", 2).quotient(torch.tensor(1.3, dtype=DOUBLE), torch.tensor(1.3 + 1e-6, dtype=DOUBLE))
    for gap in (0, 1e-7, 1e-6):
        torch.testing.assert_close(fn.quotient(single, single + gap).item(), want.item(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("pool", GCP_POOLS)
@pytest.mark.parametrize("how", ["released", "exp"])
def test_on_top_of_every_pool_without_a_parameter(pool, how):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    if how == "exp" and pool in ("isqrt_cov", "mpa", "mtp"):
        how = "exp_relative"
    plain, amplified = create_pool(pool, 8), create_pool(pool, 8, amplify=how)
    assert sum(p.numel() for p in amplified.parameters()) == sum(p.numel() for p in plain.parameters()) == 0
    out = amplified(x)
    assert not torch.allclose(out, plain(x), rtol=1e-2)
    out.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.norm() > 0
    assert amplified.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("pool", ["isqrt_cov", "mpa", "mtp"])
def test_amplified_iterations_have_the_gradient_of_what_they_compute(pool):
    torch.manual_seed(0)
    x = torch.randn(1, 4, 4, 4, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(create_pool(pool, 4, amplify="exp_relative"), x)


def test_the_controls_take_the_published_layer_apart():
    x, g = torch.randn(5, 20, dtype=DOUBLE), torch.randn(5, 5, dtype=DOUBLE)

    def run(how):
        features = x.clone().requires_grad_()
        out = covariance_map(features, amplify("sqrt", how, 5) if how else "sqrt")
        return out.detach(), torch.autograd.grad(out, features, g)[0]

    (plain, plain_grad), (released, released_grad) = run(None), run("released")
    factor = (released / plain)[0, 0]
    detached, detached_grad = run("released_detached")
    torch.testing.assert_close(detached, released)
    torch.testing.assert_close(detached_grad, factor * plain_grad)
    assert not torch.allclose(detached_grad, released_grad, rtol=1e-3)
    constant, constant_grad = run("constant(3)")
    torch.testing.assert_close((constant, constant_grad), (4 * plain, 4 * plain_grad))


def test_zero_and_equal_eigenvalues():
    for how in list_amplifiers():
        s = torch.zeros(3, 3, dtype=DOUBLE, requires_grad=True)
        out = spectral_map(s, amplify("sqrt", how, 3))
        out.sum().backward()
        assert out.abs().max() == 0
        assert s.grad.abs().max() == 0
        if how == "released_detached":
            continue  # its gradient is not that of its value
        s = (2 * torch.eye(3, dtype=DOUBLE)).requires_grad_()
        assert torch.autograd.gradcheck(lambda s: spectral_map(s, amplify("sqrt", how, 3)), s)  # noqa: B023


@pytest.mark.parametrize(
    ("fn", "how", "message"),
    [
        ("sqrt", "double", "unknown amplification 'double'; known: released, exp, "),
        ("sqrt", "exp(2)", "amplification 'exp' has no settings"),
        ("sqrt", "power", "amplification 'power': .*missing"),
        ("sqrt", "constant", "amplification 'constant': .*missing"),
        ("sqrt", "constant(0)", "b positive and finite, got 0"),
        ("sqrt", "released_detached(2)", "amplification 'released_detached' has no settings"),
        ("sqrt", "exp_relative(0)", "b positive and finite, got 0"),
        ("sqrt", "power(0.5)", "0 < p < 1/2, got 0.5"),
        (pade_function(), "power(0.25)", "replaces the exact square root"),
        (pade_function(), "exp", "exp needs eigenvalues as they are, and pade has them over their norm"),
        (newton_schulz_function(5), "exp", "has them over their trace; use exp_relative"),
        ("identity", "exp_relative", "needs a square root"),
        (power(0.3), "exp_relative", "needs a square root"),
        (amplify("sqrt", "exp", 4), "exp", "amplified already"),
    ],
)
def test_bad_amplifications(fn, how, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        amplify(fn, how, 4)


@pytest.mark.parametrize("rule", [r for r in list_rules() if r not in ("exact", "lyapunov", "newton", "top_n")])
def test_published_rules_differentiate_amplified_roots_too(rule):
    x = torch.randn(5, 30, dtype=DOUBLE)
    for how in ("released", "exp"):
        fn = amplify("sqrt", how, 5)
        grads = []
        for chosen in (rule, "exact"):
            features = x.clone().requires_grad_()
            covariance_map(features, fn, chosen).square().sum().backward()
            grads.append(features.grad)
        assert torch.isfinite(grads[0]).all()
        if rule in ("original", "clip", "pade_released"):
            torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-8)


def test_rules_of_the_plain_root_refuse_amplified_ones():
    with pytest.raises(ValueError, match="newton is one of the square root"):
        create_pool("svd_newton", 8, amplify="exp")
    with pytest.raises(ValueError, match="lyapunov is one of the square root"):
        create_pool("mpa", 8, amplify="exp_relative", rule="lyapunov")
    with pytest.raises(TypeError, match="amplify"):
        create_pool("gap", 8, amplify="exp")
    with pytest.raises(ValueError, match="route 'products' has the square root"):
        create_pool("isqrt_cov", 8, amplify="exp_relative", route="products")


@pytest.mark.parametrize("how", ["released", "exp", "exp_relative", "power(0.25)", "constant(1)"])
def test_amplified_roots_refuse_second_derivatives(how):
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(create_pool("mpn_cov", 4, amplify=how)(x).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="has no second derivative"):
        g.square().sum().backward()
