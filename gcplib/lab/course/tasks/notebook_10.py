"""Tasks of notebook 10: the group of the eight views of a square, and the mean covariance over them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]


def product(g: int, h: int) -> int:
    """A solution."""
    (mirror_g, turn_g), (mirror_h, turn_h) = divmod(g, 4), divmod(h, 4)
    turn = turn_g - turn_h if mirror_g else turn_g + turn_h
    return turn % 4 + 4 * (mirror_g ^ mirror_h)


def _by_images(g: int, h: int) -> int:
    def seen(x: Tensor, view: int) -> Tensor:
        return torch.rot90(x.flip(-1) if view >= 4 else x, view % 4, (-2, -1))

    marks = torch.arange(9).view(3, 3)
    twice = seen(seen(marks, h), g)
    return next(view for view in range(8) if torch.equal(seen(marks, view), twice))


def _table(answer: Callable[[int, int], int]) -> Tensor:
    """The whole group table, g down and h across; what is no number fails."""
    return torch.tensor([[answer(g, h) for h in range(8)] for g in range(8)])


def views() -> list[tuple[Tensor]]:
    """Features ``(B, 8, d, h, w)`` whose views have different means."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 3, 2, 4), (1, 5, 3, 3)]
    found = []
    for batch, d, h, w in sizes:
        means = 2 * torch.randn(batch, 8, d, 1, 1, generator=generator, dtype=torch.float64)
        noise = torch.randn(batch, 8, d, h, w, generator=generator, dtype=torch.float64)
        found.append((noise + means + 1,))
    return found


def mean_covariance(views: Tensor) -> Tensor:
    """A solution."""
    X = views.flatten(3)
    Xc = X - X.mean(-1, keepdim=True)
    return (Xc @ Xc.mT / X.shape[-1]).mean(1)


def _covariance(X: Tensor) -> Tensor:
    Xc = X - X.mean(-1, keepdim=True)
    return Xc @ Xc.mT / X.shape[-1]


def _side_by_side(views: Tensor, centered: bool = False) -> Tensor:
    X = views.flatten(3)
    X = X - X.mean(-1, keepdim=True) if centered else X
    return _covariance(X.transpose(1, 2).flatten(2))


TASKS = {
    "10_product": Task(
        "Write the body of `product`: which of the eight is g after h?",
        product,
        lambda: [()],
        run=_table,
        mistakes={
            "a mirror image turns the other way: f r is r^3 f, not r f": lambda g, h: (
                (g + h) % 4 + 4 * (g // 4 ^ h // 4)
            ),
            "it is h after g; h comes first": lambda g, h: product(h, g),
            "the turn changes its sign where g mirrors, not where h does": lambda g, h: (
                (g - h if h >= 4 else g + h) % 4 + 4 * (g // 4 ^ h // 4)
            ),
            "mirrored twice is not mirrored": lambda g, h: product(g, h) % 4 + 4 * (g >= 4 or h >= 4),
            "four quarter turns are none: take the turn modulo 4": lambda g, h: (
                (g % 4 - h % 4 if g >= 4 else g % 4 + h % 4) + 4 * (g // 4 ^ h // 4)
            ),
            "these are sums modulo 8, those of a turn by an eighth": lambda g, h: (g + h) % 8,
        },
        alternatives=(_by_images,),
    ),
    "10_mean_covariance": Task(
        "Write the body of `mean_covariance`: of each view the covariance, then their mean.",
        mean_covariance,
        views,
        mistakes={
            "this is one covariance of all positions; the views' means count as variance in it": _side_by_side,
            "this is the covariance of the mean map; average after the product, not before": lambda views: _covariance(
                views.mean(1).flatten(2)
            ),
            "the views are not centered: these are second moments": lambda views: (
                views.flatten(3) @ views.flatten(3).mT / views[0, 0, 0].numel()
            ).mean(1),
            "it is the sum over the views; divide by 8": lambda views: 8 * mean_covariance(views),
            "it is not divided by the number of positions": lambda views: (
                views[0, 0, 0].numel() * mean_covariance(views)
            ),
            "each view has its own; average over the views": lambda views: _covariance(views.flatten(3)),
            "this is the mean over the images; average over the views": lambda views: _covariance(
                views.flatten(3)
            ).mean(0),
            "this is the covariance of one view": lambda views: _covariance(views[:, 0].flatten(2)),
        },
        alternatives=(lambda views: _side_by_side(views, centered=True),),
    ),
}
