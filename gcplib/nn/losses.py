"""Losses by name: cross-entropy, and cross-entropy over the hardest negative classes alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gcplib.linalg import spectral_dtype
from gcplib.linalg.calls import resolve
from gcplib.linalg.tolerance import require
from gcplib.nn.options import check_positive

K = "k, None for all negatives,"  # in messages


def gradient_boosting_cross_entropy(logits: Tensor, target: Tensor, k: int | None = 15) -> Tensor:
    """Return the mean cross-entropy over each image's class y and its k hardest negatives J.

        l = -log(e^{s_y} / (e^{s_y} + sum_{i in J} e^{s_i})),    J the k other classes with the largest logits s

    With ``q`` the softmax over y and J, the gradient is ``q_i`` in J, ``q_y - 1`` at y and 0 elsewhere: leaving classes
    out boosts the rest. With k all other classes it is cross-entropy. Half precisions are computed in float32.

    Args:
        logits: ``(B, classes)``.
        target: classes ``(B,)``, int64.
        k: from 1 to classes - 1, or None for all.

    Raises:
        ValueError: shapes that do not fit, a k out of its range, or a class that does not exist.
        TypeError: logits that are not floating point, or targets that are not int64.

    Source: Sun et al., AAAI 2020 (arXiv 1912.06842). Our reading: the paper's formula could not be checked; code that
    credits an author computes this one, with k = 15 for 200 classes.

    >>> gradient_boosting_cross_entropy(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([0]), k=1)
    tensor(0.6931)
    """
    _check(logits, target)
    negatives = logits.shape[1] - 1
    k = negatives if k is None else k
    check_positive(K, k)
    if k > negatives:
        raise ValueError(f"k = {k} hardest negatives of {logits.shape[1]} classes: there are {negatives}; lower k")
    logits, own = logits.to(spectral_dtype(logits.dtype)), target.unsqueeze(1)
    score = logits.gather(1, own)
    hardest = logits.scatter(1, own, -torch.inf).topk(k, sorted=False).values
    return (torch.cat([score, hardest], 1).logsumexp(1) - score.squeeze(1)).mean()


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.dim() != 2 or target.shape != logits.shape[:1] or logits.shape[0] < 1 or logits.shape[1] < 2:
        raise ValueError(
            "expected logits (B, classes) of at least one image and two classes, and targets (B,), "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    if target.dtype != torch.int64:
        raise TypeError(f"targets must be classes as int64, got {target.dtype}; convert them with target.long()")

    def otherwise() -> None:
        bad = target[(target < 0) | (target >= logits.shape[1])]
        raise ValueError(
            f"{len(bad)} of {len(target)} targets are not among the {logits.shape[1]} classes 0 to "
            f"{logits.shape[1] - 1}, such as {int(bad[0])}"
        )

    ok = ((target >= 0) & (target < logits.shape[1])).all()
    require(ok, "a target is not among the classes of the logits", otherwise)


class GradientBoostingLoss(nn.Module):
    """``gradient_boosting_cross_entropy`` over the k hardest negatives, or with None over all of them."""

    def __init__(self, k: int | None = 15):
        super().__init__()
        if k is not None:
            check_positive(K, k)
        self.k = k

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return gradient_boosting_cross_entropy(logits, target, self.k)

    def extra_repr(self) -> str:
        return f"k={self.k}"


LOSSES = {"cross_entropy": nn.CrossEntropyLoss, "gce": GradientBoostingLoss}


def get_loss(loss: str | Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss ``loss(logits, target) -> scalar``: what is given, or the one of that name.

    Args:
        loss: a function or module; ``cross_entropy``; or, over the k hardest negatives, ``gce(15)`` or ``gce(None)``.

    Raises:
        ValueError: an unknown name, or a k below 1. A k above the negatives is found at the first batch.

    >>> get_loss("gce(None)")(torch.zeros(1, 4), torch.tensor([2]))
    tensor(1.3863)
    """
    return loss if callable(loss) else resolve(nn.Module, "loss", loss, LOSSES)


def list_losses() -> list[str]:
    """Return what ``get_loss`` knows, with an example where a setting is needed."""
    return ["cross_entropy", "gce(15)", "gce(None)"]
