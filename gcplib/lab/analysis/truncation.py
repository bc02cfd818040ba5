"""Truncating the spectrum: whether a run converges, and what a cut does to the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gcplib.linalg import rank_tolerance

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Convergence",
    "Criteria",
    "convergence",
    "cut_weights",
    "progress_ratio",
    "removed_by_published_truncation",
]


@dataclass(frozen=True)
class Criteria:
    """What counts as convergence, fixed before any run is looked at, and the same for every run.

    Loss and accuracy are measured from guessing: the loss of always giving the classes' frequencies is 1, that of
    certainty 0; the accuracy of always naming the commonest class is 0, that of no mistake 1. So one threshold serves
    any number of classes, however uneven.

    A run **fails** if it diverges, or ends within ``nothing`` of guessing, in loss or in accuracy. That is what "cannot
    converge" has to mean for a run of any length: a slow one has at least begun.
    It **converges** if it gets at least half of the way, in loss and in accuracy, with gradients below the clip.
    Everything between converges **partly**. For short runs that may be all there is to see: they are to be compared
    with their twins (``progress_ratio``).

    Args:
        nothing: so much better than guessing is still guessing. The training metrics of an epoch have an error of
            about 0.01 at 2400 images.
        half: the share of the way, in loss and in accuracy, that a run that converges has gone by its end.
        gradient_norm: the largest mean norm, before clipping, over the last third of the epochs. 5 is where the papers
            clip; above it, steps are as long as the clip says, not the loss, and the gradient has not settled.
    """

    nothing: float = 0.05
    half: float = 0.5
    gradient_norm: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.nothing < self.half < 1 or not self.gradient_norm > 0:
            raise ValueError(f"need 0 < nothing < half < 1 and a positive gradient norm, got {self}")


@dataclass(frozen=True)
class Convergence:
    """The verdict on one run, and the numbers it rests on.

    Attributes:
        verdict: ``converges``, ``partly`` or ``fails``. reasons: the criteria missed, in words; none if it converges.
        loss: of the last epoch, over that of guessing. accuracy: gained over guessing, from 0 to 1.
        gradient_norm: mean over the last third of the epochs. epochs: how many were completed.
    """

    verdict: str
    reasons: tuple[str, ...]
    loss: float
    accuracy: float
    gradient_norm: float
    epochs: int


def _shares(classes: int | Sequence[int]) -> np.ndarray:
    """Return the classes' frequencies, from their number or from their training images."""
    counts = np.ones(max(classes, 0)) if isinstance(classes, int) else np.asarray(classes, dtype=float)
    if counts.ndim != 1 or not (np.isfinite(counts).all() and (counts >= 0).all() and (counts > 0).sum() >= 2):
        raise ValueError(
            f"give the number of classes, or of training images of each, with two classes or more; got {classes!r}"
        )
    return counts[counts > 0] / counts.sum()


def convergence(
    metrics: pd.DataFrame, classes: int | Sequence[int], outcome: str = "finished", criteria: Criteria | None = None
) -> Convergence:
    """Judge whether a run converged, by ``Criteria``, from its own training metrics alone.

    Args:
        metrics: one row an epoch, with ``train_loss`` (cross-entropy), ``train_accuracy`` (0 to 1) and
            ``gradient_norm`` (before clipping). May be empty if the run diverged.
        classes: how many, if they are equally common; otherwise the training images of each.
        outcome: ``finished`` or ``diverged``. criteria: the thresholds.

    Returns:
        Metrics that are not finite fail, like divergence; those of no epoch are NaN.

    Raises:
        ValueError: another outcome, a finished run without an epoch, a missing column, or fewer than two classes.

    >>> import pandas as pd
    >>> history = {"train_loss": [2.3, 0.5], "train_accuracy": [0.1, 0.9], "gradient_norm": [1.0, 0.8]}
    >>> convergence(pd.DataFrame(history), 10).verdict
    'converges'
    """
    criteria = criteria or Criteria()
    shares = _shares(classes)
    if outcome not in ("finished", "diverged"):
        raise ValueError(f"the outcome of a run is finished or diverged, got {outcome!r}")
    names = ("train_loss", "train_accuracy", "gradient_norm")
    epochs = len(metrics)
    if epochs == 0 and outcome == "finished":
        raise ValueError("a finished run has at least one epoch, got an empty history")
    if epochs and (missing := [name for name in names if name not in metrics]):
        raise ValueError(f"the history lacks {missing}; it has {list(metrics.columns)}")
    loss = accuracy = norm = math.nan
    if epochs:
        loss = float(metrics.train_loss.iloc[-1] / -(shares * np.log(shares)).sum())
        accuracy = float((metrics.train_accuracy.iloc[-1] - shares.max()) / (1 - shares.max()))
        norm = float(metrics.gradient_norm.to_numpy(dtype=float)[-math.ceil(epochs / 3) :].mean())

    fatal = ["diverged"] if outcome == "diverged" else []
    if epochs and not np.isfinite(metrics[list(names)].to_numpy(dtype=float)).all():
        fatal.append("metrics that are not finite")
    if loss >= 1 - criteria.nothing:
        fatal.append(f"loss {loss:.2f} of guessing")
    if accuracy <= criteria.nothing:
        fatal.append(f"accuracy {accuracy:.2f} of the way from guessing")
    short = [] if loss <= 1 - criteria.half else [f"loss {loss:.2f} of guessing"]
    short += [] if accuracy >= criteria.half else [f"accuracy {accuracy:.2f} of the way from guessing"]
    if norm > criteria.gradient_norm:
        (fatal if fatal else short).append(f"gradient norm {norm:.3g}")
    verdict = "fails" if fatal else "partly" if short else "converges"
    return Convergence(verdict, tuple(fatal or short), loss, accuracy, norm, epochs)


def progress_ratio(metrics: pd.DataFrame, twin: pd.DataFrame, classes: int | Sequence[int]) -> float:
    """Return how far a run got, over how far its twin did: ``(H - loss) / (H - loss of the twin)``.

    H is the loss of guessing, and both losses are of the last epoch. Unlike the verdict of ``convergence`` it means the
    same after few epochs: 1 is as fast as the twin, 0 has learned nothing, below 0 is worse than guessing.

    Args:
        metrics, twin: histories as in ``convergence``, of runs alike in everything but the truncation, seed included.
        classes: as in ``convergence``.

    Returns:
        0 for a run that ended before its twin, or with a loss that is not finite: what it had learned is lost.

    Raises:
        ValueError: a twin with fewer epochs than the run, with none, or one that has learned nothing itself.
    """
    shares = _shares(classes)
    guessing = float(-(shares * np.log(shares)).sum())
    if not len(twin) or len(twin) < len(metrics):
        raise ValueError(
            f"the twin must have at least one epoch and no fewer than the run, {len(metrics)}; got {len(twin)}"
        )
    if not (gained := guessing - float(twin.train_loss.iloc[-1])) > 0:
        raise ValueError(f"the twin ends {-gained:.3g} above the loss of guessing: nothing can be compared with it")
    own = guessing - float(metrics.train_loss.iloc[-1]) if len(metrics) == len(twin) else 0.0
    return own / gained if math.isfinite(own) else 0.0


def cut_weights(lam: Tensor, eps: float = torch.finfo(torch.float64).eps) -> pd.DataFrame:
    """Return what a cut after N eigenvalues does to the gradient of the square root, for every N and image.

    For ``C = sum_{i <= N} sqrt(lam_i) u_i u_i^T`` every gradient is ``U [(U^T sym(G) U) * W] U^T``, with

    - W between the last kept and the first dropped ``sqrt(lam_N) / (lam_N - lam_{N+1})``, the largest of all. It is at
      least twice ``1 / (2 sqrt(lam_N))``, the largest among the kept, and infinite between equals.
    - Without a cut ``W_ij = 1 / (sqrt(lam_i) + sqrt(lam_j))``, at most ``1 / (2 sqrt(lam_r))``, or ``1 / sqrt(lam_r)``
      where there are null eigenvalues; lam_r is the smallest other one.
    - As released, dropped eigenvalues are set to ``eps`` and differentiated all the same: ``1 / (2 sqrt(eps))`` on
      their diagonal, 3.4e7 in float64.

    But the gradient goes on to features, which are small where eigenvalues are. The **gain**,
    ``max_ij |W_ij| sqrt((lam_i + lam_j) / 2)``, is the norm of the whole backward pass: the largest ``|dl/dX|_F`` at a
    given ``|sym(G)|_F`` is ``2 / sqrt(M)`` of it. Without a cut it is between 1/2 and 1/sqrt(2) *whatever the
    spectrum*; with one ``sqrt(lam_N (lam_N + lam_{N+1}) / 2) / (lam_N - lam_{N+1})``, never below 1/sqrt(2); as
    released ``sqrt(lam_{N+1} / eps) / 2``, unless only zeros are dropped. So no cut lowers the largest possible
    gradient. How fast the gradient *changes* is another question: ``effective_smoothness`` measures it.

    Args:
        lam: ``(B, d)``, largest first, as ``spectra`` gives them; up to the rank tolerance they count as zero.
        eps: what the released rules set dropped eigenvalues to.

    Returns:
        One row for every image and N from 1 to d: ``image``, ``kept`` (N), ``gap`` (``lam_N - lam_{N+1}``),
        ``relative_gap`` (over ``lam_N``, NaN where that is zero), ``weight``, ``weight_full`` (without a cut),
        ``gain``, ``gain_full``, ``gain_released``. A cut at or behind the rank drops nothing: all is as without it.

    Raises:
        ValueError: another shape, eigenvalues that are negative, not finite or do not fall, or only zeros.

    Source: the Daleckii-Krein theorem; as released: Song et al., ICCV 2021 (SVD-TopN).
    """
    import pandas as pd

    if lam.dim() != 2 or 0 in lam.shape:
        raise ValueError(f"eigenvalues must be (B, d), got {tuple(lam.shape)}")
    if not (torch.isfinite(lam).all() and (lam >= 0).all() and (lam.diff(dim=1) <= 0).all() and (lam[:, 0] > 0).all()):
        raise ValueError("eigenvalues must be finite, not negative, largest first, and not all zero (see spectra)")
    images, d = lam.shape
    lam = lam.double() * (lam > rank_tolerance(lam.dtype) * lam[:, :1])
    after = torch.cat([lam[:, 1:], torch.zeros_like(lam[:, :1])], 1)
    gap, real = lam - after, after > 0
    rank = (lam > 0).sum(1, keepdim=True)
    smallest, full_rank = lam.gather(1, rank - 1), rank == d
    weight_full = torch.where(full_rank, 0.5, 1.0) / smallest.sqrt()
    ends = (lam[:, :1].sqrt(), smallest.sqrt() * full_rank)
    gain_full = ((ends[0].square() + ends[1].square()) / 2).sqrt() / (ends[0] + ends[1])
    columns = {
        "image": torch.arange(images).unsqueeze(1),
        "kept": torch.arange(1, d + 1),
        "gap": gap,
        "relative_gap": gap / torch.where(lam > 0, lam, torch.nan),
        "weight": torch.where(real, lam.sqrt() / gap, weight_full),
        "weight_full": weight_full,
        "gain": torch.where(real, (lam * (lam + after) / 2).sqrt() / gap, gain_full),
        "gain_full": gain_full,
        "gain_released": torch.maximum((after / eps).sqrt() / 2, gain_full),
    }
    return pd.DataFrame({name: value.expand(images, d).flatten().cpu().numpy() for name, value in columns.items()})


def removed_by_published_truncation(channels: int, positions: int, drop: int = 50) -> int:
    """Return how many eigenvalues other than zero fall to a truncation that drops the ``drop`` smallest of all.

    ``max(0, rank - (channels - drop))``, with the rank of a covariance over M positions at most
    ``min(channels, M - 1)``. The published setting drops 50 of 256. Images of 224 pixels, the size for ImageNet, have
    14 x 14 positions at stride 16, and lose nothing but zeros. Those of 448 pixels, the size for the fine-grained data
    sets, have 28 x 28, and lose 50 real ones: there, data set and truncation change together.

    Raises:
        ValueError: no channel, no position, or not from 0 to ``channels - 1`` to drop.

    Source: Song et al., ICCV 2021 and TPAMI 2022, as released.

    >>> removed_by_published_truncation(256, 14 * 14), removed_by_published_truncation(256, 28 * 28)
    (0, 50)
    """
    if channels < 1 or positions < 1 or not 0 <= drop < channels:
        raise ValueError(f"cannot drop {drop} of {channels} eigenvalues of a covariance over {positions} positions")
    return max(0, min(channels, positions - 1) - (channels - drop))
