"""Tasks of notebook 08: the loss along its gradient, and the ratio of errors on corrupted images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]

Loss = Callable[[Tensor], Tensor]
Along = Callable[[Loss, Tensor, Sequence[float]], tuple[Tensor, Tensor]]


def quadratic(X: Tensor) -> Tensor:
    """A loss whose gradient changes with the distance moved."""
    return (torch.tensor([1.0, 3.0, 9.0], dtype=X.dtype) * X.square()).sum() / 2


def softplus(X: Tensor) -> Tensor:
    """A loss that is straight far from zero."""
    return torch.nn.functional.softplus(2 * X - 0.5).mean()


def lines() -> list[tuple[Loss, Tensor, list[float]]]:
    """A loss, where the line begins, and steps; more than one row, and steps that do not begin at zero."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3, generator=generator, dtype=torch.float64)
    return [(quadratic, first, [0.1, 0.5, 2.0]), (softplus, torch.randn(2, 4, generator=generator), [1.0, 30.0])]


def along_gradient(loss: Loss, X: Tensor, etas: Sequence[float]) -> tuple[Tensor, Tensor]:
    """A solution."""

    def at(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = loss(x)
        return value.detach(), torch.autograd.grad(value, x)[0]

    _, g = at(X)
    losses, gradients = zip(*(at(X + eta * g) for eta in etas), strict=True)
    return torch.stack(losses), torch.stack([(h - g).norm() for h in gradients])


def _by_functions(loss: Loss, X: Tensor, etas: Sequence[float]) -> tuple[Tensor, Tensor]:
    gradient = torch.func.grad(loss)
    g = gradient(X)
    moved = [X + eta * g for eta in etas]
    changes = [(gradient(x) - g).square().sum().sqrt() for x in moved]
    return torch.stack([loss(x) for x in moved]), torch.stack(changes)


def _elsewhere(step: Callable[[Tensor, float, Tensor], Tensor]) -> Along:
    """The solution with another step: of X, eta and g, where the line goes on."""

    def wrong(loss: Loss, X: Tensor, etas: Sequence[float]) -> tuple[Tensor, Tensor]:
        gradient = torch.func.grad(loss)
        g = gradient(X)
        moved = [step(X, eta, g) for eta in etas]
        return torch.stack([loss(x) for x in moved]), torch.stack([(gradient(x) - g).norm() for x in moved])

    return wrong


def _otherwise(change: Callable[[Tensor, Tensor], Tensor]) -> Along:
    """The solution with another change: of the gradients there and here."""

    def wrong(loss: Loss, X: Tensor, etas: Sequence[float]) -> tuple[Tensor, Tensor]:
        gradient = torch.func.grad(loss)
        g = gradient(X)
        changes = [change(gradient(X + eta * g), g) for eta in etas]
        return along_gradient(loss, X, etas)[0], torch.stack(changes)

    return wrong


def _on_and_on(loss: Loss, X: Tensor, etas: Sequence[float]) -> tuple[Tensor, Tensor]:
    gradient = torch.func.grad(loss)
    g, losses, changes = gradient(X), [], []
    for eta in etas:
        X = X + eta * g
        losses.append(loss(X))
        changes.append((gradient(X) - g).norm())
    return torch.stack(losses), torch.stack(changes)


def _growth(loss: Loss, X: Tensor, etas: Sequence[float]) -> tuple[Tensor, Tensor]:
    losses, changes = along_gradient(loss, X, etas)
    return losses - loss(X), changes


def two_parts(answer: Along, loss: Loss, X: Tensor, etas: Sequence[float]) -> Any:
    """What a learner returns, with names where it is two things."""
    found = answer(loss, X, etas)
    if isinstance(found, tuple | list) and len(found) == 2:
        return dict(zip(("losses", "changes"), found, strict=True))
    return found


def tables() -> list[tuple[Tensor, Tensor, float, float]]:
    """Errors (kinds, severities) of two networks, and their errors on clean images: zero, and not."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.rand(2, 3, 4, generator=generator, dtype=torch.float64) * 0.4 + 0.3).unbind()
    return [(ours, theirs, 0.0, 0.0), (ours[:, :2], theirs[:, :2], 0.2, 0.25)]


def corruption_errors(ours: Tensor, theirs: Tensor, clean_ours: float, clean_theirs: float) -> Tensor:
    """A solution."""
    return (ours - clean_ours).sum(1) / (theirs - clean_theirs).sum(1)


def _in_a_loop(ours: Tensor, theirs: Tensor, clean_ours: float, clean_theirs: float) -> Tensor:
    count = ours.shape[1]
    pairs = zip(ours, theirs, strict=True)
    return torch.stack([(a.sum() - count * clean_ours) / (b.sum() - count * clean_theirs) for a, b in pairs])


TASKS = {
    "08_along_gradient": Task(
        "Write the body of `along_gradient`: the loss, and the change of its gradient, at X + eta g.",
        along_gradient,
        lines,
        run=two_parts,
        mistakes={
            "it goes down the gradient; the sign here is plus": _elsewhere(lambda X, eta, g: X - eta * g),
            "the gradient is divided by its length; the published step is eta times g": _elsewhere(
                lambda X, eta, g: X + eta * g / g.norm()
            ),
            "every step begins where the last one ended; each begins at X": _on_and_on,
            "it is the change of the length; take the length of the change": _otherwise(
                lambda there, g: (there.norm() - g.norm()).abs()
            ),
            "it is the length of the gradient there; take that of its change": _otherwise(
                lambda there, g: there.norm()
            ),
            "the change is squared; take its length": _otherwise(lambda there, g: (there - g).square().sum()),
            "the change is divided by the length of g; that comes later": _otherwise(
                lambda there, g: (there - g).norm() / g.norm()
            ),
            "it is the growth of the loss; take the loss itself": _growth,
        },
        alternatives=(_by_functions,),
    ),
    "08_corruption_errors": Task(
        "Write the body of `corruption_errors`: one ratio per kind of corruption.",
        corruption_errors,
        tables,
        mistakes={
            "it is the mean of the ratios over severities; divide the sums": lambda a, b, c, d: (
                (a - c) / (b - d)
            ).mean(1),
            "it is upside down; ours stands above": lambda a, b, c, d: (b - d).sum(1) / (a - c).sum(1),
            "the errors on clean images are not taken off": lambda a, b, c, d: a.sum(1) / b.sum(1),
            "the errors on clean images are taken off once; they are in the error of every severity": (
                lambda a, b, c, d: (a.sum(1) - c) / (b.sum(1) - d)
            ),
            "ours on clean images is taken off both; each network has its own": lambda a, b, c, d: (
                (a - c).sum(1) / (b - c).sum(1)
            ),
            "it is one number for all kinds; the mean over kinds comes later": lambda a, b, c, d: corruption_errors(
                a, b, c, d
            ).mean(),
            "it is one ratio per severity; sum over these": lambda a, b, c, d: (a - c).sum(0) / (b - d).sum(0),
            "these are differences; divide": lambda a, b, c, d: (a - c).sum(1) - (b - d).sum(1),
        },
        alternatives=(_in_a_loop,),
    ),
}
