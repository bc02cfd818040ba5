"""Describing images without training: powers of the covariance as vectors, compared by their angle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gcplib.linalg import center, covariance, rank_tolerance, triu_vector

__all__ = [
    "average_descriptors",
    "nearest_neighbor_hits",
    "power_descriptors",
    "root_estimate_error",
    "same_image_hits",
    "spectra",
]

# Images decomposed at a time: bounds the memory at any number of images.
BLOCK = 256


def spectra(features: Tensor) -> Tensor:
    """Return the eigenvalues of each image's covariance, largest first: ``(B, C, H, W)`` to ``(B, C)``."""
    blocks = [torch.linalg.eigvalsh(covariance(block.flatten(2).double())) for block in features.split(BLOCK)]
    return torch.cat(blocks).clamp_min(0).flip(-1)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.flatten(1).float())


def average_descriptors(features: Tensor) -> Tensor:
    """Return the average of each feature map as a vector of length one: ``(B, C, H, W)`` to ``(B, C)``."""
    return _unit(features.flatten(2).mean(-1))


def power_descriptors(features: Tensor, exponents: Sequence[float]) -> dict[float, Tensor]:
    """Return the covariances to each power, as vectors of length one.

    Args:
        features: ``(B, C, H, W)`` or ``(B, C, M)``. exponents: positive.

    Returns:
        For each exponent ``(B, C (C + 1) / 2)``, float32; off-diagonal entries count twice, as they do in the matrix,
        so that inner products are the cosines between matrices.
    """
    channels = features.shape[1]
    weight = triu_vector(torch.full((channels, channels), 2**0.5).fill_diagonal_(1))
    found: dict[float, list[Tensor]] = {exponent: [] for exponent in exponents}
    for block in features.split(BLOCK):
        # One decomposition for all powers.
        lam, u = torch.linalg.eigh(covariance(block.flatten(2).double()))
        lam = lam.clamp_min(0).unsqueeze(-2)
        for exponent in exponents:
            found[exponent].append(_unit(triu_vector((u * lam**exponent) @ u.mT) * weight))
    return {exponent: torch.cat(blocks) for exponent, blocks in found.items()}


def nearest_neighbor_hits(reference: Tensor, labels: Tensor, query: Tensor, truth: Tensor) -> np.ndarray:
    """Return for every query ``(Q, D)`` whether its nearest reference image ``(R, D)`` by angle has its label."""
    nearest = torch.cat([(block @ reference.T).argmax(1) for block in query.split(BLOCK)])
    return (labels[nearest] == truth).numpy()


def same_image_hits(features: Tensor, positions: int, exponents: Sequence[float], seed: int) -> dict[float, np.ndarray]:
    """Return by power, for every image, whether two disjoint sets of its positions find each other among all.

    Each set has ``positions`` positions, drawn once per image. A descriptor that is estimated well from few
    positions is closest to its other half.

    Raises:
        ValueError: the feature maps have fewer than twice as many positions.
    """
    flat = features.flatten(2)
    if 2 * positions > flat.shape[-1]:
        raise ValueError(f"two sets of {positions} positions do not fit into {flat.shape[-1]}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(len(flat), flat.shape[-1], generator=generator).argsort(-1)
    halves = []
    for part in (order[:, :positions], order[:, positions : 2 * positions]):
        chosen = flat.gather(2, part.unsqueeze(1).expand(-1, flat.shape[1], -1))
        halves.append(power_descriptors(chosen, exponents))
    own = torch.arange(len(flat))
    return {p: ((halves[0][p] @ halves[1][p].T).argmax(1) == own).numpy() for p in exponents}


def root_estimate_error(population: Tensor, positions: int, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Return how far estimates of a covariance from few positions are from the covariance itself.

    Of all positions ``(d, N)``, the covariance of which is the truth, ``positions`` are drawn at random, and

    - ``sample`` is their covariance S;
    - ``root`` is ``c (S / c)^(1/2)`` with ``c = tr(S) / d``: the maximiser of the likelihood regularized by the von
      Neumann divergence from the identity at unit weight (MPN-COV, section 3), in units of the mean variance.

    Returns:
        For both, ``draws`` values of the entropy loss per channel, ``(tr(T^-1 E) - log det(T^-1 E)) / d - 1``, zero
        where the estimate E is the truth T. Eigenvalues of E below the rank tolerance count as the tolerance, because
        the loss of a singular estimate is infinite.
    """
    truth = covariance(population.double())
    whiten = torch.linalg.inv(torch.linalg.cholesky(truth))
    generator = torch.Generator().manual_seed(seed)
    channels, size = population.shape
    losses: dict[str, list[float]] = {"sample": [], "root": []}
    for _ in range(draws):
        chosen = population[:, torch.randperm(size, generator=generator)[:positions]].double()
        lam, u = torch.linalg.eigh(center(chosen) @ center(chosen).T / positions)
        mean = lam.mean()
        lam = lam.clamp_min(rank_tolerance(torch.float32) * lam.max())
        for name, values in (("sample", lam), ("root", (lam * mean).sqrt())):
            ratio = torch.linalg.eigvalsh(whiten @ (u * values) @ u.T @ whiten.T)
            losses[name].append(float((ratio - ratio.log()).sum() / channels - 1))
    return {name: np.array(values) for name, values in losses.items()}
