"""How smooth training is: the largest change of the gradient along itself, per distance moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from gcplib.linalg import NonFiniteError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Smoothness",
    "effective_smoothness",
    "largest_hessian_eigenvalue",
    "mean_logs",
    "measure_while_training",
    "smoothness_while_training",
]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Smoothness:
    """What ``effective_smoothness`` found at one point of training."""

    loss: float
    gradient_norm: float  # of all parameters together
    beta: float  # the largest change of the gradient per distance; infinite where a gradient was not finite
    length: float  # the distance at which it was found
    finite: bool


NOT_FINITE = Smoothness(math.nan, math.inf, math.inf, math.nan, False)


def mean_logs(rows: Iterable[dict], by: Sequence[str]) -> pd.DataFrame:
    """Return the means of ``log beta`` and ``log gradient_norm``, to the base 10, of rows that are alike in ``by``.

    What is not finite enters as the largest float32.
    """
    import pandas as pd

    table, largest = pd.DataFrame(rows), torch.finfo(torch.float32).max
    for name in ("beta", "gradient_norm"):
        table[f"log {name}"] = table[name].clip(upper=largest).map(math.log10)
    return table.groupby(list(by), sort=False)[["log beta", "log gradient_norm"]].mean().reset_index()


def effective_smoothness(
    model: nn.Module, inputs: Tensor, labels: Tensor, lengths: Sequence[float], loss: Loss = cross_entropy
) -> Smoothness:
    """Return the effective beta-smoothness at one batch: how fast the gradient changes along itself.

    ``beta = max_s |g(theta - s g / |g|) - g(theta)| / s`` over the distances s of ``lengths``. Distances, and not
    multiples of the gradient: a rule with too long a gradient would move further, and look smoother for it. g is what
    the backward pass gives, in float64; as gradient rules change it, it need not be the derivative of any loss.

    Args:
        model: in the mode to measure in, usually training. Parameters, their ``grad`` and buffers stay as they are.
        inputs, labels: one batch.
        lengths: distances in parameter space.
        loss: of outputs and labels.

    Returns:
        A gradient that is not finite, here or there, is an outcome: ``beta`` is then infinite.

    Raises:
        ValueError: no lengths, or one that is not positive; no parameter that requires a gradient; a gradient of zero,
            which has no direction.

    Source: Santurkar et al., NeurIPS 2018; for covariance pooling Song et al., ICCV 2021.
    """
    if not lengths or not all(0 < s < math.inf for s in lengths):
        raise ValueError(f"lengths must be positive and finite, and at least one, got {list(lengths)}")
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient")

    def field(theta: Iterable[Tensor]) -> tuple[float, Tensor] | None:
        """Return the loss and its gradient by all parameters as one vector, or None if that is not finite."""
        leaves = [value.detach().requires_grad_() for value in theta]
        # Copies, or batch norm's running averages would drift from one evaluation to the next.
        state = {name: buffer.clone() for name, buffer in model.named_buffers()}
        state |= zip(parameters, leaves, strict=True)
        try:
            value = loss(functional_call(model, state, (inputs,)), labels)
            found = torch.autograd.grad(value, leaves, materialize_grads=True)
        except NonFiniteError:
            return None
        gradient = torch.cat([g.flatten().double() for g in found])
        return (value.item(), gradient) if gradient.isfinite().all() else None

    if (here := field(parameters.values())) is None:
        return NOT_FINITE
    value, gradient = here
    norm = gradient.norm().item()
    if norm == 0:
        raise ValueError(f"the gradient of {type(model).__name__} is zero: there is no direction to move in")
    changes = {}
    for s in lengths:
        steps = (-s / norm * gradient).split([p.numel() for p in parameters.values()])
        moved = zip(parameters.values(), steps, strict=True)
        there = field((p.double() + step.view_as(p)).to(p.dtype) for p, step in moved)
        changes[s] = math.inf if there is None else (there[1] - gradient).norm().item() / s
    worst = max(changes, key=changes.__getitem__)
    return Smoothness(value, norm, changes[worst], float(worst), math.isfinite(changes[worst]))


def measure_while_training(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    measure: Callable[[Tensor, Tensor], list[dict]],
    lost: list[dict],
    every: int = 10,
    clip: float = 0.0,
) -> list[dict]:
    """Train on ``batches`` by cross-entropy, and measure on every ``every``-th of them, before its step.

    Args:
        model: trained in place.
        batches: inputs and labels.
        optimizer: of its parameters.
        measure: gives rows with a ``gradient_norm`` for inputs and labels, and leaves the model as it is.
        lost: the rows of a batch whose gradient is not finite.
        every: steps between two measurements.
        clip: largest gradient norm of a step, 0 for none.

    Returns:
        The rows of all measurements with their ``step``. Training whose gradient is not finite ends there, with the
        rows that ``measure`` gives for it, or ``lost``.

    Raises:
        ValueError: ``every`` is below 1, or what ``measure`` refuses.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    model.train()
    rows: list[dict] = []
    for step, (inputs, labels) in enumerate(batches):
        try:
            if step % every == 0:
                rows += [{"step": step} | row for row in measure(inputs, labels)]
                if math.isinf(rows[-1]["gradient_norm"]):
                    break
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(model(inputs), labels).backward()
            finite = nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf).isfinite()
        except NonFiniteError:
            finite = False
        if not finite:
            rows += [{"step": step} | row for row in lost]
            break
        optimizer.step()
    return rows


def largest_hessian_eigenvalue(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    loss: Loss = cross_entropy,
    iterations: int = 30,
    tolerance: float = 1e-2,
) -> float:
    """Return the eigenvalue of largest magnitude of the Hessian of one batch's loss, over all parameters.

    Power iteration, ``v <- H v / |H v|``, with ``H v`` by a second backward pass; the value is ``v^T H v``.

    Args:
        model: in the mode to measure in. Parameters, their ``grad`` and buffers stay as they are.
        inputs, labels: one batch.
        loss: of outputs and labels.
        iterations: at most.
        tolerance: relative change of the value at which it ends.

    Raises:
        NotImplementedError: a layer has no second derivative, as gradient rules as released have not.

    Source: Yao et al., PyHessian (2020); as a measure of smoothness Santurkar et al., NeurIPS 2018.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    value = loss(functional_call(model, parameters | buffers, (inputs,)), labels)
    gradients = torch.autograd.grad(value, list(parameters.values()), create_graph=True, materialize_grads=True)
    generator = torch.Generator().manual_seed(0)
    v = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in parameters.values()]
    found = math.inf
    for _ in range(iterations):
        norm = _inner(v, v) ** 0.5
        if norm == 0:
            return 0.0
        v = [part / norm for part in v]
        rows = [(g, part) for g, part in zip(gradients, v, strict=True) if g.requires_grad]
        if not rows:
            return 0.0
        product = torch.autograd.grad(
            [g for g, _ in rows],
            list(parameters.values()),
            [part for _, part in rows],
            retain_graph=True,
            materialize_grads=True,
        )
        before, found = found, _inner(v, product)
        if abs(found - before) <= tolerance * abs(found):
            break
        v = list(product)
    return found


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return sum((x.double() * y.double()).sum().item() for x, y in zip(a, b, strict=True))


def smoothness_while_training(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    lengths: Sequence[float],
    every: int = 10,
    clip: float = 0.0,
) -> list[dict]:
    """Return what ``measure_while_training`` finds of ``effective_smoothness``, one row per measurement.

    Args:
        model, batches, optimizer, every, clip: see ``measure_while_training``.
        lengths: see ``effective_smoothness``.

    Raises:
        ValueError: ``every`` is below 1, or what ``effective_smoothness`` refuses.
    """

    def measure(inputs: Tensor, labels: Tensor) -> list[dict]:
        return [asdict(effective_smoothness(model, inputs, labels, lengths))]

    return measure_while_training(model, batches, optimizer, measure, [asdict(NOT_FINITE)], every, clip)
