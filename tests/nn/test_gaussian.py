import pytest
import scipy.linalg
import torch

from gcplib import create_pool
from gcplib.linalg import NonFiniteError, covariance, gaussian_embedding, newton_schulz, newton_schulz_function
from gcplib.nn import GaussianPool

DOUBLE = torch.float64


def maps(channels, height, width, batch=2, dtype=DOUBLE):
    """Feature maps with a mean, as those behind a ReLU have."""
    return 1 + torch.randn(batch, channels, height, width, dtype=dtype)


def full(vectors, size):
    """The symmetric matrices of upper triangles."""
    row, column = torch.triu_indices(size, size)
    out = vectors.new_zeros(len(vectors), size, size)
    out[:, row, column] = vectors
    return out + out.triu(1).mT


def relative(got, want):
    return float((got.double() - want).norm() / want.norm())


def test_one_channel_in_closed_form():
    # P = [[a, m], [m, 1]] with a = s + m^2 and determinant s: P^(1/2) = (P + sqrt(s) I) / sqrt(a + 1 + 2 sqrt(s)).
    x = maps(1, 3, 4)
    s, m = x.flatten(1).var(1, unbiased=False), x.flatten(1).mean(1)
    a, root = s + m**2, s.sqrt()
    want = torch.stack([a + root, m, 1 + root], dim=1) / (a + 1 + 2 * root).sqrt()[:, None]
    torch.testing.assert_close(GaussianPool(1)(x), want)


@pytest.mark.parametrize("size", [(5, 4, 5), (3, 2, 2), (1, 7, 7)])
def test_the_root_of_the_dense_definition(size):
    x = maps(*size)
    flat, channels = x.flatten(2), size[0]
    got = full(GaussianPool(channels)(x), channels + 1)
    for root, features in zip(got, flat, strict=True):
        m, s = features.mean(1), torch.cov(features, correction=0).reshape(channels, channels)
        p = torch.cat([torch.cat([s + torch.outer(m, m), m[:, None]], 1), torch.cat([m, m.new_ones(1)])[None]])
        torch.testing.assert_close(root, torch.from_numpy(scipy.linalg.sqrtm(p.numpy())))


@pytest.mark.parametrize("route", ["auto", "full", "thin", "svd"])
@pytest.mark.parametrize("size", [(5, 4, 5), (9, 2, 2)])
def test_its_square_holds_mean_and_covariance(size, route):
    x = maps(*size)
    root = full(GaussianPool(size[0], route=route)(x), size[0] + 1)
    square, flat = root @ root, x.flatten(2)
    mean = flat.mean(2)
    torch.testing.assert_close(square[:, :-1, -1], mean)
    torch.testing.assert_close(square[:, -1, -1], torch.ones(2, dtype=DOUBLE))
    torch.testing.assert_close(square[:, :-1, :-1] - mean[:, :, None] * mean[:, None], covariance(flat))
    torch.testing.assert_close(square, gaussian_embedding(flat))


@pytest.mark.parametrize("size", [(4, 3, 4), (6, 2, 2)])
def test_gradcheck_on_every_route(size):
    x = maps(*size, batch=1).requires_grad_()
    for route in ("full", "thin", "svd"):
        assert torch.autograd.gradcheck(GaussianPool(size[0], route=route), x)


def test_functions_and_rules():
    x = maps(4, 5, 5)
    p = gaussian_embedding(x.flatten(2))
    torch.testing.assert_close(full(GaussianPool(4, fn="identity")(x), 5), p)
    got = full(GaussianPool(4, fn=newton_schulz_function(5))(x), 5)
    torch.testing.assert_close(got, newton_schulz(p, 5))
    pool = create_pool("gaussian", 4, rule="taylor(9)", compute_dtype="float64")
    assert (pool.rule.name, pool(x.float()).dtype) == ("taylor(9)", torch.float32)
    torch.testing.assert_close(pool(x), GaussianPool(4)(x))


def test_few_positions_are_decomposed_at_their_own_size(monkeypatch):
    seen, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda s: seen.append(s.shape) or eigh(s))
    GaussianPool(20)(maps(20, 2, 3))
    GaussianPool(5)(maps(5, 2, 3))
    assert seen == [(2, 6, 6), (2, 6, 6)]


def test_rank_is_that_of_the_covariance_and_one():
    root = full(GaussianPool(12)(maps(12, 2, 3)), 13)
    assert torch.linalg.matrix_rank(root).tolist() == [6, 6]


def test_constant_features_have_a_root_of_rank_one_and_a_finite_gradient():
    # No covariance is left: P = z z^T with z = (m, 1), and P^(1/2) = z z^T / |z|.
    x = torch.full((2, 3, 4, 4), 2.0, dtype=DOUBLE, requires_grad=True)
    pool = GaussianPool(3)
    z = torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=DOUBLE)
    want = torch.outer(z, z) / z.norm()
    torch.testing.assert_close(full(pool(x), 4), want.expand(2, 4, 4))
    (grad,) = torch.autograd.grad(pool(x).sum(), x)
    assert torch.isfinite(grad).all()
    assert grad.abs().min() > 0
    zero = torch.zeros(1, 3, 2, 2, dtype=DOUBLE)
    torch.testing.assert_close(full(pool(zero), 4)[0], torch.diag(torch.tensor([0.0, 0, 0, 1], dtype=DOUBLE)))


@pytest.mark.parametrize(("size", "bound"), [((24, 14, 14), 1e-4), ((48, 5, 5), 1e-3)])
def test_float32_against_float64(size, bound):
    x = torch.relu(torch.randn(4, *size, dtype=DOUBLE))
    pool, results = GaussianPool(size[0]), []
    g = torch.randn(4, pool.out_features, dtype=DOUBLE)
    for features in (x.float().requires_grad_(), x.clone().requires_grad_()):
        out = pool(features)
        results.append((out.detach(), torch.autograd.grad(out, features, g.to(out.dtype))[0]))
    (got, got_grad), (want, want_grad) = results
    assert relative(got, want) < 1e-5
    assert relative(got_grad, want_grad) < bound


def test_views_are_pooled_by_the_mean_of_their_embeddings():
    x = maps(3, 4, 4, batch=6).unflatten(0, (2, 3))
    p = gaussian_embedding(x.flatten(3)).mean(1)
    torch.testing.assert_close(full(GaussianPool(3, fn="identity")(x), 4), p)


def test_sizes_and_reduction():
    pool = create_pool("gaussian", 112, reduction=(96, 64))
    assert pool.out_features == 65 * 66 // 2
    assert pool.eval()(torch.rand(2, 112, 3, 3)).shape == (2, pool.out_features)


def test_what_cannot_work_is_said():
    with pytest.raises(ValueError, match="GaussianPool needs at least 2 positions, got a map of 1 x 1"):
        GaussianPool(3)(maps(3, 1, 1))
    with pytest.raises(ValueError, match="gradient rule taylor needs the full one"):
        GaussianPool(3, rule="taylor", route="thin")
    with pytest.raises(ValueError, match="unknown spectral function 'cube'"):
        GaussianPool(3, fn="cube")
    with pytest.raises(TypeError, match=r"pool 'gaussian'.*amplify"):
        create_pool("gaussian", 3, amplify="exp")
    x = maps(3, 2, 2)
    x[0, 1, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"hold 1 non-finite values, the first one at \(0, 1, 0\)"):
        GaussianPool(3)(x)
