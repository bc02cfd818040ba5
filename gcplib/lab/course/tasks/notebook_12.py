"""Tasks of notebook 12: the rectangle of a density, and the density that a cut keeps from teaching the attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]


def densities() -> list[tuple[Tensor]]:
    """Densities of a height and a width that differ: even over a part, all in one cell, and of no shape."""
    part, cell = torch.zeros(4, 6), torch.zeros(3, 5)
    part[:2, 3:] = 1 / 6
    cell[2, 1] = 1
    anything = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    return [(part,), (anything / anything.sum(),), (cell,)]


def _side(mass: Tensor, place: Tensor, scale: float = 3.0, within: float = 1.0) -> tuple[Tensor, Tensor]:
    center = (mass * place).sum()
    variance = (mass * (place - center).square()).sum()
    return center, (scale * variance + within / len(mass) ** 2).sqrt()


def _cells(mass: Tensor) -> Tensor:
    return (2 * torch.arange(len(mass), dtype=mass.dtype) + 1) / len(mass) - 1


def _rectangle(p: Tensor, place=_cells, **changed: float) -> Tensor:
    (x, width), (y, height) = (_side(mass, place(mass), **changed) for mass in (p.sum(0), p.sum(1)))
    return torch.stack([x, y, width, height])


def rectangle(p: Tensor) -> Tensor:
    """A solution."""
    return _rectangle(p)


def _about_the_middle(p: Tensor) -> Tensor:
    found = [(3 * (m * _cells(m) ** 2).sum() + 1 / len(m) ** 2).sqrt() for m in (p.sum(0), p.sum(1))]
    return torch.stack([*rectangle(p)[:2], *found])


def _rectangle_by_moments(p: Tensor) -> Tensor:
    h, w = p.shape
    y, x = torch.meshgrid(_cells(p[:, 0]), _cells(p[0]), indexing="ij")
    centers = (p * x).sum(), (p * y).sum()
    variances = (p * x**2).sum() - centers[0] ** 2, (p * y**2).sum() - centers[1] ** 2
    halves = (3 * variances[0] + 1 / w**2) ** 0.5, (3 * variances[1] + 1 / h**2) ** 0.5
    return torch.stack([*centers, *halves])


def looks() -> list[tuple[Tensor, Tensor, Tensor, bool]]:
    """Features, attention maps, rows of the decoder, with and without the path."""
    generator = torch.Generator().manual_seed(0)
    B, d, K, h, w = 2, 5, 3, 3, 4
    F = 4 * torch.randn(B, d, h, w, generator=generator)
    A = torch.randn(B, K, h, w, generator=generator).sigmoid()
    v = torch.randn(K, d, generator=generator)
    return [(*(t.requires_grad_() for t in (F, A, v)), path) for path in (True, False)]


def density(F: Tensor, A: Tensor, v: Tensor, path: bool) -> Tensor:
    """A solution."""
    if not path:
        F, A = F.detach(), A.detach()
    return _density(F / F.square().mean((1, 2, 3), keepdim=True).sqrt(), A, v)


def _density(f: Tensor, A: Tensor, v: Tensor) -> Tensor:
    energy = (A * torch.einsum("kd,bdhw->bkhw", v, f)).mean(1)
    return energy.flatten(1).softmax(1).view_as(energy)


def _density_of_attended_features(F: Tensor, A: Tensor, v: Tensor, path: bool) -> Tensor:
    f = rms_norm(F, F.shape[1:])
    f, A = (f, A) if path else (f.detach(), A.detach())
    attended = A[:, :, None] * f[:, None]  # (B, K, d, h, w)
    energy = (attended * v[:, :, None, None]).sum(2).mean(1)
    return torch.softmax(energy.reshape(len(F), -1), -1).reshape(energy.shape)


def what_learns(answer: Any, F: Tensor, A: Tensor, v: Tensor, path: bool) -> dict[str, Any]:
    """Return the density and, by a loss of its region, which of the three get a gradient."""
    p = answer(F, A, v, path)
    found: dict[str, Any] = {"the density": p}
    slopes: tuple = (None, None, None)
    if isinstance(p, Tensor) and p.requires_grad:
        loss = (p * torch.arange(p[0].numel()).view(p[0].shape)).sum()
        slopes = torch.autograd.grad(loss, (F, A, v), allow_unused=True)
    for name, slope in zip(("features F", "maps A", "decoder v"), slopes, strict=True):
        found[f"with path={path}, a gradient of the {name}"] = slope is not None and bool(slope.abs().max() > 0)
    return found


def _cut(F: Tensor, A: Tensor, v: Tensor, path: bool, *, off: str) -> Tensor:
    """The density with only some of its inputs cut off."""
    given = {"F": F, "A": A, "v": v}
    given |= {} if path else {name: given[name].detach() for name in off}
    return density(**given, path=True)


TASKS = {
    "12_rectangle": Task(
        "Write the body of `rectangle`: mean and variance along x and along y.",
        rectangle,
        densities,
        mistakes={
            "x and y are exchanged: x runs along the columns": lambda p: rectangle(p)[[1, 0, 3, 2]],
            "an even density of half side s has the variance s^2 / 3; the factor 3 is missing": lambda p: _rectangle(
                p, scale=1.0
            ),
            "the cell's own size is missing: weight in one cell has the half side 1 / n": lambda p: _rectangle(
                p, within=0.0
            ),
            "the variance is about 0; take it about the mean": _about_the_middle,
            "the image goes from -1 at its edge, and a cell's place is its center": lambda p: _rectangle(
                p, lambda mass: torch.linspace(-1, 1, len(mass))
            ),
            "the places go from 0 to 1; here the image goes from -1 to 1": lambda p: _rectangle(
                p, lambda mass: (_cells(mass) + 1) / 2
            ),
            "these are whole sides; return half sides": lambda p: rectangle(p) * torch.tensor([1, 1, 2, 2]),
            "these are variances; take the root": lambda p: torch.cat([rectangle(p)[:2], rectangle(p)[2:] ** 2]),
        },
        alternatives=(_rectangle_by_moments,),
    ),
    "12_density": Task(
        "Write the body of `density`: the formula of p, and what to detach where there is no path.",
        density,
        looks,
        run=what_learns,
        mistakes={
            "nothing is cut": lambda F, A, v, path: density(F, A, v, True),
            "it is cut with the path, and not without": lambda F, A, v, path: density(F, A, v, not path),
            "without the path the decoder has to learn all the same: detach what goes into it, not what comes out": (
                lambda F, A, v, path: density(F, A, v, True) if path else density(F, A, v, True).detach()
            ),
            "without the path a way is left through the maps A": lambda F, A, v, path: _cut(F, A, v, path, off="F"),
            "without the path a way is left through the features F": lambda F, A, v, path: _cut(F, A, v, path, off="A"),
            "the features are not divided by their root mean square": lambda F, A, v, path: _density(
                *((F, A) if path else (F.detach(), A.detach())), v
            ),
            "the softmax runs over the columns alone; take it over all positions": lambda F, A, v, path: (
                density(F, A, v, path).log().softmax(-1)
            ),
            "it is the sum over the maps; take the mean": lambda F, A, v, path: density(F, A, len(v) * v, path),
        },
        alternatives=(_density_of_attended_features,),
    ),
}
