"""Eigenvectors are eigenvectors: solvers for GPUs have returned orthonormal ones that belong to another matrix."""

import pytest
import torch

from gcplib.linalg.eigen import eigh

pytestmark = pytest.mark.cuda

# Backward stable solvers stay below about d eps; vectors of another matrix are off by hundredths and more.
FACTOR = 8
COUNT = 8


def _random(d, dtype):
    return torch.randn(COUNT, d, 2 * d, dtype=dtype)


MATRICES = {
    "covariances": _random,
    "rank one": lambda d, dtype: torch.randn(COUNT, d, 1, dtype=dtype),
    "rank deficient": lambda d, dtype: torch.randn(COUNT, d, max(2, d // 4), dtype=dtype),
    "spread over 1e6": lambda d, dtype: _random(d, dtype) * torch.logspace(0, -3, d, dtype=dtype)[:, None],
    "null": lambda d, dtype: torch.zeros(COUNT, d, 2, dtype=dtype),
    "repeated": lambda d, dtype: torch.eye(d, dtype=dtype).repeat(COUNT, 1, 1),
    "dead channels": lambda d, dtype: _random(d, dtype) * (torch.arange(d) % 3 > 0)[:, None],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("d", [16, 32, 33, 64, 128, 256])
def test_residual_and_orthogonality(d, dtype, device, record_property):
    worst = 0.0
    for name, make in MATRICES.items():
        x = make(d, dtype)
        s = (x @ x.mT / x.shape[-1]).to(device)
        lam, v = eigh(s)
        assert (lam.diff() >= 0).all(), name
        # In float64, so that the check itself adds nothing.
        s, lam, v = (value.double() for value in (s, lam, v))
        scale = torch.linalg.matrix_norm(s, 2).clamp(min=1e-30)
        residual = (torch.linalg.matrix_norm(s @ v - v * lam.unsqueeze(-2)) / scale).max().item()
        eye = torch.eye(d, dtype=torch.float64, device=device)
        apart = torch.linalg.matrix_norm(v.mT @ v - eye).max().item()
        bound = FACTOR * d * torch.finfo(dtype).eps
        assert residual < bound, name
        assert apart < bound, name
        worst = max(worst, residual)
    record_property(f"residual |S V - V L| / |S|, d = {d}, {dtype}".replace("torch.", ""), f"{worst:.1e}")
