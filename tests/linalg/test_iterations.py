import pytest
import torch
from pytorchcv.models.isqrtcovresnet import iSQRTCOVPool

from gcplib.linalg import NonFiniteError, covariance, newton_schulz, sqrtm, triu_vector


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


def test_gradient():
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: newton_schulz(covariance(x)), x)


def test_zero_stays_zero_with_a_finite_gradient():
    s = torch.zeros(1, 3, 3, requires_grad=True)
    out = newton_schulz(s)
    out.sum().backward()
    assert out.abs().max() == 0
    assert torch.isfinite(s.grad).all()


def test_bad_input():
    with pytest.raises(ValueError, match="at least one step, got 0"):
        newton_schulz(torch.eye(2), 0)
    with pytest.raises(ValueError, match=r"square.*\(2, 3\)"):
        newton_schulz(torch.ones(2, 3))
    with pytest.raises(NonFiniteError, match="hold 1 non-finite"):
        newton_schulz(torch.tensor([[float("nan"), 0.0], [0.0, 1.0]]))
