"""Which bands of a spectrum tell the classes apart: roots restricted to bands, and a probe by ridge regression."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from gcplib.linalg import EigenvalueSet, covariance, rank_tolerance, triu_vector

__all__ = ["all_but", "band_roots", "ridge_probe"]

RIDGES = [10.0**power for power in range(-2, 3)]  # beyond, nothing changes


def all_but(left_out: EigenvalueSet) -> EigenvalueSet:
    """Return the complement of a set of eigenvalues."""
    return EigenvalueSet(f"all but {left_out}", lambda lam: ~left_out.ranks(lam), left_out.least)


def band_roots(x: Tensor, sets: Mapping[str, EigenvalueSet]) -> Iterator[tuple[str, Tensor]]:
    """Yield name and vectors of each set: ``C_S = sum over i in S of sqrt(lam_i) u_i u_i^T`` of every image.

    A vector holds the upper triangle ``(B, d (d + 1) / 2)``, off the diagonal times the root of 2, so that it has the
    norm of the matrix. Eigenvalues that are rounding noise count as zero.

    Args:
        x: feature maps ``(B, d, H, W)``.
        sets: of eigenvalues, by name.
    """
    lam, u = _decompose(x)
    rank = min(x.shape[1], x[0, 0].numel() - 1)
    twice = triu_vector(torch.full(u.shape[1:], 2**0.5).fill_diagonal_(1))
    for name, chosen in sets.items():
        mask = chosen.mask(lam, rank)
        used = mask.any(0)  # a band of few eigenvalues costs a product of few
        root = (lam * mask).sqrt().float()[:, used].unsqueeze(-2)
        blocks = zip(u[..., used].split(256), root.split(256), strict=True)
        yield name, torch.cat([triu_vector((v * r) @ v.mT) * twice for v, r in blocks])


def _decompose(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues ``(B, d)``, ascending and in float64, and vectors ``(B, d, d)`` of covariances."""
    found = []
    for block in x.flatten(2).split(256):  # in blocks, which bound the memory
        lam, u = torch.linalg.eigh(covariance(block.double()))
        noise = lam <= rank_tolerance(lam.dtype) * lam[:, -1:]
        found.append((lam.masked_fill(noise, 0), u.float()))
    lam, u = (torch.cat(part) for part in zip(*found, strict=True))
    return lam, u


def ridge_probe(vectors: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> np.ndarray:
    """Return which test images a linear probe gets right ``(images,)``, by the ridge that validation chooses.

    Ridge regression of classes, 1 or 0, on standardized entries, in closed form; of equally good ridges the largest.

    Args:
        vectors: of the splits ``train``, ``validation`` and ``test``, in this order, ``(images, entries)`` each.
        labels: of the same splits, ``(images,)`` each.
    """
    count = len(vectors["validation"])
    x, *others = _standardized(*vectors.values())
    y, best = one_hot(labels["train"]).double(), -1.0
    for scores in _ridge_scores(x, y, torch.cat(others)):
        guess = scores.argmax(1)
        accuracy = (guess[:count] == labels["validation"]).double().mean().item()
        if accuracy >= best:
            best, right = accuracy, guess[count:] == labels["test"]
    return right.numpy()


def _standardized(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Return entries minus their mean, over their standard deviation in training."""
    mean, spread = train.mean(0), train.std(0, correction=0)
    # Entries that vary by rounding alone say nothing, and would drown the others.
    varies = spread > rank_tolerance(train.dtype) * train.abs().max()
    scale = torch.where(varies, spread, torch.inf).reciprocal()
    return [(x - mean) * scale for x in (train, *others)]


def _ridge_scores(x: Tensor, target: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Yield the scores of ``others``, ridge after ridge."""
    prior = target.mean(0)
    if len(x) <= x.shape[1]:  # the smaller of two systems that have one solution
        gram, query, answer = x @ x.T, others @ x.T, target - prior
    else:
        x, others = x.double(), others.double()
        gram, query, answer = x.T @ x, others, x.T @ (target - prior)
    size, one = x.square().sum().double() / len(x), torch.eye(len(gram)).double()
    for ridge in RIDGES:
        factor = torch.linalg.cholesky(gram.double() + ridge * size * one)
        yield query.double() @ torch.cholesky_solve(answer, factor) + prior
