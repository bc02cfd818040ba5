"""The class score of a set of eigenvalues with its exact gradient by the features, for maps by back-propagation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from gcplib.lab.analysis.spectral_scores import (
    Classes,
    Sets,
    class_matrices,
    covariance_pool,
    nonzero_sets,
    reduced_features,
)
from gcplib.linalg import EigenvalueSet, GradientRule, covariance_map, get_rule, truncate
from gcplib.models import Head

__all__ = ["differentiable_scores"]


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


def differentiable_scores(
    head: Head,
    features: Tensor,
    sets: Sets,
    classes: Classes,
    against: Classes | None = None,
    reduced: bool = False,
) -> Tensor:
    """Return ``set_scores`` with their exact gradient by the features: one decomposition per set.

    Between a kept eigenvalue i and a dropped one j it is ``f_i / (lam_i - lam_j)``, which grows where the cut is
    between near neighbors: a small change of the features then turns the kept eigenvectors into the dropped ones.

    Args:
        head, features, sets, classes, against: as in ``set_scores``.
        reduced: the features are those behind the reduction, which the covariance is made of.

    Raises:
        ValueError: as ``set_scores``. NonFiniteError: a cut between equal eigenvalues.
    """
    pool, w = covariance_pool(head), class_matrices(head, classes, against, len(features))
    x = (features if reduced else reduced_features(pool, features)).flatten(2).double()
    plain, scores = replace(pool.fn, gain=None), []
    for chosen in nonzero_sets(sets):
        chosen.check(min(x.shape[1], x.shape[2] - 1))
        scores.append((covariance_map(x, plain, _truncation(pool, chosen)) * w).sum((-2, -1)))
    scores = torch.stack(scores, -1)
    if pool.fn.gain is not None:
        # A gain is a factor of the whole matrix, whichever eigenvalues are looked at.
        whole = covariance_map(x, plain)
        gain = (covariance_map(x, pool.fn) * whole).sum((-2, -1)) / whole.square().sum((-2, -1))
        scores = scores * gain.unsqueeze(-1)
    return scores.to(features.dtype)
