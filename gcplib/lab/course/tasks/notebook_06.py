"""Tasks of notebook 06: the released Scaling Eigen Branch, the one factor that it is, and the factor's derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.linalg import matrix_norm

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]

PARTS = ("the root C", "T", "the weights", "the result")


def covariances() -> list[tuple[Tensor]]:
    """Covariances of full rank, with eigenvalues on both sides of 1/2; none has a zero in it."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for size in ((2, 3, 9), (1, 5, 20)):
        x = torch.randn(*size, generator=generator, dtype=torch.float64)
        found.append((x @ x.mT / size[2],))
    return found


def _parts(answer: Any, Sigma: Tensor) -> Any:
    found = answer(Sigma)
    return dict(zip(PARTS, found, strict=True)) if isinstance(found, tuple | list) and len(found) == 4 else found


def released(Sigma: Tensor, fault: str = "") -> tuple[Tensor, ...]:
    """A solution, or with a fault a wrong one."""
    lam, U = torch.linalg.eigh(Sigma)
    root = lam if fault == "no root" else lam.sqrt()
    decay = {"of the root": (-lam.sqrt()).exp(), "grows": lam.exp()}.get(fault, (-lam).exp())
    C, S = ((U * f[:, None]) @ U.mT for f in (root, decay))
    T = C * S.mT if fault == "entries of T" else C @ S.mT
    norm = T.norm() if fault == "one norm" else matrix_norm(T, keepdim=True)
    if fault == "largest":
        norm = matrix_norm(T, 2, keepdim=True)
    weights = T / norm if fault == "no division" else T / (T / norm)
    result = C @ weights if fault == "matrices" else C * weights
    return C, T, weights, result if fault == "no root added" else result + C


def _by_loops(Sigma: Tensor) -> list[Tensor]:
    found = []
    for one in Sigma:
        lam, U = torch.linalg.eigh(one)
        C = U @ lam.sqrt().diag() @ U.T
        T = C @ torch.matrix_exp(-one).T
        weights = torch.full_like(T, T.square().sum().sqrt().item())
        found.append((C, T, weights, C * (1 + weights)))
    return [torch.stack(part) for part in zip(*found, strict=True)]


def _mistake(fault: str) -> Any:
    return lambda Sigma: released(Sigma, fault)


def spectra() -> list[tuple[Tensor]]:
    """Eigenvalues of some images, on both sides of 1/2, some of them zero."""
    generator = torch.Generator().manual_seed(0)
    lam = 2 * torch.rand(3, 6, generator=generator, dtype=torch.float64) ** 2
    return [(lam,), (torch.tensor([[3.0, 0.5, 0.1, 0.0]], dtype=torch.float64),)]


def factor(lam: Tensor) -> Tensor:
    """A solution."""
    return 1 + (lam * (-2 * lam).exp()).sum(1).sqrt()


def _factor_of_matrices(lam: Tensor) -> Tensor:
    return 1 + matrix_norm(torch.diag_embed(lam.sqrt()) @ torch.diag_embed((-lam).exp()))


def slope(lam: Tensor) -> Tensor:
    """A solution."""
    r = factor(lam)[:, None] - 1
    return (1 - 2 * lam) * (-2 * lam).exp() / (2 * r)


def _slope_by_autograd(lam: Tensor) -> Tensor:
    lam = lam.clone().requires_grad_()
    return torch.autograd.grad(factor(lam).sum(), lam)[0]


TASKS = {
    "06_released": Task(
        "Write the body of `released`: C, T, the weights and the result.",
        released,
        covariances,
        _parts,
        mistakes={
            "the root is missing: C has the square roots of the eigenvalues": _mistake("no root"),
            "S is of the roots of the eigenvalues; take exp(-lambda)": _mistake("of the root"),
            "S grows with the eigenvalues; take exp(-lambda)": _mistake("grows"),
            "T is a product of matrices, not of entries": _mistake("entries of T"),
            "the norm is that of the whole batch; each image has its own": _mistake("one norm"),
            "the norm is the largest singular value; take Frobenius's": _mistake("largest"),
            "the weights are T / |T|; the released code divides T by that": _mistake("no division"),
            "C and the weights are multiplied entry by entry, not as matrices": _mistake("matrices"),
            "the root is not added at the end": _mistake("no root added"),
        },
        alternatives=(_by_loops,),
    ),
    "06_factor": Task(
        "Write the body of `released_factor`: 1 and the norm of T, from eigenvalues.",
        factor,
        spectra,
        mistakes={
            "it is the norm alone; the factor is 1 more": lambda lam: factor(lam) - 1,
            "the norm is squared; take its root": lambda lam: 1 + (factor(lam) - 1).square(),
            "exp(-lambda) is squared in the norm, too: exp(-2 lambda)": lambda lam: (
                1 + (lam * (-lam).exp()).sum(1).sqrt()
            ),
            "lambda is the square of the root already; do not square it again": lambda lam: (
                1 + (lam.square() * (-2 * lam).exp()).sum(1).sqrt()
            ),
            "it is the sum of the singular values; take the root of the sum of squares": lambda lam: (
                1 + (lam.sqrt() * (-lam).exp()).sum(1)
            ),
            "it is the largest singular value; take the root of the sum of squares": lambda lam: (
                1 + (lam.sqrt() * (-lam).exp()).amax(1)
            ),
            "the sum is over the images; each image has its own factor": lambda lam: factor(lam.T),
        },
        alternatives=(_factor_of_matrices,),
    ),
    "06_slope": Task(
        "Write the body of `released_factor_slope`: the derivative of the factor by each eigenvalue.",
        slope,
        spectra,
        mistakes={
            "it is the derivative of the square of r; divide by 2 r": lambda lam: (1 - 2 * lam) * (-2 * lam).exp(),
            "2 is missing: the derivative of r is that of its square over 2 r": lambda lam: 2 * slope(lam),
            "the product rule is missing: lambda stands before exp as well": lambda lam: (
                -2 * lam * (-2 * lam).exp() / (2 * (factor(lam)[:, None] - 1))
            ),
            "the inner derivative is missing: that of exp(-2 lambda) is -2 exp(-2 lambda)": lambda lam: (
                (1 - lam) * (-2 * lam).exp() / (2 * (factor(lam)[:, None] - 1))
            ),
            "the sign is that of a sum; it is negative above 1/2": lambda lam: (
                (1 + 2 * lam) * (-2 * lam).exp() / (2 * (factor(lam)[:, None] - 1))
            ),
            "r is the factor less 1": lambda lam: (1 - 2 * lam) * (-2 * lam).exp() / (2 * factor(lam)[:, None]),
        },
        alternatives=(_slope_by_autograd,),
    ),
}
