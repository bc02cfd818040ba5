"""At which positions some eigenvalues of a covariance find what they say for a class: maps of their class scores.

All maps are ``(B, sets, H, W)`` over the positions of the feature map, and signed: positive where the position speaks
for the class. The scores are those of ``spectral_scores``.

Source: the question is that of Song et al., TPAMI 2022, whose own maps are not defined in what they published.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gcplib.lab.analysis.spectral_scores import (
    Classes,
    Sets,
    class_matrices,
    covariance_pool,
    get_spectrum,
    nonzero_sets,
    reduced_features,
)
from gcplib.linalg import EigenvalueSet, GradientRule, covariance_map, get_rule, truncate
from gcplib.models import Head

__all__ = ["class_specificity", "differentiable_scores", "grad_cam_map", "gradient_map", "position_map"]


def position_map(
    head: Head,
    features: Tensor,
    sets: Sets,
    classes: Classes,
    against: Classes | None = None,
    shuffle: int | None = None,
) -> Tensor:
    """Return the exact decomposition of the sets' scores over positions, ``(B, sets, H, W)``.

    With x centered and ``B_I = U_I (f(lam_I) / lam_I) U_I^T``,

        U_I f(lam_I) U_I^T = (1 / M) sum_m B_I x_m x_m^T,    s^I = (1 / M) sum_m x_m^T W B_I x_m.

    The terms of the last sum are the map: it sums to the score over positions, and over a partition of the eigenvalues
    to the map of all. Other exact decompositions exist (``gradient_map`` is one for the square root). ``shuffle`` as in
    ``eigenvalue_evidence``; it gives a map with the same gains ``f / lam`` along random directions, which sums to
    nothing of interest.

    Raises:
        ValueError: as ``set_scores``.
    """
    spectrum = get_spectrum(head, features, shuffle)
    w = class_matrices(head, classes, against, len(features))
    gain = torch.where(spectrum.lam > 0, spectrum.f / spectrum.lam, torch.zeros_like(spectrum.lam))
    along = spectrum.u.mT @ spectrum.x
    terms = along * (spectrum.u.mT @ (w @ spectrum.x)) * gain.unsqueeze(-1) / spectrum.x.shape[-1]
    maps = spectrum.masks(sets) @ terms
    return maps.unflatten(-1, features.shape[2:]).to(features.dtype)


def _truncation(pool: nn.Module, chosen: EigenvalueSet) -> GradientRule:
    """Return the exact gradient of the map that keeps a set, of those that the pool itself keeps."""
    rule = getattr(pool, "rule", None)
    if rule is None or rule.keep is None or rule.where == "backward":
        return truncate(get_rule("exact"), chosen)

    def both(lam: Tensor) -> Tensor:
        # Rules as released count null eigenvalues as well.
        missing = pool.channels - lam.shape[-1] if rule.clamps_forward else 0
        kept = rule.keep.ranks(nn.functional.pad(lam, (0, missing)))
        return chosen.ranks(lam) & kept[..., : lam.shape[-1]]

    return truncate(get_rule("exact"), EigenvalueSet(f"{chosen} of {rule.keep}", both, chosen.least))


def _scores_of_reduced(pool: nn.Module, reduced: Tensor, sets: Sets, w: Tensor) -> Tensor:
    """Return the scores ``(B, sets)`` of reduced features, with their exact gradient."""
    x = reduced.flatten(2).double()
    plain = replace(pool.fn, gain=None)
    scores = []
    for chosen in nonzero_sets(sets):
        chosen.check(min(x.shape[1], x.shape[2] - 1))
        scores.append((covariance_map(x, plain, _truncation(pool, chosen)) * w).sum((-2, -1)))
    scores = torch.stack(scores, -1)
    if pool.fn.gain is not None:
        # A gain is a factor of the whole matrix, whichever eigenvalues are looked at.
        whole = covariance_map(x, plain)
        gain = (covariance_map(x, pool.fn) * whole).sum((-2, -1)) / whole.square().sum((-2, -1))
        scores = scores * gain.unsqueeze(-1)
    return scores.to(reduced.dtype)


def differentiable_scores(
    head: Head, features: Tensor, sets: Sets, classes: Classes, against: Classes | None = None
) -> Tensor:
    """Return ``set_scores`` with their exact gradient by the features: one decomposition a set.

    Between a kept eigenvalue i and a dropped one j it is ``f_i / (lam_i - lam_j)``, which grows where the cut is
    between near neighbors: a small change of the features then turns the kept eigenvectors into the dropped ones.

    Raises:
        ValueError: as ``set_scores``. NonFiniteError: a cut between equal eigenvalues.
    """
    pool = covariance_pool(head)
    return _scores_of_reduced(
        pool, reduced_features(pool, features), sets, class_matrices(head, classes, against, len(features))
    )


def _gradients(scores: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of every set's score ``(B, sets)`` by x, ``(sets, *x.shape)``."""
    return torch.stack([torch.autograd.grad(s, x, retain_graph=True)[0] for s in scores.sum(0)])


def gradient_map(
    head: Head, features: Tensor, sets: Sets, classes: Classes, against: Classes | None = None, layer: str = "reduced"
) -> Tensor:
    """Return gradient times input, summed over channels, of the sets' scores: ``(B, sets, H, W)``.

    Args:
        layer: ``reduced``, at the centered features that the covariance is made of; or ``features``, at the backbone's.
            At ``reduced`` and for a map of degree p, ``f(a lam) = a^p f(lam)``, it is complete: it sums to ``2 p``
            times the score. The square root, and its iterations with their scale, have p = 1/2.

    For the other arguments see ``set_scores``.

    Raises:
        ValueError: as ``set_scores``, or an unknown layer. NonFiniteError: a cut between equal eigenvalues.
    """
    if layer not in ("reduced", "features"):
        raise ValueError(f"unknown layer {layer!r}; known: reduced, features")
    pool, w = covariance_pool(head), class_matrices(head, classes, against, len(features))
    at_features = layer == "features"
    x = (features if at_features else reduced_features(pool, features)).detach().requires_grad_()
    gradients = _gradients(_scores_of_reduced(pool, reduced_features(pool, x) if at_features else x, sets, w), x)
    x = x.detach()
    if not at_features:
        x = x - x.mean((2, 3), keepdim=True)
    return (gradients * x).sum(2).transpose(0, 1)


def grad_cam_map(head: Head, features: Tensor, sets: Sets, classes: Classes, against: Classes | None = None) -> Tensor:
    """Return Grad-CAM of the sets' scores at the backbone's features, without its final ReLU: ``(B, sets, H, W)``.

    ``sum_k a_k x_k`` with a_k the mean over positions of the gradient by channel k.

    Trap: a covariance does not change when all positions move alike, so its gradient has the mean zero over positions,
    and Grad-CAM right before a covariance pool is zero. Before a reduction it is not, but only through the ReLU.

    Raises:
        ValueError: as ``set_scores``; or the pool has no reduction, so that the map would be rounding noise.

    Source: Selvaraju et al., ICCV 2017.
    """
    pool, w = covariance_pool(head), class_matrices(head, classes, against, len(features))
    if isinstance(pool.reduction, nn.Identity):
        raise ValueError(
            "Grad-CAM right before a covariance pool is zero: the mean over positions of the gradient vanishes; use "
            "gradient_map or position_map, or a pool with a reduction"
        )
    x = features.detach().requires_grad_()
    gradients = _gradients(_scores_of_reduced(pool, reduced_features(pool, x), sets, w), x)
    return (gradients.mean((3, 4), keepdim=True) * x.detach()).sum(2).transpose(0, 1)


def class_specificity(maps: Tensor, others: Tensor) -> Tensor:
    """Return ``1 - r`` with r the correlation over positions of two maps ``(..., H, W)``, such as of two classes.

    0 where the class makes no difference, 1 where the maps have nothing in common, 2 where one is the other's negative.

    Raises:
        ValueError: the shapes differ, or a map is constant.
    """
    if maps.shape != others.shape:
        raise ValueError(f"maps of two classes must have one shape, got {tuple(maps.shape)} and {tuple(others.shape)}")
    first, second = (m.flatten(-2).double() for m in (maps, others))
    first, second = first - first.mean(-1, keepdim=True), second - second.mean(-1, keepdim=True)
    size = first.norm(dim=-1) * second.norm(dim=-1)
    if (size == 0).any():
        raise ValueError("a constant map has no correlation with another")
    return (1 - (first * second).sum(-1) / size).to(maps.dtype)
