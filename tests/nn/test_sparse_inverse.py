"""The pool of iSICE; its mathematics is tested with ``gcplib.linalg.sparse_inverse``."""

import copy
import pickle

import pytest
import torch

from gcplib import create_pool
from gcplib.linalg import NonFiniteError, covariance, sparse_inverse, triu_vector
from gcplib.nn import SparseInversePool

DOUBLE = torch.float64


def test_the_pool_is_its_definition():
    x = torch.randn(3, 6, 3, 4, dtype=DOUBLE)
    for options in ({}, {"steps": 3, "step_size": 2.0, "sparsity": 0.1, "newton_steps": 5}):
        want = []
        for image in x:
            c = covariance(image.flatten(1))
            p = sparse_inverse(c / c.trace(), **options)
            want.append(triu_vector(p / p.trace().sqrt()))
        torch.testing.assert_close(SparseInversePool(6, **options)(x), torch.stack(want))


def test_without_sparsity_it_is_the_inverse():
    x = torch.randn(2, 4, 8, 8, dtype=DOUBLE)
    inverse = torch.linalg.inv(covariance(x.flatten(2)))
    trace, total = (m.diagonal(dim1=1, dim2=2).sum(1)[:, None] for m in (covariance(x.flatten(2)), inverse))
    # With C of trace 1 its inverse is tr(C) times as large, and the root of its trace divides it.
    want = triu_vector(inverse) * (trace / total).sqrt()
    torch.testing.assert_close(SparseInversePool(4, sparsity=0.0, newton_steps=30)(x), want)


def test_scale_and_means_do_not_matter():
    x, pool = torch.randn(2, 6, 4, 4, dtype=DOUBLE), SparseInversePool(6)
    torch.testing.assert_close(pool(1e-3 * x + 5), pool(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (1, 3)], ids=["many positions", "few positions"])
def test_gradcheck(size):
    x = torch.randn(2, 4, *size, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(SparseInversePool(4, steps=3, newton_steps=4), x)


def test_views_pool_the_mean_of_their_covariances():
    x, pool = torch.randn(2, 8, 6, 4, 4, dtype=DOUBLE), SparseInversePool(6)
    mean = covariance(x.flatten(3)).mean(1)
    p = sparse_inverse(mean / mean.diagonal(dim1=1, dim2=2).sum(1)[:, None, None])
    want = triu_vector(p / p.diagonal(dim1=1, dim2=2).sum(1).sqrt()[:, None, None])
    torch.testing.assert_close(pool(x), want)


def test_precisions_empty_batches_constant_images_and_copies():
    pool, x = SparseInversePool(6), torch.randn(2, 6, 4, 4)
    assert pool(x.half()).dtype == torch.float32
    torch.testing.assert_close(SparseInversePool(6, compute_dtype="float64")(x), pool(x), rtol=1e-4, atol=1e-4)
    assert pool(x[:0]).shape == (0, 21)
    constant = torch.ones(2, 6, 4, 4, requires_grad=True)
    out = pool(constant)
    out.sum().backward()
    assert torch.isfinite(constant.grad).all()
    # Of a zero matrix the inverse is a multiple of the identity.
    assert out[:, 1:6].abs().max() < 0.05 * out[:, 0].min()
    for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert torch.equal(other(x), pool(x))
        assert repr(other) == repr(pool)


def test_compiles_in_one_graph():
    torch._dynamo.reset()
    pool, x = SparseInversePool(6, steps=2, newton_steps=3), torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(torch.compile(pool, backend="aot_eager", fullgraph=True)(x), pool(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "integer from 2, got 1"),
        ({"step_size": -1.0}, "step_size must be above 0 and finite, got -1.0"),
        ({"sparsity": float("inf")}, "sparsity must be 0 or more and finite, got inf"),
        ({"newton_steps": 2.5}, "integer from 1, got 2.5"),
        ({"newton_step": 3}, "unknown option 'newton_step'; did you mean 'newton_steps'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        create_pool("isice", 8, **options)


def test_what_is_not_finite_is_refused():
    x = torch.randn(2, 4, 3, 3)
    x[0, 1, 1, 1] = float("inf")
    with pytest.raises(NonFiniteError, match="1 non-finite"):
        SparseInversePool(4)(x)
    with pytest.raises(NonFiniteError, match="nothing is left of it"):
        SparseInversePool(4, sparsity=500.0)(torch.randn(2, 4, 3, 3))
