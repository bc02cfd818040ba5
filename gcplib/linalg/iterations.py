"""Square roots by matrix products alone: Newton-Schulz."""

from __future__ import annotations

import torch
from torch import Tensor

from gcplib.linalg.tolerance import raise_non_finite

__all__ = ["newton_schulz"]


def newton_schulz(s: Tensor, steps: int = 5) -> Tensor:
    """Approximate the square root of ``S`` by coupled Newton-Schulz iteration after division by the trace.

    ``Y_0 = S / tr(S)``, ``Z_0 = I``; ``T = (3 I - Z Y) / 2``, ``Y <- Y T``, ``Z <- T Z``; ``C = sqrt(tr(S)) Y``.
    With few steps this is a function of its own, not the square root: eigenvalues below about 1 % of the trace
    come out too small (34 % at 1 % of the trace, 76 % at 0.1 %, five steps), and their gradients with them.

    Args:
        s: symmetric positive semi-definite ``(..., d, d)``, floating point.
        steps: number of iterations; the papers use 5.

    Returns:
        ``(..., d, d)``; a zero matrix stays zero.

    Raises:
        ValueError: not square or fewer than one step. NonFiniteError: NaN or infinity in ``s``.

    Source: iSQRT-COV (Li et al., CVPR 2018), eqs. 1-6; ``steps=5`` is the paper's choice.
    """
    if s.dim() < 2 or s.shape[-1] != s.shape[-2]:
        raise ValueError(f"expected square matrices (..., d, d), got {tuple(s.shape)}")
    if steps < 1:
        raise ValueError(f"Newton-Schulz needs at least one step, got {steps}")
    trace = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    if not torch.isfinite(trace).all():
        raise_non_finite("matrices", s)
    # A zero matrix has no direction to normalise: divide by one instead, and its root is zero again.
    positive = trace > 0
    safe = torch.where(positive, trace, torch.ones_like(trace))
    eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    y = s / safe
    t = (3 * eye - y) / 2
    y, z = y @ t, t
    for _ in range(steps - 1):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    return y * safe.sqrt()
