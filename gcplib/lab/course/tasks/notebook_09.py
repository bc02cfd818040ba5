"""Tasks of notebook 09: the factors of a second-order gate, and how much they know of classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]

Layer = Callable[[Tensor], Tensor]


def layers() -> list[tuple[Tensor, Layer, Layer, Tensor, Tensor, Layer]]:
    """Features of images and the layers of a gate, with weights so large that every step shows."""
    found: list[tuple[Tensor, Layer, Layer, Tensor, Tensor, Layer]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for channels, width, size in ((3, 4, (3, 4)), (5, 2, (2, 3))):
            reduce = nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width)).eval()
            norm, mix = nn.BatchNorm1d(width).eval(), nn.Linear(4 * width, channels)
            for parameter in (*reduce[0].parameters(), *norm.parameters()):
                nn.init.normal_(parameter)
            weight, bias = torch.randn(width, 4, width), torch.randn(width, 4)
            found.append((torch.randn(2, channels, *size), reduce, norm, weight, bias, mix))
    return found


def gate_factors(X: Tensor, reduce: Layer, norm: Layer, weight: Tensor, bias: Tensor, mix: Layer) -> Tensor:
    """A solution."""
    F = reduce(X.relu()).relu().flatten(2)
    F = F - F.mean(2, keepdim=True)
    Sigma = F @ F.mT / F.shape[2]
    four = torch.einsum("brj,rkj->brk", norm(Sigma), weight) + bias
    return mix(four.flatten(1)).sigmoid()


def _as_a_convolution(X: Tensor, reduce: Layer, norm: Layer, weight: Tensor, bias: Tensor, mix: Layer) -> Tensor:
    maps = reduce(X.clamp(min=0)).clamp(min=0).flatten(2)
    rows = norm(torch.stack([torch.cov(each, correction=0) for each in maps]))
    kernels = weight.flatten(0, 1)[:, None, :, None]
    four = nn.functional.conv2d(rows[..., None], kernels, bias.flatten(), groups=len(weight))
    return torch.sigmoid(mix(four.flatten(1)))


def _root(Sigma: Tensor) -> Tensor:
    lam, U = torch.linalg.eigh(Sigma)
    return U * lam.clamp(min=0).sqrt()[:, None] @ U.mT


def _same(Z: Tensor) -> Tensor:
    return Z


def _other(
    first: Layer = torch.relu,
    second: Layer = torch.relu,
    mean: float = 1,
    less: int = 0,
    of: Layer = _same,
    normal: bool = True,
    last: Layer = torch.sigmoid,
    moved: float = 1,
) -> Callable[..., Tensor]:
    """The solution with something else in one place."""

    def wrong(X: Tensor, reduce: Layer, norm: Layer, weight: Tensor, bias: Tensor, mix: Layer) -> Tensor:
        F = second(reduce(first(X))).flatten(2)
        F = F - mean * F.mean(2, keepdim=True)
        Sigma = F @ F.mT / (F.shape[2] - less)
        rows = of(norm(Sigma)) if normal and of is not _root else norm(of(Sigma)) if normal else Sigma
        return last(mix((torch.einsum("brj,rkj->brk", rows, weight) + moved * bias).flatten(1)))

    return wrong


def values() -> list[tuple[Tensor, Tensor]]:
    """Values (n, columns) and labels of classes that are not of one size."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([3, 0, 0, 3, 0, 7, 0, 3])
    noise = torch.randn(8, 3, generator=generator)
    return [(noise + labels[:, None] / 4 + 1, labels), (noise[:5, :2] - 2, labels[:5])]


def between_classes(s: Tensor, labels: Tensor) -> Tensor:
    """A solution."""
    centered = s - s.mean(0)
    of_class = [centered[labels == k] for k in labels.unique()]
    between = sum(len(part) * part.mean(0).square() for part in of_class)
    return between / centered.square().sum(0)


def _by_what_is_left(s: Tensor, labels: Tensor) -> Tensor:
    within = torch.zeros(s.shape[1])
    for k in labels.unique():
        part = s[labels == k]
        within = within + part.var(0, correction=0) * len(part)
    return 1 - within / (s.var(0, correction=0) * len(s))


def _means(s: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([s[labels == k].mean(0) for k in labels.unique()])


TASKS = {
    "09_gate_factors": Task(
        "Write the body of `gate_factors`: reduce, covariance, rows, and the sigmoid of their mixture.",
        gate_factors,
        layers,
        mistakes={
            "the ReLU on X, in front of the convolution, is missing": _other(first=_same),
            "the ReLU behind the convolution, in front of the covariance, is missing": _other(second=_same),
            "the mean over positions is not removed: this is the second moment": _other(mean=0),
            "the covariance is divided by M - 1; here by M": _other(less=1),
            "the root of the covariance is taken; this gate has none": _other(of=_root),
            "the batch norm over rows is missing": _other(normal=False),
            "columns meet the weights of rows; batch norm has made them different": _other(of=lambda Z: Z.mT),
            "the bias is not added": _other(moved=0),
            "the sigmoid is missing": _other(last=_same),
            "it is twice the sigmoid, as of the start at the identity; here it is the released one": _other(
                last=lambda z: 2 * z.sigmoid()
            ),
        },
        alternatives=(_as_a_convolution,),
    ),
    "09_between_classes": Task(
        "Write the body of `between_classes`: the fraction of each column's variance that lies between classes.",
        between_classes,
        values,
        mistakes={
            "classes are not weighted by their numbers of images": lambda s, y: (
                (_means(s, y) - s.mean(0)).square().sum(0) / (s - s.mean(0)).square().sum(0)
            ),
            "it is the variance of the means over that of the values; weight classes by their images": lambda s, y: (
                _means(s, y).var(0, correction=0) / s.var(0, correction=0)
            ),
            "it is the fraction within classes; take what lies between": lambda s, y: 1 - between_classes(s, y),
            "it is the root of the fraction": lambda s, y: between_classes(s, y).sqrt(),
            "the mean over all images is not removed": lambda s, y: (
                sum(s[y == k].sum(0).square() / (y == k).sum() for k in y.unique()) / s.square().sum(0)
            ),
            "it is one number; take one for each column": lambda s, y: between_classes(s, y).mean(),
            "it is not divided by the variation over all images": lambda s, y: (
                between_classes(s, y) * (s - s.mean(0)).square().sum(0)
            ),
        },
        alternatives=(_by_what_is_left,),
    ),
}
