"""Inverses of covariances by matrix products: Newton-Schulz, and the sparse inverse of iSICE, which is made of it.

Everything here is products, sums and ReLUs of tensors, so it is differentiable as often as anyone likes.
"""

from typing import NoReturn

import torch
from torch import Tensor

from gcplib.linalg.calls import check_count, is_number
from gcplib.linalg.covariance import symmetric
from gcplib.linalg.products import product
from gcplib.linalg.tolerance import NonFiniteError, check_semidefinite, require
from gcplib.linalg.transforms import look


def newton_schulz_inverse(s: Tensor, steps: int = 7) -> Tensor:
    """Approximate the inverse of ``S`` by the square of its inverse root, that by coupled Newton-Schulz iteration.

    With ``A = S / tr(S)``: ``Y_0 = A``, ``Z_0 = I``; ``T = (3 I - Z Y) / 2``, ``Y <- Y T``, ``Z <- T Z``, and the
    inverse is ``Z Z / tr(S)``. It is bounded: an eigenvalue 0 has ``(9/4)^steps / tr(S)`` in place of infinity, so
    singular matrices need no ridge, and eigenvalues below about ``(4/9)^steps`` of the trace come out as large as that.

    Args:
        s: symmetric positive semi-definite ``(..., d, d)``. A zero matrix counts as one of trace 1.
        steps: number of iterations.

    Raises:
        ValueError: not square, symmetric and positive semi-definite, or fewer than one step.

    Source: iSICE (Rahman et al., CVPR 2023), after iSQRT-COV (Li et al., CVPR 2018).

    >>> newton_schulz_inverse(torch.eye(2), 7)
    tensor([[1.0000, 0.0000],
            [0.0000, 1.0000]])
    """
    look(check_semidefinite, s)
    check_count("the number of Newton-Schulz steps", steps)
    return _inverse(s, steps)


def _inverse(s: Tensor, steps: int) -> Tensor:
    with torch.autocast(s.device.type, enabled=False):
        t = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        t = torch.where(t != 0, t, torch.ones_like(t))
        eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
        # v = I - Z Y in place of Y: it goes to zero where the iteration has converged, so nothing cancels.
        v = eye - s / t
        z = eye + v / 2
        for _ in range(steps - 1):
            square = product(v, v)
            v = (3 * square + product(square, v)) / 4
            z = z + product(z, v) / 2
        return product(z, z) / t


def check_sparse_inverse(steps: int, step_size: float, sparsity: float, newton_steps: int) -> None:
    """Raise ``ValueError`` unless these are settings of ``sparse_inverse``."""
    check_count("the number of steps of the sparse inverse", steps, 2)
    check_count("the number of Newton-Schulz steps", newton_steps)
    if not (is_number(step_size) and step_size > 0):
        raise ValueError(f"step_size must be above 0 and finite, got {step_size!r}")
    if not (is_number(sparsity) and sparsity >= 0):
        raise ValueError(f"sparsity must be 0 or more and finite, got {sparsity!r}")


def sparse_inverse(
    s: Tensor, steps: int = 5, step_size: float = 1.0, sparsity: float = 0.01, newton_steps: int = 7
) -> Tensor:
    """Approximate the sparse inverse ``argmin over P: -log det P + tr(S P) + sparsity |P|_1`` of a covariance.

    From ``P = S^-1`` by proximal gradient steps on the positive and the negative part, with ``G = S - P^-1`` and
    ``h_i = step_size (1 - i / (steps - 1))``, i = 0, 1, ..., steps - 1:

        P+ = ReLU(ReLU(P) - h_i (G + sparsity)),  P- = ReLU(ReLU(-P) - h_i (sparsity - G)),  P <- P+ - P-.

    Inverses are those of ``newton_schulz_inverse``, so singular matrices have one. The last step has length zero and is
    not run.

    Args:
        s: ``(..., d, d)``, best of trace 1: ``step_size`` and ``sparsity`` depend on the scale.
        steps: at least 2.
        step_size: h_0, above 0.
        sparsity: of all entries, those of the diagonal included; 0 or more.
        newton_steps: of every inverse.

    Returns:
        ``(..., d, d)``, symmetric. Few steps need not reach the minimum, nor make entries zero.

    Raises:
        ValueError: a setting out of range, or not square.
        NonFiniteError: P is not finite, or its trace not positive: steps that are too large, or S is not finite.

    Source: iSICE (Rahman et al., CVPR 2023) by its released code, SICE.py.
    """
    check_sparse_inverse(steps, step_size, sparsity, newton_steps)
    with torch.autocast(s.device.type, enabled=False):
        p = _inverse(s, newton_steps)
        for i in range(steps - 1):
            h, g = step_size * (1 - i / (steps - 1)), s - _inverse(p, newton_steps)
            p = symmetric((p.relu() - h * (g + sparsity)).relu() - ((-p).relu() - h * (sparsity - g)).relu())

    def check(p: Tensor) -> None:
        ok = torch.isfinite(p).all() & (p.diagonal(dim1=-2, dim2=-1).sum(-1) > 0).all()
        require(ok, "the sparse inverse is not finite, or nothing is left of it", refuse)

    def refuse() -> NoReturn:
        settings = f"steps={steps}, step_size={step_size}, sparsity={sparsity}, newton_steps={newton_steps}"
        raise NonFiniteError(
            f"the sparse inverse of {tuple(s.shape)} is not finite, or nothing is left of it, with {settings}; "
            "give a smaller step_size, sparsity or newton_steps, if the matrices are finite"
        )

    look(check, p)
    return p
