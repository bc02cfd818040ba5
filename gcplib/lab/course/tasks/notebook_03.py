"""Tasks of notebook 03: a published surrogate of 1 / (a - b), and the effective smoothness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]


def pairs() -> list[tuple[Tensor, Tensor, int]]:
    """All pairs of a few eigenvalues, two of which are equal, and degrees."""
    lam = torch.tensor([4.0, 3.9, 2.0, 2.0, 0.5], dtype=torch.float64)
    return [(lam[:, None], lam, degree) for degree in (3, 20)]


def taylor(a: Tensor, b: Tensor, degree: int) -> Tensor:
    """A solution."""
    larger = torch.maximum(a, b)
    total = _geometric(torch.minimum(a, b) / larger, range(degree + 1))
    return torch.where(a >= b, total, -total) / larger


def _geometric(r: Tensor, powers: Sequence[int]) -> Tensor:
    return torch.stack([r**k for k in powers]).sum(0)


def _in_closed_form(a: Tensor, b: Tensor, degree: int) -> Tensor:
    r = torch.minimum(a, b) / torch.maximum(a, b)
    total = torch.where(r == 1, degree + 1.0, (1 - r ** (degree + 1)) / torch.where(r == 1, 1.0, 1 - r))
    return torch.where(a < b, -1, 1) * total / torch.maximum(a, b)


@dataclass(frozen=True)
class Gradient:
    """The gradient of a loss, by a name that a message can show."""

    loss: str
    value: Callable[[Tensor], Tensor]

    def __call__(self, theta: Tensor) -> Tensor:
        return self.value(theta)

    def __repr__(self) -> str:
        return f"the gradient of {self.loss}"


def fields() -> list[tuple[Gradient, Tensor, list[float]]]:
    """Gradients, points and distances; the change per distance is largest at another of them each time."""
    theta = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    quartic = Gradient("sum(theta^4) / 4", lambda x: x**3)
    wave = Gradient("-sum(cos(2 theta)) / 2", lambda x: torch.sin(2 * x))
    return [(quartic, theta, [0.1, 1.0]), (wave, theta, [0.1, 0.4, 2.0])]


def effective_beta(gradient: Callable[[Tensor], Tensor], theta: Tensor, lengths: Sequence[float]) -> float:
    """A solution."""
    return float(max(_changes(gradient, theta, lengths)))


def _changes(gradient: Callable[[Tensor], Tensor], theta: Tensor, lengths: Sequence[float]) -> list[Tensor]:
    g = gradient(theta)
    return [(gradient(theta - s * g / g.norm()) - g).norm() / s for s in lengths]


def _uphill(gradient: Callable[[Tensor], Tensor], theta: Tensor, lengths: Sequence[float]) -> float:
    g = gradient(theta)
    return float(max((gradient(theta + s * g / g.norm()) - g).norm() / s for s in lengths))


def _far(gradient: Callable[[Tensor], Tensor], theta: Tensor, lengths: Sequence[float]) -> float:
    g = gradient(theta)
    return float(max((gradient(theta - s * g) - g).norm() / s for s in lengths))


def _undivided(gradient: Callable[[Tensor], Tensor], theta: Tensor, lengths: Sequence[float]) -> float:
    return float(max(s * change for s, change in zip(lengths, _changes(gradient, theta, lengths), strict=True)))


def _of_lengths(gradient: Callable[[Tensor], Tensor], theta: Tensor, lengths: Sequence[float]) -> float:
    g = gradient(theta)
    return float(max((gradient(theta - s * g / g.norm()).norm() - g.norm()).abs() / s for s in lengths))


def _in_a_loop(gradient: Callable[[Tensor], Tensor], theta: Tensor, lengths: Sequence[float]) -> Tensor:
    g = gradient(theta)
    largest, direction = torch.zeros((), dtype=g.dtype), torch.nn.functional.normalize(g, dim=0)
    for s in lengths:
        largest = torch.maximum(largest, torch.dist(gradient(theta - s * direction), g) / s)
    return largest


TASKS = {
    "03_taylor": Task(
        "Write the body of `taylor`: the sum of powers of the ratio, over the larger eigenvalue, with its sign.",
        taylor,
        pairs,
        mistakes={
            "there is no minus sign where a is the smaller one": lambda a, b, degree: taylor(a, b, degree).abs(),
            "the ratio is b / a everywhere; it has to be the smaller over the larger": lambda a, b, degree: (
                _geometric(b / a, range(degree + 1)) / a
            ),
            "the sum begins with r; its first term is 1": lambda a, b, degree: (
                taylor(a, b, degree) - torch.where(a >= b, 1, -1) / torch.maximum(a, b)
            ),
            "the sum ends too early: r to the power of the degree belongs to it": lambda a, b, degree: taylor(
                a, b, degree - 1
            ),
            "it is divided by the smaller eigenvalue; take the larger": lambda a, b, degree: (
                taylor(a, b, degree) * torch.maximum(a, b) / torch.minimum(a, b)
            ),
            "it is not divided by the larger eigenvalue": lambda a, b, degree: (
                taylor(a, b, degree) * torch.maximum(a, b)
            ),
            "it is zero where a = b; the published sum is (degree + 1) / a there": lambda a, b, degree: (
                taylor(a, b, degree) * (a != b)
            ),
            "the sign is the wrong way around: positive where a is the larger one": lambda a, b, degree: (
                -taylor(a, b, degree)
            ),
        },
        alternatives=(_in_closed_form,),
    ),
    "03_effective_beta": Task(
        "Write the body of `effective_beta`: the largest change of the gradient per distance, along the gradient.",
        effective_beta,
        fields,
        mistakes={
            "it moves along the gradient; training moves against it": _uphill,
            "it moves by s times the gradient; divide the gradient by its norm, so that s is a distance": _far,
            "the change is not divided by the distance s": _undivided,
            "it is the change of the gradient's length; subtract the gradients first, then take the norm": _of_lengths,
            "it is the mean over the distances; take the largest": lambda gradient, theta, lengths: float(
                torch.stack(_changes(gradient, theta, lengths)).mean()
            ),
            "it is the smallest over the distances; take the largest": lambda gradient, theta, lengths: float(
                min(_changes(gradient, theta, lengths))
            ),
            "it is that of the first distance alone": lambda gradient, theta, lengths: float(
                _changes(gradient, theta, lengths)[0]
            ),
            "it is divided by the norm of the gradient as well": lambda gradient, theta, lengths: float(
                effective_beta(gradient, theta, lengths) / gradient(theta).norm()
            ),
        },
        alternatives=(_in_a_loop,),
    ),
}
