"""Tasks of notebook 02: the weights of the gradient, the root with its gradient, and the Newton-Schulz iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]


def numbers(*values: float) -> Tensor:
    """A float64 vector, whatever the default dtype is."""
    return torch.tensor(values, dtype=torch.float64)


def spectra() -> list[tuple[Tensor]]:
    """Eigenvalues that are far apart, and a pair that is close: subtraction leaves it few digits."""
    return [(numbers(0.5, 1.0, 2.0, 8.0),), (numbers(0.7, 0.7 + 3e-14, 4.0),)]


def weights(lam: Tensor) -> Tensor:
    """A solution."""
    roots = lam.sqrt()
    return 1 / (roots[:, None] + roots)


def _by_subtraction(lam: Tensor) -> Tensor:
    roots = lam.sqrt()
    off = (roots[:, None] - roots) / (lam[:, None] - lam)
    return off.nan_to_num(0).fill_diagonal_(0) + torch.diag(1 / (2 * roots))


def covariances() -> list[tuple[Tensor, Tensor]]:
    """Covariances, two of them with equal eigenvalues, and gradients of their roots, which are not symmetric."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for lam, rotated in ((numbers(0.5, 1, 3, 8), True), (numbers(1, 1, 4), False), (numbers(2, 2, 5), True)):
        U = torch.linalg.qr(torch.randn(len(lam), len(lam), generator=generator, dtype=torch.float64))[0]
        Sigma = (U * lam) @ U.mT if rotated else torch.diag(lam)
        G = torch.randn(len(lam), len(lam), generator=generator, dtype=torch.float64)
        found.append((((Sigma + Sigma.mT) / 2).requires_grad_(), G))
    return found


def value_and_gradient(answer: Any, Sigma: Tensor, *case: Any) -> dict[str, Any]:
    """What is compared: C, and dl/dSigma where dl/dC is the last of ``case``."""
    *others, G = case
    C = getattr(answer, "apply", answer)(Sigma, *others)
    D = torch.autograd.grad(C, Sigma, G)[0]
    # A mistake that makes NaN is known by it, so the entries that are none are compared on their own.
    return {"value": C, "gradient is finite": bool(D.isfinite().all()), "gradient": D.nan_to_num(0, 0, 0)}


def value_and_symmetric_gradient(answer: Any, *case: Any) -> dict[str, Any]:
    """The same for a product of matrices, where the gradient's symmetric part is all that a covariance sees."""
    found = value_and_gradient(answer, *case)
    return found | {"gradient": _sym(found["gradient"])}


def _root(backward: Callable[[Tensor, Tensor, Tensor], Tensor]) -> type[Function]:
    """The root with a gradient from the eigenvalues, the eigenvectors and G."""

    class Root(Function):
        @staticmethod
        def forward(ctx: Any, Sigma: Tensor) -> Tensor:
            lam, U = torch.linalg.eigh(Sigma)
            ctx.save_for_backward(lam, U)
            return (U * lam.sqrt()) @ U.mT

        @staticmethod
        def backward(ctx: Any, G: Tensor) -> Tensor:
            return backward(*ctx.saved_tensors, G)

    return Root


def _sym(a: Tensor) -> Tensor:
    return (a + a.mT) / 2


def _rotated(lam: Tensor, U: Tensor, G: Tensor) -> Tensor:
    return U @ (weights(lam) * (U.mT @ _sym(G) @ U)) @ U.mT


def _by_equation(lam: Tensor, U: Tensor, G: Tensor) -> Tensor:
    one, C = torch.eye(len(lam), dtype=lam.dtype), (U * lam.sqrt()) @ U.mT
    return torch.linalg.solve(torch.kron(C, one) + torch.kron(one, C), _sym(G).flatten()).view_as(G)


def _textbook(lam: Tensor, U: Tensor, G: Tensor) -> Tensor:
    K = (1 / (lam[:, None] - lam)).fill_diagonal_(0)
    A = U.mT @ _sym(G) @ U
    inner = K.mT * (2 * A * lam.sqrt()) + torch.diag(A.diagonal() / (2 * lam.sqrt()))
    return _sym(U @ inner @ U.mT)


def steps_of() -> list[tuple[Tensor, int, Tensor]]:
    """A covariance, numbers of steps that do not converge on it, and a gradient."""
    Sigma, G = covariances()[0]
    return [(Sigma, 1, G), (Sigma, 3, G)]


def newton_schulz(Sigma: Tensor, steps: int, scale: Callable[[Tensor], Tensor] = torch.trace) -> Tensor:
    """A solution; ``scale`` for mistakes."""
    t, identity = scale(Sigma), torch.eye(len(Sigma), dtype=Sigma.dtype)
    Y, Z = Sigma / t, identity
    for _ in range(steps):
        T = (3 * identity - Z @ Y) / 2
        Y, Z = Y @ T, T @ Z
    return t.sqrt() * Y


def _on_eigenvalues(Sigma: Tensor, steps: int) -> Tensor:
    lam, U = torch.linalg.eigh(Sigma)
    t = lam.sum()
    y, z = lam / t, torch.ones_like(lam)
    for _ in range(steps):
        y, z = y * (3 - z * y) / 2, z * (3 - z * y) / 2
    return (U * y * t.sqrt()) @ U.mT


def _one_after_the_other(Sigma: Tensor, steps: int) -> Tensor:
    t, identity = Sigma.trace(), torch.eye(len(Sigma), dtype=Sigma.dtype)
    Y, Z = Sigma / t, identity
    for _ in range(steps):
        Y = Y @ (3 * identity - Z @ Y) / 2
        Z = (3 * identity - Z @ Y) / 2 @ Z
    return t.sqrt() * Y


def _inverse(Sigma: Tensor, steps: int) -> Tensor:
    return torch.linalg.solve(Sigma, newton_schulz(Sigma, steps))


TASKS = {
    "02_weights": Task(
        "Write the body of `weights`: what the entry A_ij is multiplied by.",
        weights,
        spectra,
        mistakes={
            "it has the eigenvalues in the denominator; the equation has their roots": lambda lam: (
                1 / (lam[:, None] + lam)
            ),
            "the roots are multiplied; the equation adds them": lambda lam: torch.outer(lam, lam).rsqrt(),
            "this is what A_ij is divided by; W is one over it": lambda lam: 1 / weights(lam),
            "the diagonal is not right: the formula holds for i = j as well": lambda lam: (
                weights(lam) * (1 + torch.eye(len(lam), dtype=lam.dtype))
            ),
            "only the diagonal is there; every pair of eigenvalues has a weight": lambda lam: torch.diag(
                1 / (2 * lam.sqrt())
            ),
            "it loses digits where two eigenvalues are close; nothing in the equation is a difference": _by_subtraction,
        },
        alternatives=(
            lambda lam: torch.stack([torch.stack([1 / (a.sqrt() + b.sqrt()) for b in lam]) for a in lam]),
            lambda lam: (lam.sqrt().unsqueeze(0) + lam.sqrt().unsqueeze(1)).reciprocal(),
        ),
    ),
    "02_root": Task(
        "Write `backward` of `Root`: into the basis of the eigenvectors, multiply, and back.",
        _root(_rotated),
        covariances,
        value_and_gradient,
        mistakes={
            "G is not made symmetric first: Sigma stays symmetric, and its gradient with it": _root(
                lambda lam, U, G: U @ (weights(lam) * (U.mT @ G @ U)) @ U.mT
            ),
            "it goes into the basis by U G U^T; eigenvectors are the columns of U, so it is U^T G U": _root(
                lambda lam, U, G: U.mT @ (weights(lam) * (U @ _sym(G) @ U.mT)) @ U
            ),
            "U G U^T is the way back out of the basis of the eigenvectors; U^T G U is the way into it": _root(
                lambda lam, U, G: U @ (weights(lam) * (U @ _sym(G) @ U.mT)) @ U.mT
            ),
            "it stays in the basis of the eigenvectors; go back by U ... U^T": _root(
                lambda lam, U, G: weights(lam) * (U.mT @ _sym(G) @ U)
            ),
            "only the eigenvalues move in it; the eigenvectors do as well, off the diagonal": _root(
                lambda lam, U, G: (U * ((U.mT @ G @ U).diagonal() / (2 * lam.sqrt()))) @ U.mT
            ),
            "it divides by W; the gradient of the root is multiplied by it": _root(
                lambda lam, U, G: U @ ((U.mT @ _sym(G) @ U) / weights(lam)) @ U.mT
            ),
            "it divides by differences of eigenvalues, and is not finite where two are equal": _root(_textbook),
        },
        alternatives=(_root(_by_equation),),
    ),
    "02_newton_schulz": Task(
        "Write the body of `newton_schulz`: divide by the trace, iterate, and put the trace back.",
        newton_schulz,
        steps_of,
        value_and_symmetric_gradient,
        mistakes={
            "the trace is not put back": lambda Sigma, steps: newton_schulz(Sigma, steps) / Sigma.trace().sqrt(),
            "it is multiplied by the trace; the root of Sigma grows with the root of the trace": lambda Sigma, steps: (
                newton_schulz(Sigma, steps) * Sigma.trace().sqrt()
            ),
            "it divides by the Frobenius norm; here by the trace": lambda Sigma, steps: newton_schulz(
                Sigma, steps, torch.linalg.norm
            ),
            "Y has changed when Z is computed; both are computed from the old T": _one_after_the_other,
            "it returns Z, the inverse root; the root is Y": lambda Sigma, steps: (
                _inverse(Sigma, steps) * Sigma.trace().sqrt()
            ),
            "a step is missing": lambda Sigma, steps: newton_schulz(Sigma, steps - 1),
            "it makes a step too many": lambda Sigma, steps: newton_schulz(Sigma, steps + 1),
            "the value is right, but no gradient comes through the trace": lambda Sigma, steps: newton_schulz(
                Sigma, steps, lambda a: a.detach().trace()
            ),
        },
        alternatives=(_on_eigenvalues, lambda Sigma, steps: newton_schulz(Sigma, steps, lambda a: a.diagonal().sum())),
    ),
}
