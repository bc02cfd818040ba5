import pytest
import scipy.linalg
import torch

from gcplib.linalg import NonFiniteError, covariance_map, power, second_moment

DOUBLE = torch.float64
ROUTES = ["full", "thin", "svd"]
SIZES = [(5, 40), (12, 5), (6, 6), (4, 1)]


def gradient(x, g, **options):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(covariance_map(x, centered=False, **options), x, g)[0]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("size", SIZES)
def test_the_root_of_the_second_moment(size, route):
    x = 1 + torch.randn(2, *size, dtype=DOUBLE)
    root = covariance_map(x, route=route, centered=False)
    torch.testing.assert_close(root @ root, second_moment(x))
    torch.testing.assert_close(covariance_map(x, "identity", route=route, centered=False), second_moment(x))
    want = scipy.linalg.sqrtm(second_moment(x)[0].numpy()) if size[0] < size[1] else None
    if want is not None:
        torch.testing.assert_close(root[0], torch.from_numpy(want))


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_covariance_of_the_features_and_their_negatives(size):
    # Side by side these have mean zero, so that centering does nothing.
    x, g = 1 + torch.randn(2, *size, dtype=DOUBLE), torch.randn(2, size[0], size[0], dtype=DOUBLE)
    twin = x.clone().requires_grad_()
    root = covariance_map(torch.cat([twin, -twin], dim=-1), route="full")
    (want,) = torch.autograd.grad(root, twin, g)
    for route in (*ROUTES, "auto"):
        torch.testing.assert_close(covariance_map(x, route=route, centered=False), root.detach())
        torch.testing.assert_close(gradient(x, g, route=route), want)


@pytest.mark.parametrize("fn", ["sqrt", power(0.3), power(2.0)], ids=str)
@pytest.mark.parametrize("route", ROUTES)
def test_gradcheck(fn, route):
    for size in ((4, 9), (6, 3)):
        x = (1 + torch.randn(*size, dtype=DOUBLE)).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: covariance_map(x, fn, route=route, centered=False), x)


def test_the_gradient_is_not_centered():
    x, g = torch.randn(3, 8, dtype=DOUBLE), torch.eye(3, dtype=DOUBLE)
    for route in ROUTES:
        assert gradient(x, g, route=route).mean(-1).abs().min() > 1e-3


@pytest.mark.parametrize("fn", ["sqrt", "identity"])
def test_non_finite_features_and_overflow_are_said(fn):
    x = torch.randn(2, 4, 9)
    with pytest.raises(NonFiniteError, match=r"second moment overflows torch.float32"):
        covariance_map(1e30 * x, fn, centered=False)
    x[1, 2, 3] = float("nan")
    with pytest.raises(NonFiniteError, match=r"hold 1 non-finite values.*\(1, 2, 3\)"):
        covariance_map(x, fn, centered=False)
