"""Tasks of notebook 04: what a cut removes, the gradient across it, and how much of a variance lies between classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gcplib.lab.course.checking import Task

__all__ = ["TASKS"]


def sizes() -> list[tuple[int, int, int]]:
    """Channels, positions and how many eigenvalues are dropped: some of them, none, or all that are not zero."""
    return [(8, 20, 3), (8, 6, 3), (8, 7, 3), (8, 5, 6), (8, 100, 0), (256, 196, 50), (256, 784, 50)]


def removed(channels: int, positions: int, drop: int) -> int:
    """A solution."""
    return max(0, min(channels, positions - 1) - (channels - drop))


def cuts() -> list[tuple[Tensor, int]]:
    """Eigenvalues, the largest first, and how many are kept; some are equal, the last ones of one are zero."""
    rows = [[9.0, 4.0, 1.0, 0.25], [4.0, 4.0, 1.0, 1.0], [5.0, 2.0, 0.5, 0.0, 0.0]]
    lams = [torch.tensor(row, dtype=torch.float64) for row in rows]
    return [(lams[0], 2), (lams[0], 1), (lams[0], 4), (lams[1], 2), (lams[2], 2)]


def truncated_weights(lam: Tensor, keep: int) -> Tensor:
    """A solution."""
    root = lam.sqrt()
    W = 1 / (root[:, None] + root)
    across = root[:keep, None] / (lam[:keep, None] - lam[keep:])
    W[:keep, keep:], W[keep:, :keep], W[keep:, keep:] = across, across.T, 0
    return W


def _by_masks(lam: Tensor, keep: int) -> Tensor:
    f = torch.where(torch.arange(len(lam)) < keep, lam, 0).sqrt()
    gap = lam[:, None] - lam
    quotient = (f[:, None] - f) / torch.where(gap == 0, 1, gap)
    slope = torch.where(f > 0, 0.5 / f, 0)
    same = (gap == 0) & ((f[:, None] > 0) == (f > 0))
    return torch.where(same, slope[:, None].expand_as(gap), quotient)


def _changed_across(lam: Tensor, keep: int, value) -> Tensor:
    W, across = truncated_weights(lam, keep), value(lam[:keep, None], lam[keep:])
    W[:keep, keep:], W[keep:, :keep] = across, across.T
    return W


def _released(lam: Tensor, keep: int) -> Tensor:
    root = torch.where(torch.arange(len(lam)) < keep, lam, torch.finfo(lam.dtype).eps).sqrt()
    return 1 / (root[:, None] + root)


def classes() -> list[tuple[Tensor, Tensor]]:
    """Vectors of images and their classes, which have unequal sizes, and a mean that is not zero."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for counts, entries in (([3, 5, 2], 4), ([4, 4], 1), ([2, 2, 3, 6], 7)):
        labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        centers = 2 * torch.randn(len(counts), entries, generator=generator, dtype=torch.float64)
        noise = torch.randn(len(labels), entries, generator=generator, dtype=torch.float64)
        found.append((centers[labels] + noise + 3, labels))
    return found


def fraction_between(x: Tensor, labels: Tensor) -> float:
    """A solution."""
    member = one_hot(labels).T.to(x.dtype)
    sizes, (count, n) = member.sum(1), member.shape
    centers = member @ x / sizes[:, None]
    between = (sizes * (centers - x.mean(0)).square().sum(1)).sum() / (count - 1)
    within = (x - centers[labels]).square().sum() / (n - count)
    per_class = (n - sizes.square().sum() / n) / (count - 1)
    component = (between - within) / per_class
    return float(component / (component + within))


def _fraction(x: Tensor, labels: Tensor, kind: str = "") -> float:
    """The solution in loops, or with a mistake in it."""
    groups = [x[labels == label] for label in labels.unique()]
    mean = 0 * x[0] if kind == "mean" else x.mean(0)
    if kind == "weights":
        mean = torch.stack([group.mean(0) for group in groups]).mean(0)
    count, n = len(groups), len(x)
    between = sum((1 if kind == "weights" else len(g)) * (g.mean(0) - mean).square().sum() for g in groups)
    within = sum((g - g.mean(0)).square().sum() for g in groups)
    if kind == "explained":
        return float(between / (between + within))
    between, within = between / (count - 1), within / (n - count)
    if kind == "f":
        return float(between / within)
    if kind == "mean squares":
        return float(between / (between + within))
    per_class = (n - sum(len(g) ** 2 for g in groups) / n) / (count - 1)
    component = between - within if kind == "size" else (between - within) / per_class
    return float(component / within if kind == "ratio" else component / (component + within))


TASKS = {
    "04_removed": Task(
        "Write the body of `removed`: how many eigenvalues that are not zero a cut drops.",
        removed,
        sizes,
        mistakes={
            "it is the number dropped; where positions are few, some of these are zero already": lambda d, M, drop: (
                drop
            ),
            "M positions leave M - 1 eigenvalues, because the mean is removed": lambda d, M, drop: max(
                0, min(d, M) - (d - drop)
            ),
            "it becomes negative where fewer are left than the cut keeps; it then removes 0": lambda d, M, drop: (
                min(d, M - 1) - (d - drop)
            ),
            "it is the number that is kept": lambda d, M, drop: min(d - drop, M - 1),
            "there are never more eigenvalues than channels": lambda d, M, drop: max(0, M - 1 - (d - drop)),
        },
        alternatives=(lambda d, M, drop: sum(d - drop < rank <= M - 1 for rank in range(1, d + 1)),),
    ),
    "04_truncated_weights": Task(
        "Write the body of `truncated_weights`: W of two kept, of a kept and a dropped, of two dropped.",
        truncated_weights,
        cuts,
        mistakes={
            "these are the weights without a cut; those across it differ": lambda lam, keep: torch.nan_to_num(
                1 / (lam.sqrt()[:, None] + lam.sqrt()), posinf=0
            ),
            "between two that are kept it is right, but across the cut W is not zero": lambda lam, keep: (
                _changed_across(lam, keep, lambda a, b: 0 * (a + b))
            ),
            "across the cut the dropped root is 0: sqrt(lam_i) - 0, not - sqrt(lam_j)": lambda lam, keep: (
                _changed_across(lam, keep, lambda a, b: (a.sqrt() - b.sqrt()) / (a - b))
            ),
            "across the cut the sign is wrong: W is positive on both sides of it": lambda lam, keep: _changed_across(
                lam, keep, lambda a, b: a.sqrt() / (b - a)
            ),
            "across the cut divide by lam_i - lam_j: lam_j is dropped, but not zero": lambda lam, keep: _changed_across(
                lam, keep, lambda a, b: 1 / a.sqrt() + 0 * b
            ),
            "W is symmetric; the entries below the diagonal are missing": lambda lam, keep: truncated_weights(
                lam, keep
            ).triu(),
            "on the diagonal stands the slope 1 / (2 sqrt(lam_i)) of what is kept": lambda lam, keep: truncated_weights(
                lam, keep
            ).fill_diagonal_(0),
            "between two that are dropped nothing changes: W is 0 there, not 1 / (2 sqrt(eps))": _released,
        },
        alternatives=(_by_masks,),
    ),
    "04_fraction_between": Task(
        "Write the body of `fraction_between`: b / (b + w), b and w from the two mean squares.",
        fraction_between,
        classes,
        mistakes={
            "these are sums of squares, of which chance explains a part; take mean squares": lambda x, y: _fraction(
                x, y, "explained"
            ),
            "it is F, the ratio of the mean squares": lambda x, y: _fraction(x, y, "f"),
            "the mean square within classes is to be subtracted from that between": lambda x, y: _fraction(
                x, y, "mean squares"
            ),
            "the difference of the mean squares is still to be divided by n_0, the images per class": lambda x, y: (
                _fraction(x, y, "size")
            ),
            "the mean of all images is not removed": lambda x, y: _fraction(x, y, "mean"),
            "every class counts once; weight it by its images": lambda x, y: _fraction(x, y, "weights"),
            "it is b / w; take b / (b + w)": lambda x, y: _fraction(x, y, "ratio"),
        },
        alternatives=(_fraction, lambda x, y: _fraction(x.flip(0), y.flip(0))),
    ),
}
