"""Eigenvalues of covariances, and what some of them say for a class: the class score of a set of eigenvalues.

A classifier behind a covariance pool scores class c by ``<W_c, C> + b_c``, where ``C = U f(lam) U^T`` and the symmetric
W_c is the row of weights, unfolded. Every eigenvalue has its part, ``e_i = f(lam_i) u_i^T W_c u_i``, and a set I of
them the score ``s_c^I = <W_c, U_I f(lam_I) U_I^T>``. With ``against`` another class, W_c is the difference of the two
matrices: why this class rather than that one. Everything spectral runs in float64; scores have the features' type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gcplib.linalg import (
    EigenvalueSet,
    GradientRule,
    SpectralFunction,
    center,
    covariance,
    covariance_map,
    get_eigenvalue_set,
    get_rule,
    rank_tolerance,
    truncate,
)
from gcplib.linalg.eigen import eigh
from gcplib.models import Head

__all__ = [
    "Classes",
    "Sets",
    "class_matrices",
    "differentiable_scores",
    "get_spectrum",
    "nonzero_sets",
    "set_scores",
    "spectra",
]

Sets = Sequence[str | EigenvalueSet]
Classes = Sequence[int] | Tensor


def spectra(features: Tensor) -> Tensor:
    """Return the eigenvalues of each image's covariance, largest first: ``(B, C, H, W)`` to ``(B, C)``, in float64.

    >>> spectra(torch.tensor([[[1.0, 3.0], [2.0, 2.0]]]))
    tensor([[1., 0.]], dtype=torch.float64)
    """
    # In blocks, which bound the memory at any number of images.
    blocks = [torch.linalg.eigvalsh(covariance(block.flatten(2).double())) for block in features.split(256)]
    return torch.cat(blocks).clamp_min(0).flip(-1)


@dataclass(frozen=True)
class Spectrum:
    """Centered reduced features x ``(B, d, M)``, their eigenvalues (ascending) and vectors, and the pool's values f."""

    x: Tensor
    lam: Tensor
    u: Tensor
    f: Tensor
    rank: int

    def masks(self, sets: Sets) -> Tensor:
        """Return which eigenvalues are in each of the sets, ``(B, sets, d)`` of 0 and 1."""
        return torch.stack([chosen.mask(self.lam, self.rank) for chosen in nonzero_sets(sets)], 1).to(self.lam.dtype)


def nonzero_sets(sets: Sets) -> list[EigenvalueSet]:
    """Return the sets, each of an image's eigenvalues that are not zero; raise a ValueError if there are none.

    Channels that are off all over an image make others zero, which say nothing: the smallest are those above.
    """
    if len(sets) == 0:
        raise ValueError("no set of eigenvalues given; name at least one, such as 'bottom(16)'")
    return [_of_nonzero(get_eigenvalue_set(chosen)) for chosen in sets]


def _of_nonzero(chosen: EigenvalueSet) -> EigenvalueSet:
    def ranks(lam: Tensor) -> Tensor:
        counts = (lam > rank_tolerance(lam.dtype) * lam[:, :1]).sum(-1)
        mask = torch.zeros_like(lam, dtype=torch.bool)
        for count in counts.unique().tolist():
            if count < chosen.least:
                raise ValueError(
                    f"the set {chosen} needs {chosen.least} eigenvalues, more than the rank of a covariance in this "
                    f"batch: only {count} are not zero; take a smaller set"
                )
            rows = counts == count
            mask[rows, :count] = chosen.ranks(lam[rows, :count])
        return mask

    return EigenvalueSet(chosen.name, ranks, chosen.least)


def _covariance_pool(head: nn.Module) -> nn.Module:
    """Return the pool of a head, or say why its score is not one of eigenvalues."""
    pool = getattr(head, "pool", None)
    whole = getattr(pool, "out_features", 0) == (d := getattr(pool, "channels", 0)) * (d + 1) // 2
    # The Gaussian's matrix is larger, that of blocks is none, and a gate changes the features first.
    if not isinstance(getattr(pool, "fn", None), SpectralFunction) or not whole or getattr(head, "gate", None):
        raise ValueError(
            f"{type(head).__name__} with the pool {type(pool).__name__} has no covariance pool: the set of eigenvalues "
            "needs a pool that is a function of one covariance, such as mpn_cov or isqrt_cov, and no gate before it"
        )
    if head.training:
        raise ValueError("the head is in training mode, where batch norm mixes the images; call head.eval() first")
    return pool


def _reduced_features(pool: nn.Module, features: Tensor) -> Tensor:
    """Return what the covariance is made of, ``(B, d, H, W)``."""
    if features.dim() != 4 or features.shape[1] != pool.in_channels or features.shape[2] * features.shape[3] < 2:
        raise ValueError(
            f"expected features (B, {pool.in_channels}, H, W) of two positions or more, got {tuple(features.shape)}"
        )
    return pool.reduction(features)


@torch.no_grad()
def get_spectrum(head: Head, features: Tensor, shuffle: int | None = None) -> Spectrum:
    """Return the spectrum of every image; with ``shuffle``, a seed, random orthonormal vectors in place of U."""
    pool = _covariance_pool(head)
    x = center(_reduced_features(pool, features).flatten(2).double())
    lam, u = eigh(covariance(x))
    # Asked of the pool itself, so that whatever it does to the eigenvalues is in here.
    f = (u * (pool.matrix(x) @ u)).sum(-2)
    if shuffle is not None:
        generator = torch.Generator().manual_seed(shuffle)
        u = torch.linalg.qr(torch.randn(u.shape, generator=generator, dtype=u.dtype))[0].to(u.device)
    return Spectrum(x, lam.clamp_min(0), u, f, min(x.shape[1], x.shape[2] - 1))


def _weights(head: Head, classes: Classes) -> Tensor:
    """Return the classifier's rows of some classes, in float64."""
    count, index = head.classifier.out_features, torch.as_tensor(classes, device=head.classifier.weight.device)
    integers = index.dim() == 1 and not index.is_floating_point() and index.dtype != torch.bool
    if not integers or ((index < 0) | (index >= count)).any():
        raise ValueError(f"classes must be a list of numbers from 0 to {count - 1}, one per image, got {classes}")
    return head.classifier.weight.detach()[index].double()


def class_matrices(head: Head, classes: Classes, against: Classes | None = None, images: int | None = None) -> Tensor:
    """Return the symmetric W of every image, ``logit = <W, C> + bias``, float64 ``(B, d, d)``.

    Args:
        head: covariance pool and linear classifier, in eval mode.
        classes: of the images, ``(B,)``.
        against: other classes ``(B,)``; then W is the difference, of ``logit_c - logit_other``.
        images: how many there are, if that is to be checked.

    Raises:
        ValueError: no covariance pool, training mode, a class the classifier does not have, or a wrong number of them.
    """
    pool, vectors = _covariance_pool(head), _weights(head, classes)
    if against is not None:
        others = _weights(head, against)
        if len(vectors) != len(others):
            raise ValueError(f"got {len(vectors)} classes against {len(others)}; give one of each for every image")
        vectors = vectors - others
    if images is not None and len(vectors) != images:
        raise ValueError(f"got {len(vectors)} classes for {images} images; give one per image")
    row, column = torch.triu_indices(pool.channels, pool.channels, device=vectors.device)
    upper = vectors.new_zeros(len(vectors), pool.channels, pool.channels)
    # An entry off the diagonal is once in the vector and twice in the matrix.
    upper[:, row, column] = vectors / 2
    return upper + upper.mT


def set_scores(
    head: Head,
    features: Tensor,
    sets: Sets,
    classes: Classes,
    against: Classes | None = None,
    shuffle: int | None = None,
) -> Tensor:
    """Return the score ``<W, U_I f(lam_I) U_I^T>`` of every set of eigenvalues, ``(B, sets)``.

    One decomposition for all sets, without a gradient. The scores of a partition sum to the logit without its bias.

    Args:
        head: covariance pool and linear classifier, in eval mode.
        features: of the backbone, ``(B, C, H, W)``.
        sets: of eigenvalues, or their names.
        classes, against: ``(B,)``; see ``class_matrices``.
        shuffle: seed of random orthonormal vectors in place of U, as a sanity check.

    Raises:
        ValueError: no covariance pool, training mode, wrong shapes, a class the classifier does not have; or a set that
            is empty, out of range, or needs more eigenvalues than the rank.
    """
    spectrum = get_spectrum(head, features, shuffle)
    w = class_matrices(head, classes, against, len(features))
    evidence = spectrum.f * (spectrum.u * (w @ spectrum.u)).sum(-2)
    return (spectrum.masks(sets) @ evidence.unsqueeze(-1)).squeeze(-1).to(features.dtype)


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
    pool, w = _covariance_pool(head), class_matrices(head, classes, against, len(features))
    x = (features if reduced else _reduced_features(pool, features)).flatten(2).double()
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
