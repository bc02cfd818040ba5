"""Which bands of the spectrum tell the classes apart: a linear probe and a share of variance, band by band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gcplib.linalg import EigenvalueSet, NonFiniteError, covariance, get_eigenvalue_set, rank_tolerance, triu_vector

__all__ = ["Probe", "Separation", "all_but", "band_descriptors", "class_separation", "linear_probe"]

# Images decomposed at a time: bounds the memory at any number of images.
BLOCK = 256

# In units of the mean squared length of a standardized training image. Measured on 2400 images of 60 and of 5
# classes: validation chooses from 0.1 to 10, and up to 100 where a band tells little. Beyond that nothing changes:
# predictions shrink, but their order stays that of the nearest class mean.
RIDGES = tuple(10.0**power for power in range(-2, 3))


def all_but(left_out: str | EigenvalueSet) -> EigenvalueSet:
    """Return the complement of a set of eigenvalues: what a descriptor still has when the set is left out.

    >>> all_but("band(0, 2)").mask(torch.tensor([1.0, 2.0, 3.0]))
    tensor([ True, False, False])
    """
    left_out = get_eigenvalue_set(left_out)
    return EigenvalueSet(f"all but {left_out}", lambda lam: ~left_out.ranks(lam), left_out.least)


def band_descriptors(features: Tensor, bands: Sequence[str | EigenvalueSet]) -> Iterator[tuple[str, Tensor]]:
    """Give, for each set I of eigenvalues, the square root restricted to it: ``sum_{i in I} sqrt(lam_i) u_i u_i^T``.

    One decomposition serves all sets, and one set at a time is made, so that memory holds one; ``dict(...)`` makes all.
    Vectors keep their length, whose square is the variance in the band: those of a partition sum to the whole root.
    Rounding noise of null eigenvalues counts as zero, because a probe that standardizes would amplify it.

    What a band tells is not its own alone: eigenvectors are orthogonal, so that where the largest lie limits where all
    others can. A band is only shown to matter by what is lost without it (``all_but``).

    Args:
        features: ``(B, C, H, W)`` or ``(B, C, M)``. bands: sets of no more than ``min(C, M - 1)`` ranks, or names.

    Returns:
        Name and ``(B, C (C + 1) / 2)``, float32; off-diagonal entries count twice, as they do in the matrix, so that
        inner products are those of matrices.

    Raises:
        ValueError: no band, two of one name, a band beyond the rank, or another shape. NonFiniteError: in the features.

    Source: the question is that of Song et al., TPAMI 2022; there it is answered by attribution.

    >>> dict(band_descriptors(torch.tensor([[[1.0, 5.0], [2.0, 2.0]]]), ["top(1)"]))["top(1)"].round(decimals=4)
    tensor([[2., 0., 0.]])
    """
    sets = [get_eigenvalue_set(band) for band in bands]
    names = [str(chosen) for chosen in sets]
    if features.dim() not in (3, 4) or not len(features):
        raise ValueError(f"features must be (B, C, H, W) or (B, C, M) of some images, got {tuple(features.shape)}")
    if not sets or len(set(names)) < len(names):
        raise ValueError(f"bands must be sets of different names, and at least one, got {names}")
    flat = features.flatten(2)
    rank = min(flat.shape[1], flat.shape[2] - 1)
    for chosen in sets:
        chosen.check(rank)
    if bad := int((~torch.isfinite(flat)).any(-1).any(-1).sum()):
        raise NonFiniteError(f"features of {bad} of the {len(flat)} images are not finite")
    # Not a generator itself: what is wrong shows at the call.
    return _describe(flat, sets, rank)


def _describe(flat: Tensor, sets: list[EigenvalueSet], rank: int) -> Iterator[tuple[str, Tensor]]:
    channels = flat.shape[1]
    spectra, vectors = [], torch.empty(len(flat), channels, channels, device=flat.device)
    for block, out in zip(flat.split(BLOCK), vectors.split(BLOCK), strict=True):
        lam, u = torch.linalg.eigh(covariance(block.double()))
        out.copy_(u)
        spectra.append(torch.where(lam > rank_tolerance(lam.dtype) * lam[:, -1:], lam, 0))
    lam = torch.cat(spectra)
    weight = triu_vector(torch.full((channels, channels), 2**0.5, device=flat.device).fill_diagonal_(1))
    for chosen in sets:
        mask = chosen.mask(lam, rank)
        used = mask.any(0)  # the columns that any image needs: a band of few costs a product of few
        roots = (lam * mask).sqrt().float()[:, used].unsqueeze(-2)
        described = torch.empty(len(flat), len(weight), device=flat.device)
        for u, root, out in zip(vectors.split(BLOCK), roots.split(BLOCK), described.split(BLOCK), strict=True):
            part = u[..., used]
            torch.mul(triu_vector((part * root) @ part.mT), weight, out=out)
        yield str(chosen), described


@dataclass(frozen=True)
class Probe:
    """What ``linear_probe`` found.

    Attributes:
        hits: for every test image whether its class was predicted, bool ``(Q,)``. ridge: the one chosen.
        validation_accuracy: with it, from 0 to 1.
    """

    hits: np.ndarray
    ridge: float
    validation_accuracy: float


def linear_probe(
    train: Tensor,
    train_labels: Tensor,
    validation: Tensor,
    validation_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    ridges: Sequence[float] = RIDGES,
) -> Probe:
    """Classify by ridge regression on one-hot labels, in closed form.

    ``argmax_c x (X^T X + r s I)^-1 X^T Y`` with X and Y centered, every number in x divided by its standard deviation,
    and s the mean squared length of the rows of X; by ``X^T (X X^T + r s I)^-1 Y``, the same, where images are fewer
    than numbers. Ties go to the first class.

    Args:
        train, validation, test: ``(N, D)``. train_labels, validation_labels, test_labels: integers ``(N,)``.
        ridges: of which the one with the most validation images right is taken, of several the largest.

    Raises:
        ValueError: shapes that do not fit, one class only, classes that training lacks, bad ridges, or descriptors
            that are the same for every image. NonFiniteError: in the descriptors. TypeError: half precision.
    """
    _check(train, train_labels, "train")
    classes, target = train_labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"a probe needs two classes or more to tell apart, the training labels are all {classes.tolist()}"
        )
    for x, labels, name in ((validation, validation_labels, "validation"), (test, test_labels, "test")):
        _check(x, labels, name, train.shape[1])
        if unknown := set(labels.tolist()) - set(classes.tolist()):
            raise ValueError(f"classes {sorted(unknown)} of the {name} images are not among the training images'")
    if not ridges or not all(0 < ridge < float("inf") for ridge in ridges):
        raise ValueError(f"ridges must be positive and finite, and at least one, got {list(ridges)}")

    mean, spread = train.mean(0), train.std(0, correction=0)
    # Numbers that vary by no more than rounding say nothing; divided by their spread they would drown the others.
    varies = spread > rank_tolerance(train.dtype) * train.abs().max()
    if not varies.any():
        raise ValueError("the descriptors of all training images are the same; there is nothing to probe")
    scale = torch.where(varies, spread, torch.inf).reciprocal()
    x, others = (train - mean) * scale, (torch.cat([validation, test]) - mean) * scale
    if not (dual := x.shape[0] <= x.shape[1]):
        x, others = x.double(), others.double()
    y = torch.nn.functional.one_hot(target, len(classes)).double()
    prior = y.mean(0)

    gram = (x @ x.T if dual else x.T @ x).double()
    query = (others @ x.T if dual else others).double()
    answer = y - prior if dual else x.T @ (y - prior)
    size = x.square().sum().double() / len(x)
    best: tuple[float, float, Tensor] | None = None
    for ridge in sorted(ridges):
        shifted = gram.clone()
        shifted.diagonal().add_(ridge * size)
        guess = classes[(query @ torch.cholesky_solve(answer, torch.linalg.cholesky(shifted)) + prior).argmax(1)]
        accuracy = (guess[: len(validation)] == validation_labels).double().mean().item()
        if best is None or accuracy >= best[0]:
            best = accuracy, float(ridge), guess[len(validation) :] == test_labels
    return Probe(best[2].cpu().numpy(), best[1], best[0])


def _check(x: Tensor, labels: Tensor, name: str, width: int | None = None) -> None:
    if x.dim() != 2 or labels.shape != x.shape[:1] or not len(x) or width not in (None, x.shape[1]):
        wanted = "(N, D)" if width is None else f"(N, {width})"
        raise ValueError(
            f"{name} descriptors must be {wanted} with labels (N,), got {tuple(x.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point():
        raise ValueError(f"{name} labels must be integers, got {labels.dtype}")
    if bad := int((~torch.isfinite(x)).any(1).sum()):
        raise NonFiniteError(f"{name} descriptors of {bad} of the {len(x)} images are not finite")


@dataclass(frozen=True)
class Separation:
    """How far classes lie apart, over how far the images of one class do.

    Attributes:
        ratio: mean square between classes over that within. share: of the variance of a random image, what lies
            between classes. null_ratio, null_share: the same under labels in random orders, ``(shuffles,)``.
    """

    ratio: float
    share: float
    null_ratio: np.ndarray
    null_share: np.ndarray


def class_separation(descriptors: Tensor, labels: Tensor, shuffles: int = 20, seed: int = 0) -> Separation:
    """Return the variance between classes over that within, summed over all numbers, and the same by chance.

    ``B = sum_c n_c |m_c - m|^2 / (C - 1)``, ``W = sum_c sum_{x in c} |x - m_c|^2 / (N - C)``, ratio ``B / W``. Labels
    that say nothing give B and W one expectation, in any dimension; the plain ratio of sums would not be 0 for them.
    With ``n_0 = (N - sum_c n_c^2 / N) / (C - 1)`` and ``b = (B - W) / n_0``, the share is ``b / (b + W)``: 0 by chance
    (a little below is possible), 1 where images of a class are the same. Unlike the ratio, it does not grow with the
    number of images.

    Args:
        descriptors: ``(N, D)``. labels: integers ``(N,)``. shuffles: random orders of the labels, by ``seed``.

    Raises:
        ValueError: shapes that do not fit, one class only, no class with two images, or images that are all the
            same. NonFiniteError: in the descriptors.

    Source: the trace ratio of Fisher's discriminant; one-way analysis of variance with random effects.

    >>> found = class_separation(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1]))
    >>> round(found.ratio, 6), round(found.share, 6)
    (8.0, 0.777778)
    """
    _check(descriptors, labels, "the")
    classes, target = labels.unique(return_inverse=True)
    count = len(labels)
    if not 2 <= len(classes) < count:
        raise ValueError(
            "need two classes or more, one of them with two images or more, "
            f"got {len(classes)} classes of {count} images"
        )
    centered = descriptors.double() - descriptors.double().mean(0)
    total = centered.square().sum().item()
    if not total > 0:
        raise ValueError(f"all {count} descriptors are the same; no class can differ")
    member = torch.nn.functional.one_hot(target, len(classes)).T.double()
    sizes = member.sum(1)
    per_class = (count - sizes.square().sum().item() / count) / (len(classes) - 1)

    def ratio_and_share(order: Tensor) -> tuple[float, float]:
        sums = member[:, order] @ centered
        explained = min((sums.square().sum(1) / sizes).sum().item(), total)
        between, within = explained / (len(classes) - 1), (total - explained) / (count - len(classes))
        component = (between - within) / per_class
        return (between / within if within else float("inf")), component / (component + within)

    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(count, generator=generator) for _ in range(shuffles)]
    null = np.array([ratio_and_share(order.to(target.device)) for order in orders]).reshape(-1, 2)
    return Separation(*ratio_and_share(torch.arange(count, device=target.device)), null[:, 0], null[:, 1])
