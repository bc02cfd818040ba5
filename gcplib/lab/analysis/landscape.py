"""The loss around the stem's output, along its gradient: how far loss and gradient move on the way.

Santurkar et al. (NeurIPS 2018) ask how smooth the loss is that the optimizer meets; Wang et al. (CVPR 2020) ask it for
average and covariance pooling. Both move the features X of an early layer along the gradient g of the loss, and look at
the **band** of losses ``L(X + eta g)`` and of changes ``|g(X + eta g) - g(X)|``: a narrow one is a smooth loss with a
gradient that predicts what comes. X and not the weights, so that networks with other weights behind it can be compared.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcplib.lab.analysis.descent import descend
from gcplib.lab.analysis.stem import find_stem, stem_output
from gcplib.linalg import NonFiniteError
from gcplib.models import Backbone, Model, create_model

__all__ = [
    "PUBLISHED_STEPS",
    "band_summary",
    "loss_landscape",
    "models_from_one_start",
    "relative_steps",
    "train_and_look",
]

Loss = Callable[[Tensor, Tensor], Tensor]

# 0.1 to 75 in 50 steps, as the released code has them.
PUBLISHED_STEPS = tuple(0.1 + i * (75 - 0.1) / 49 for i in range(50))

SCALES = ("published", "relative")


def relative_steps(count: int, smallest: float = 1e-5, largest: float = 0.1) -> tuple[float, ...]:
    """Return ``count`` distances in units of the size of X, each the same multiple of the one before.

    Raises:
        ValueError: fewer than two, or not ``0 < smallest < largest``.

    >>> [round(step, 3) for step in relative_steps(3, 0.01, 0.25)]
    [0.01, 0.05, 0.25]
    """
    if count < 2 or not 0 < smallest < largest < math.inf:
        raise ValueError(f"need 2 steps or more between 0 < smallest < largest, got {count}, {smallest}, {largest}")
    return tuple(smallest * (largest / smallest) ** (i / (count - 1)) for i in range(count))


def loss_landscape(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    steps: Mapping[str, Sequence[float]],
    loss: Loss = functional.cross_entropy,
    stem: str = "",
) -> list[dict]:
    """Return loss and change of the gradient along the gradient of X, the stem's output, for one batch.

    With ``g = dL/dX``, over the whole batch as one vector, X moves to ``X + eta g`` (``published``: up, against
    descent), or to ``X + eta |X| g / |g|`` (``relative``: our own, the same relative distance in every network). The
    published step depends on the batch, too: the gradient of a mean over B images shrinks as 1 / B.

    Args:
        model: in the mode to measure in, usually training. Weights, gradients, buffers and random numbers are the same
            bits afterwards, also after an error. Random layers draw the same numbers at every step.
        inputs, labels: one batch. steps: lists of eta by scale, ``published`` and ``relative``. loss: of outputs and
            labels. stem: see ``find_stem``.

    Returns:
        One row a scale and eta: ``scale``, ``eta``, ``distance`` moved, ``loss`` and ``change`` there (the length of
        the difference of gradients), and of X itself ``loss_here``, ``gradient_norm``, ``size``. What is not finite
        is an outcome: ``finite`` is then False, ``change`` infinite, and ``loss`` NaN where there is none.

    Raises:
        ValueError: an unknown scale, no steps, one that is not positive; a gradient of zero; a stem that is not
            there, or is not called once in a pass.

    Source: Wang et al., CVPR 2020, equations of the loss and the gradient; ``published`` follows the released code.
    """
    if not steps or (unknown := set(steps) - set(SCALES)):
        raise ValueError(f"steps must be of the scales {', '.join(SCALES)}, got {sorted(unknown) if steps else 'none'}")
    if bad := {k: list(v) for k, v in steps.items() if not len(v) or not all(0 < eta < math.inf for eta in v)}:
        raise ValueError(f"steps must be positive and finite, and at least one a scale, got {bad}")
    with stem_output(model, find_stem(model, stem), inputs) as run:
        value, gradient, x = _loss_and_gradient(run, None, labels, loss)
        if gradient is None:
            return _lost(steps, value)
        norm, size, rows = _norm(gradient), _norm(x), []
        if norm == 0:
            raise ValueError("the gradient at the stem's output is zero: there is no direction to move in")
        for scale, etas in steps.items():
            unit = 1.0 if scale == "published" else size / norm
            for eta in etas:
                moved = (x.double() + eta * unit * gradient).to(x.dtype)
                found, there, _ = _loss_and_gradient(run, moved, labels, loss)
                change = math.inf if there is None else _norm(there - gradient)
                row = {"scale": scale, "eta": float(eta), "distance": eta * unit * norm, "loss": found}
                row |= {"change": change, "finite": there is not None}
                rows.append(row | {"loss_here": value, "gradient_norm": norm, "size": size})
    return rows


def _lost(steps: Mapping[str, Sequence[float]], value: float = math.nan) -> list[dict]:
    """Return the rows of a batch whose own loss or gradient is not finite."""
    there = {"distance": math.nan, "loss": math.nan, "change": math.inf, "finite": False}
    here = {"loss_here": value, "gradient_norm": math.inf, "size": math.nan}
    return [{"scale": s, "eta": float(eta)} | there | here for s, etas in steps.items() for eta in etas]


def _norm(x: Tensor) -> float:
    return x.double().norm().item()


def _loss_and_gradient(
    run: Callable, x: Tensor | None, labels: Tensor, loss: Loss
) -> tuple[float, Tensor | None, Tensor | None]:
    """Return the loss with X in the stem's place, its gradient by X in float64, None where not all is finite, and X."""
    try:
        output, x = run(x)
        value = loss(output, labels)
        (gradient,) = torch.autograd.grad(value, x)
    except NonFiniteError:
        return math.nan, None, None
    finite = bool(torch.isfinite(value) & torch.isfinite(gradient).all())
    return value.item(), gradient.double() if finite else None, x.detach()


def band_summary(rows: Iterable[Mapping]) -> dict[str, float]:
    """Return what the rows of one batch and one scale say, with g and L of X itself.

    Returns:
        ``loss_band``: largest minus smallest loss; ``change_band``: the same of changes (both as published).
        ``lipschitz``: largest ``|L(X + d) - L| / |d|``. ``beta``: largest change over distance, the effective
        smoothness. ``relative_change``: largest change over ``|g|``, 0 where the gradient here is the one there and 1
        or more where it tells little. All are infinite where anything is not finite; smaller is smoother.

    Raises:
        ValueError: no rows, or rows of several points or scales.

    >>> here = {"scale": "published", "finite": True, "loss_here": 1.0, "gradient_norm": 2.0, "size": 9.0}
    >>> there = [{"distance": 1.0, "loss": 2.0, "change": 1.0}, {"distance": 2.0, "loss": 5.0, "change": 3.0}]
    >>> found = band_summary([here | row for row in there])
    >>> found["loss_band"], found["change_band"], found["lipschitz"], found["beta"], found["relative_change"]
    (3.0, 2.0, 2.0, 1.5, 1.5)
    """
    rows = list(rows)
    # As text, because NaN is not equal to itself.
    points = {str([row.get("step"), row["scale"], row["loss_here"], row["gradient_norm"]]) for row in rows}
    if len(points) != 1:
        raise ValueError(f"need the rows of one batch and one scale, got {len(rows)} rows of {len(points)}")
    here, norm = rows[0]["loss_here"], rows[0]["gradient_norm"]
    facts = {"loss": here, "gradient_norm": norm}
    if not all(row["finite"] for row in rows):
        return dict.fromkeys(("loss_band", "change_band", "lipschitz", "beta", "relative_change"), math.inf) | facts
    losses, changes = [row["loss"] for row in rows], [row["change"] for row in rows]
    return {
        "loss_band": max(losses) - min(losses),
        "change_band": max(changes) - min(changes),
        "lipschitz": max(abs(row["loss"] - here) / row["distance"] for row in rows),
        "beta": max(row["change"] / row["distance"] for row in rows),
        "relative_change": max(changes) / norm,
    } | facts


def models_from_one_start(
    backbone: Backbone, pools: Mapping[str, Mapping], classes: int, reduction: int | None = None, seed: int = 0
) -> dict[str, Model]:
    """Return one model for each pool, with copies of one backbone, and reductions that start alike.

    Args:
        pools: by a name for people, the name of a pool and its options: ``{"exact root": {"pool": "mpn_cov"}}``.
        seed: of reduction and classifier.
    """
    models = {}
    for name, fields in pools.items():
        options = dict(fields)
        pool = options.pop("pool")
        torch.manual_seed(seed)  # a reduction is drawn first, so it is the same with every pool
        models[name] = create_model(copy.deepcopy(backbone), pool, classes, reduction=reduction, **options)
    return models


def train_and_look(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    steps: Mapping[str, Sequence[float]],
    every: int = 10,
    clip: float = 0.0,
    stem: str = "",
) -> list[dict]:
    """Train on ``batches`` by cross-entropy; on every ``every``-th one, before its step, look at ``loss_landscape``.

    Args:
        model: trained in place. batches: inputs and labels. optimizer: of its parameters. steps, stem: see
            ``loss_landscape``. clip: largest gradient norm of a step, 0 for none.

    Returns:
        The rows of all looks, with ``step``. Training that is not finite ends there, with the rows of a look at that
        batch, none of which is finite.

    Raises:
        ValueError: ``every`` is below 1, or what ``loss_landscape`` refuses.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    rows: list[dict] = []
    try:
        for step, inputs, labels in descend(model, batches, optimizer, clip):
            if step % every == 0:
                found = loss_landscape(model, inputs, labels, steps, stem=stem)
                rows += [{"step": step} | row for row in found]
                if math.isinf(found[0]["gradient_norm"]):
                    break
    except NonFiniteError:
        rows += [{"step": step} | row for row in _lost(steps)]
    return rows
