"""Inverses by products, beside coupled iterations and optimality conditions written out in numpy."""

import numpy as np
import pytest
import torch

from gcplib.linalg import NonFiniteError, covariance, newton_schulz_inverse, sparse_inverse

DOUBLE = torch.float64


def matrices(channels, positions, batch=3, seed=0):
    """Covariances of trace 1."""
    torch.manual_seed(seed)
    s = covariance(torch.randn(batch, channels, positions, dtype=DOUBLE))
    return s / s.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]


def coupled(s, steps):
    """The square of the inverse root, with Y and Z as published."""
    trace, eye = np.trace(s), np.eye(len(s))
    y, z = s / trace, eye
    for _ in range(steps):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    z = z / np.sqrt(trace)
    return z @ z


def published(s, steps, step_size, sparsity, newton_steps):
    """iSICE entry by entry, its last step of length zero included; without the random ridge of the released code."""
    p = coupled(s, newton_steps)
    for i in range(steps):
        g = s - coupled(p, newton_steps)
        h = step_size * (1 - i / (steps - 1))
        new = np.empty_like(p)
        for j in np.ndindex(p.shape):
            plus, minus = max(p[j], 0), max(-p[j], 0)
            new[j] = max(plus - h * (g[j] + sparsity), 0) - max(minus - h * (-g[j] + sparsity), 0)
        p = (new + new.T) / 2
    return p


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("size", [(5, 30), (8, 5)], ids=["regular", "singular"])
def test_the_inverse_is_that_of_the_coupled_iteration(size, steps):
    s = matrices(*size) * torch.tensor([0.1, 1, 7], dtype=DOUBLE)[:, None, None]
    want = torch.stack([torch.from_numpy(coupled(m.numpy(), steps)) for m in s])
    torch.testing.assert_close(newton_schulz_inverse(s, steps), want, rtol=1e-8, atol=1e-8)


def test_with_many_steps_it_is_the_inverse():
    s = matrices(6, 60)
    torch.testing.assert_close(newton_schulz_inverse(s, 30), torch.linalg.inv(s), rtol=1e-9, atol=1e-9)


def test_closed_forms_of_the_inverse():
    # Of an eigenvalue 0, each step makes 3/2 of Z; a zero matrix counts as one of trace 1.
    s = torch.diag(torch.tensor([4.0, 0.0], dtype=DOUBLE))
    want = torch.diag(torch.tensor([1 / 4, (9 / 4) ** 5 / 4], dtype=DOUBLE))
    torch.testing.assert_close(newton_schulz_inverse(s, 5), want)
    zero = torch.zeros(2, 2, dtype=DOUBLE)
    torch.testing.assert_close(newton_schulz_inverse(zero, 5), (9 / 4) ** 5 * torch.eye(2, dtype=DOUBLE))


@pytest.mark.parametrize("settings", [(5, 1.0, 0.01, 7), (2, 0.5, 0.0, 7), (4, 5.0, 0.07, 3)], ids=str)
@pytest.mark.parametrize("size", [(5, 30), (8, 5)], ids=["regular", "singular"])
def test_the_sparse_inverse_is_the_published_one(size, settings):
    s = matrices(*size)
    want = torch.stack([torch.from_numpy(published(m.numpy(), *settings)) for m in s])
    got = sparse_inverse(s, *settings)
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)
    assert torch.equal(got, got.mT)


def test_without_sparsity_it_stays_at_the_inverse():
    s = matrices(5, 50)
    torch.testing.assert_close(sparse_inverse(s, sparsity=0, newton_steps=30), torch.linalg.inv(s))


def test_many_steps_reach_the_minimum():
    """The conditions of the minimum: the gradient is -sparsity times the sign, or within it where an entry is zero."""
    s, sparsity = matrices(4, 40), 0.02
    p = sparse_inverse(s, steps=2000, step_size=4.0, sparsity=sparsity, newton_steps=20)
    gradient, zero = s - torch.linalg.inv(p), p == 0
    assert zero.any()
    assert (~zero).any()
    torch.testing.assert_close(gradient[~zero], -sparsity * p.sign()[~zero], rtol=0, atol=1e-6)
    assert gradient[zero].abs().max() <= sparsity + 1e-6


@pytest.mark.parametrize("size", [(4, 12), (4, 3)], ids=["regular", "singular"])
def test_gradients_of_first_and_second_order(size):
    x = matrices(*size, batch=2)

    def of_symmetric(function):
        return lambda s: function((s + s.mT) / 2)

    for function in (lambda s: newton_schulz_inverse(s, 4), lambda s: sparse_inverse(s, 3, newton_steps=4)):
        assert torch.autograd.gradcheck(of_symmetric(function), x.clone().requires_grad_())
    second = of_symmetric(lambda s: newton_schulz_inverse(s, 3))
    assert torch.autograd.gradgradcheck(second, x.clone().requires_grad_())


def test_each_matrix_by_itself_under_vmap():
    s = matrices(4, 12)
    torch.testing.assert_close(torch.func.vmap(newton_schulz_inverse)(s), newton_schulz_inverse(s))


def test_leading_dimensions_empty_batches_and_single_precision():
    s = matrices(4, 12, batch=6)
    for function in (newton_schulz_inverse, sparse_inverse):
        want = function(s)
        torch.testing.assert_close(function(s.unflatten(0, (2, 3))).flatten(0, 1), want)
        torch.testing.assert_close(function(s[0]), want[0])
        torch.testing.assert_close(function(s.float()), want.float(), rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            under_autocast = function(s.float())
        assert torch.equal(under_autocast, function(s.float()))
        assert function(s[:0]).shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 1}, "steps of the sparse inverse must be an integer from 2, got 1"),
        ({"newton_steps": 0}, "Newton-Schulz steps must be an integer from 1, got 0"),
        ({"step_size": 0}, "step_size must be above 0 and finite, got 0"),
        ({"step_size": float("inf")}, "got inf"),
        ({"sparsity": -0.1}, "sparsity must be 0 or more and finite, got -0.1"),
        ({"sparsity": float("nan")}, "got nan"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        sparse_inverse(matrices(4, 12), **settings)


def test_what_cannot_be_inverted_and_wrong_shapes_are_told():
    # An eigenvalue 0 has (9/4)^120 in place of infinity, which is above the largest number of float32.
    with pytest.raises(NonFiniteError, match=r"\(3, 8, 8\) is not finite.*newton_steps=120; give a smaller"):
        sparse_inverse(matrices(8, 5).float(), newton_steps=120)
    # One step that takes more from every entry than there is.
    with pytest.raises(NonFiniteError, match=r"nothing is left of it, with steps=2, step_size=100\.0, sparsity=50\.0"):
        sparse_inverse(matrices(6, 60), steps=2, step_size=100.0, sparsity=50.0)
    with pytest.raises(NonFiniteError, match="if the matrices are finite"):
        sparse_inverse(torch.full((3, 3), float("nan")))
    with pytest.raises(ValueError, match=r"expected square matrices \(\.\.\., d, d\), got \(2, 3\)"):
        newton_schulz_inverse(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="not positive semi-definite"):
        newton_schulz_inverse(torch.diag(torch.tensor([1.0, -0.1])))
    with pytest.raises(NonFiniteError, match="4 non-finite"):
        newton_schulz_inverse(torch.eye(2) * float("inf"))
    with pytest.raises(ValueError, match="must be an integer from 1, got 0"):
        newton_schulz_inverse(torch.eye(2), 0)
