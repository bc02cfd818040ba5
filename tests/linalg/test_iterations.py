import numpy as np
import pytest
import torch
from pytorchcv.models.isqrtcovresnet import NewtonSchulzSqrt, iSQRTCOVPool
from torch.utils._python_dispatch import TorchDispatchMode

from gcplib.linalg import (
    NonFiniteError,
    accelerated_function,
    covariance,
    newton_schulz,
    newton_schulz_function,
    pade_function,
    pade_root,
    spectral_map,
    sqrtm,
    taylor_function,
    taylor_root,
    triu_vector,
)
from gcplib.linalg.roots import map_by_products

DOUBLE = torch.float64


class Products(TorchDispatchMode):
    """Counts batched products of square matrices."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default):
            first = args[-2]
            self.count += first.shape[-1] == first.shape[-2]
        return func(*args, **(kwargs or {}))


def cost(function, s):
    """Return square products forward and backward, and bytes saved between, in matrices the size of ``s``."""
    s, stored = s.clone().requires_grad_(), {}

    def pack(tensor):
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with Products() as forward, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(s)
    with Products() as backward:
        torch.autograd.grad(out, s, torch.randn_like(out))
    return forward.count, backward.count, sum(stored.values()) / (s.numel() * s.element_size())


def test_gradient_takes_fewer_products_and_half_the_memory_of_the_published_recursion():
    s = covariance(torch.randn(2, 32, 64))
    theirs = cost(lambda s: NewtonSchulzSqrt.apply(s, 5), s)
    ours = cost(newton_schulz, s)
    assert ours[0] == theirs[0] == 12
    assert (ours[1], theirs[1]) == (25, 40)
    assert ours[2] < 0.5 * theirs[2]


def test_values_and_feature_gradient_are_pytorchcvs():
    x = torch.randn(3, 8, 6, 6, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = triu_vector(newton_schulz(covariance(ours.flatten(2)), steps=5))
    want = iSQRTCOVPool(num_iter=5)(theirs).flatten(1)
    torch.testing.assert_close(got, want)
    g = torch.randn_like(got)
    # Only the gradient of the features is comparable: theirs of the covariance is transposed.
    torch.testing.assert_close(torch.autograd.grad(got, ours, g)[0], torch.autograd.grad(want, theirs, g)[0])


def test_more_steps_converge_to_the_square_root():
    s = covariance(torch.randn(6, 100, dtype=torch.float64))
    errors = [(newton_schulz(s, steps) - sqrtm(s)).norm().item() for steps in (3, 6, 12)]
    assert errors[0] > 10 * errors[1]
    assert errors[2] < 1e-10


# What five steps really compute, per eigenvalue over the trace: a damping of small eigenvalues.
@pytest.mark.parametrize(("lam", "want"), [(1e-1, 0.3154), (1e-2, 0.0659), (1e-3, 0.00748)])
def test_small_eigenvalues_are_damped(lam, want):
    s = torch.diag(torch.tensor([1 - lam, lam], dtype=torch.float64))
    assert newton_schulz(s, 5)[1, 1].item() == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize("size", [(4, 9), (6, 4)])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_gradient(steps, size):
    x = torch.randn(2, *size, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: newton_schulz(covariance(x), steps), x)
    assert torch.autograd.gradcheck(lambda x: map_by_products(covariance(x), accelerated_function(steps)), x)


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_accelerated_steps_are_their_function(steps):
    x, g = torch.randn(2, 5, 12, dtype=DOUBLE), torch.randn(2, 5, 5, dtype=DOUBLE)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = map_by_products(covariance(ours), accelerated_function(steps, 1e-2))
    want = spectral_map(covariance(theirs), accelerated_function(steps, 1e-2))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, ours, g)[0], torch.autograd.grad(want, theirs, g)[0])


@pytest.mark.parametrize("smallest", [1e-1, 1e-2, 1e-3, 1e-4])
def test_accelerated_steps_reach_an_accuracy_in_fewer_steps(smallest):
    x = torch.logspace(np.log10(smallest), 0, 2000, dtype=DOUBLE)

    def error(fn):
        return float((fn.value(x) / x.sqrt() - 1).abs().max())

    # The error of the best composition is the same at both ends of its range: that is what makes it the best.
    fn = accelerated_function(3, smallest)
    assert 1 - fn.value(x[0]) / x[0].sqrt() == pytest.approx(error(fn), rel=1e-6)
    steps = next(n for n in range(1, 30) if error(newton_schulz_function(n)) < 1e-2)
    assert error(accelerated_function(round(0.7 * steps), smallest)) < 1e-2


@pytest.mark.parametrize(("root", "fn"), [(taylor_root, taylor_function()), (pade_root, pade_function())])
@pytest.mark.parametrize("size", [(5, 12), (6, 4)])
def test_taylor_and_pade_by_products_are_their_functions(root, fn, size):
    x, g = torch.randn(2, *size, dtype=DOUBLE), torch.randn(2, size[0], size[0], dtype=DOUBLE)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, want = root(covariance(ours)), spectral_map(covariance(theirs), fn)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, ours, g)[0], torch.autograd.grad(want, theirs, g)[0])


@pytest.mark.parametrize(("root", "fn"), [(taylor_root, taylor_function()), (pade_root, pade_function())])
def test_taylor_and_pade_of_zero_and_of_tiny_matrices(root, fn):
    s = covariance(torch.randn(4, 30))
    for found in (root, lambda s: spectral_map(s, fn)):
        assert found(torch.zeros(2, 3, 3)).abs().max() == 0
        # The squares of such numbers are zero in float32.
        torch.testing.assert_close(found(1e-30 * s) * 1e15, found(s), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("root", [newton_schulz, taylor_root, pade_root])
def test_autocast_changes_nothing(root):
    x = torch.randn(2, 4, 9, requires_grad=True)
    want = root(covariance(x))
    with torch.autocast("cpu", torch.bfloat16):
        got = root(covariance(x))
    assert torch.equal(got, want)


def test_float32_is_close_to_float64():
    x, g = torch.randn(2, 48, 60, dtype=DOUBLE), torch.randn(2, 48, 48, dtype=DOUBLE)
    found = []
    for dtype in (torch.float32, DOUBLE):
        y = x.to(dtype).requires_grad_()
        out = newton_schulz(covariance(y))
        found.append((out.double(), torch.autograd.grad(out, y, g.to(dtype))[0].double()))
    for single, double in zip(*found, strict=True):
        assert (single - double).norm() < 1e-5 * double.norm()


def test_zero_stays_zero_with_a_finite_gradient():
    s = torch.zeros(1, 3, 3, requires_grad=True)
    out = newton_schulz(s)
    out.sum().backward()
    assert out.abs().max() == 0
    assert torch.isfinite(s.grad).all()


def test_bad_input():
    with pytest.raises(ValueError, match="steps must be an integer from 1, got 0"):
        newton_schulz(torch.eye(2), 0)
    with pytest.raises(ValueError, match=r"square.*\(2, 3\)"):
        newton_schulz(torch.ones(2, 3))
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        accelerated_function(smallest=2)
    with pytest.raises(ValueError, match="terms must be an integer from 1"):
        taylor_root(torch.eye(2), 0)
    with pytest.raises(TypeError, match=r"bfloat16; convert .* to one of torch.float32"):
        pade_root(torch.eye(2, dtype=torch.bfloat16))
    for root in (newton_schulz, taylor_root, pade_root):
        with pytest.raises(TypeError, match=r"float16; convert .* to one of torch.float32"):
            root(torch.eye(2).half())
        for indefinite in ([[1.0, 0.0], [0.0, -0.1]], [[1.0, 2.0], [2.0, 1.0]]):
            with pytest.raises(ValueError, match=r"\(2, 2, 2\) are not positive semi-definite: number 1 "):
                root(torch.stack([torch.eye(2), torch.tensor(indefinite)]))
    with pytest.raises(ValueError, match="not positive semi-definite"):
        spectral_map(torch.diag(torch.tensor([1.0, -0.1])), route="products")
    off_diagonal = torch.eye(3).expand(2, 4, 3, 3).clone()
    off_diagonal[1, 2, 0, 1] = float("nan")
    for root in (newton_schulz, taylor_root, pade_root):
        with pytest.raises(NonFiniteError, match=r"hold 1 non-finite values.*\(1, 2, 0, 1\)"):
            root(off_diagonal)
    with pytest.raises(NonFiniteError, match="hold 1 non-finite"):
        newton_schulz(torch.tensor([[float("nan"), 0.0], [0.0, 1.0]]))
