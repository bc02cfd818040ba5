"""Tasks of notebook 05: a root in parts, its score spread over eigenvalues and positions, and Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]


def drawn(*sizes: int, seed: int = 0) -> Tensor:
    """Return normal numbers, the same in every call."""
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sets() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Values of eigenvalues, eigenvectors as columns, and some of them: two of four, one of five, three of six."""
    found = []
    for d, chosen in ((4, [1, 2]), (5, [4]), (6, [0, 1, 2])):
        mask = torch.zeros(d, dtype=torch.bool)
        mask[chosen] = True
        found.append((drawn(d).abs() + 0.5, torch.linalg.qr(drawn(d, d)).Q, mask))
    return found


def root_of_set(f: Tensor, U: Tensor, chosen: Tensor) -> Tensor:
    """A solution."""
    return U[:, chosen] * f[chosen] @ U[:, chosen].T


def _root_in_a_loop(f: Tensor, U: Tensor, chosen: Tensor) -> Tensor:
    return sum(f[i] * torch.outer(U[:, i], U[:, i]) for i in range(len(f)) if chosen[i])


def decompositions() -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Centered features, eigenvectors, gains f / lam (one is zero), and the weights of a class."""
    found = []
    for d, M in ((4, 9), (5, 6)):
        X = drawn(d, M, seed=d)
        Xc = X - X.mean(1, keepdim=True)
        lam, U = torch.linalg.eigh(Xc @ Xc.T / M)
        gain = lam.rsqrt()
        gain[0] = 0
        V = drawn(d, d, seed=d + 1)
        found.append((Xc, U, gain, V + V.T))
    return found


def terms(Xc: Tensor, U: Tensor, gain: Tensor, V: Tensor) -> Tensor:
    """A solution."""
    return gain[:, None] * (U.T @ Xc) * (U.T @ V @ Xc) / Xc.shape[1]


def _terms_by_outer_products(Xc: Tensor, U: Tensor, gain: Tensor, V: Tensor) -> Tensor:
    found = torch.zeros_like(Xc)
    for m, x in enumerate(Xc.T):
        for i, u in enumerate(U.T):
            found[i, m] = torch.trace(V @ (gain[i] * torch.outer(u, u)) @ torch.outer(x, x)) / Xc.shape[1]
    return found


def _curved(F: Tensor) -> Tensor:
    weights = torch.linspace(-1, 2, F.shape[1], dtype=F.dtype)[:, None, None]
    return (weights * F.relu().square()).sum() + F[:, 0].mul(F[:, 1]).sum()


def _linear(F: Tensor) -> Tensor:
    return (F * drawn(*F.shape[1:], seed=7)).sum()


def scores() -> list[tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Scores, summed over images, and the feature maps that they are asked of."""
    return [(_curved, drawn(2, 3, 4, 5)), (_linear, drawn(3, 4, 2, 3, seed=1))]


def _slope(score: Callable[[Tensor], Tensor], F: Tensor) -> Tensor:
    F = F.detach().requires_grad_()
    return torch.autograd.grad(score(F), F)[0]


def grad_cam(score: Callable[[Tensor], Tensor], F: Tensor) -> Tensor:
    """A solution."""
    return (_slope(score, F).mean((2, 3), keepdim=True) * F).sum(1)


def _grad_cam_by_einsum(score: Callable[[Tensor], Tensor], F: Tensor) -> Tensor:
    slope = torch.func.grad(score)(F)
    return torch.einsum("bc,bchw->bhw", slope.mean((2, 3)), F)


TASKS = {
    "05_root_of_set": Task(
        "Write the body of `root_of_set`: keep the chosen eigenvalues and their eigenvectors.",
        root_of_set,
        sets,
        mistakes={
            "the eigenvectors are the columns of U, these are its rows": lambda f, U, chosen: (
                U[chosen].T * f[chosen] @ U[chosen]
            ),
            "all eigenvalues are in it; keep those that are chosen": lambda f, U, chosen: U * f @ U.T,
            "these are the eigenvalues that are not chosen": lambda f, U, chosen: root_of_set(f, U, ~chosen),
            "the values f are missing: this projects on the chosen eigenvectors": lambda f, U, chosen: (
                U[:, chosen] @ U[:, chosen].T
            ),
            "f holds the roots already; do not take another one": lambda f, U, chosen: root_of_set(f.sqrt(), U, chosen),
            "the values f are in it twice": lambda f, U, chosen: root_of_set(f.square(), U, chosen),
        },
        alternatives=(_root_in_a_loop, lambda f, U, chosen: U @ torch.diag(f * chosen) @ U.T),
    ),
    "05_terms": Task(
        "Write the body of `terms`: a row per eigenvalue, a column per position.",
        terms,
        decompositions,
        mistakes={
            "it is not divided by the number of positions": lambda Xc, U, gain, V: terms(Xc, U, gain, V) * Xc.shape[1],
            "the gain f / lam is missing": lambda Xc, U, gain, V: terms(Xc, U, torch.ones_like(gain), V),
            "the class's weights V are missing": lambda Xc, U, gain, V: terms(Xc, U, gain, torch.eye(len(V)).to(V)),
            "the eigenvectors are the columns of U, these are its rows": lambda Xc, U, gain, V: terms(Xc, U.T, gain, V),
            "it is summed over the eigenvalues; keep a row for each": lambda Xc, U, gain, V: terms(Xc, U, gain, V).sum(
                0
            ),
            "it is summed over the positions; keep a column for each": lambda Xc, U, gain, V: terms(Xc, U, gain, V).sum(
                1
            ),
            "it is divided by the number of channels; divide by that of positions": lambda Xc, U, gain, V: (
                terms(Xc, U, gain, V) * Xc.shape[1] / Xc.shape[0]
            ),
        },
        alternatives=(
            _terms_by_outer_products,
            lambda Xc, U, gain, V: torch.einsum("di,dm,ei,ef,fm->im", U * gain, Xc, U, V, Xc) / Xc.shape[1],
        ),
    ),
    "05_grad_cam": Task(
        "Write the body of `grad_cam`: weigh each channel by the mean of its gradient over the positions, and add.",
        grad_cam,
        scores,
        mistakes={
            "only its positive part is left; keep the signs here": lambda score, F: grad_cam(score, F).relu(),
            "the gradient is summed over the positions; take its mean": lambda score, F: (
                grad_cam(score, F) * F[0, 0].numel()
            ),
            "this is gradient times input: the gradient is not averaged over the positions": lambda score, F: (
                _slope(score, F) * F
            ).sum(1),
            "the features are averaged over the positions; average the gradient": lambda score, F: (
                F.mean((2, 3), keepdim=True) * _slope(score, F)
            ).sum(1),
            "the channels are averaged; add them": lambda score, F: grad_cam(score, F) / F.shape[1],
            "the weights have lost their signs": lambda score, F: (
                _slope(score, F).mean((2, 3), keepdim=True).abs() * F
            ).sum(1),
            "the weights alone are not a map; weigh the features with them": lambda score, F: _slope(score, F).mean(
                (2, 3)
            ),
        },
        alternatives=(_grad_cam_by_einsum,),
    ),
}
