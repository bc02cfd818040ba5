"""How smooth training is: the largest change of the gradient along itself, per distance moved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcplib.lab.analysis.descent import descend
from gcplib.linalg import NonFiniteError

__all__ = [
    "Smoothness",
    "effective_smoothness",
    "gradient_field",
    "largest_hessian_eigenvalue",
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


def gradient_field(
    model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss = functional.cross_entropy
) -> tuple[float, Tensor]:
    """Return the loss of one batch and what the backward pass gives for it, all parameters in one float64 vector.

    That vector need not be the derivative of any loss: gradient rules change it. The ``grad`` of the parameters is left
    alone; buffers, such as the running averages of batch norm, move as in any forward pass.

    Raises:
        NonFiniteError: the loss or the gradient is not finite. ValueError: no parameter requires a gradient.
    """
    parameters = _parameters(model)
    value = loss(model(inputs), labels)
    found = torch.autograd.grad(value, parameters, materialize_grads=True)
    gradient = torch.cat([g.flatten().double() for g in found])
    if bad := int((~torch.isfinite(gradient)).sum()):
        raise NonFiniteError(
            f"{bad} of the {len(gradient)} entries of the gradient are not finite, at a loss of {value.item():.3g}; "
            "look at the gradient rule and the learning rate"
        )
    return value.item(), gradient


def _parameters(model: nn.Module) -> list[Tensor]:
    if parameters := [p for p in model.parameters() if p.requires_grad]:
        return parameters
    raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient")


def effective_smoothness(
    model: nn.Module, inputs: Tensor, labels: Tensor, lengths: Sequence[float], loss: Loss = functional.cross_entropy
) -> Smoothness:
    """Return the effective beta-smoothness at one batch: how fast the gradient changes along itself.

    ``beta = max_s |g(theta - s g / |g|) - g(theta)| / s`` over the distances s of ``lengths``. Distances, and not
    multiples of the gradient: a rule with too long a gradient would move further, and look smoother for it.

    Args:
        model: in the mode to measure in, usually training. Its parameters and buffers are the same bits afterwards.
        inputs, labels: one batch.
        lengths: distances in parameter space.
        loss: of outputs and labels.

    Returns:
        A gradient that is not finite, here or there, is an outcome: ``beta`` is then infinite.

    Raises:
        ValueError: no lengths, or one that is not positive; a gradient of zero, which has no direction.

    Source: Santurkar et al., NeurIPS 2018; for covariance pooling Song et al., ICCV 2021.
    """
    if not lengths or not all(0 < s < math.inf for s in lengths):
        raise ValueError(f"lengths must be positive and finite, and at least one, got {list(lengths)}")
    parameters, buffers = _parameters(model), list(model.buffers())
    values, states = [p.detach().clone() for p in parameters], [b.clone() for b in buffers]

    def field_at(direction: Tensor | None, factor: float) -> tuple[float, Tensor] | None:
        _move(parameters, values, direction, factor)
        # Or batch norm's running averages would drift from one evaluation to the next.
        _move(buffers, states, None, 0)
        try:
            return gradient_field(model, inputs, labels, loss)
        except NonFiniteError:
            return None

    try:
        if (here := field_at(None, 0)) is None:
            return NOT_FINITE
        value, gradient = here
        norm = gradient.norm().item()
        if norm == 0:
            raise ValueError(f"the gradient of {type(model).__name__} is zero: there is no direction to move in")
        changes = {}
        for s in lengths:
            there = field_at(gradient, -s / norm)
            changes[s] = math.inf if there is None else (there[1] - gradient).norm().item() / s
    finally:
        _move(parameters, values, None, 0)
        _move(buffers, states, None, 0)
    worst = max(changes, key=changes.__getitem__)
    return Smoothness(value, norm, changes[worst], float(worst), math.isfinite(changes[worst]))


@torch.no_grad()
def _move(tensors: list[Tensor], values: list[Tensor], direction: Tensor | None, factor: float) -> None:
    """Set ``tensors`` to ``values + factor * direction``; without a direction to ``values`` exactly."""
    sizes = [t.numel() for t in tensors]
    parts = [None] * len(tensors) if direction is None else direction.split(sizes)
    for tensor, value, part in zip(tensors, values, parts, strict=True):
        tensor.copy_(value if part is None else value.double() + factor * part.view_as(value))


def largest_hessian_eigenvalue(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    loss: Loss = functional.cross_entropy,
    iterations: int = 30,
    tolerance: float = 1e-2,
) -> float:
    """Return the eigenvalue of largest magnitude of the Hessian of one batch's loss, over all parameters.

    Power iteration, ``v <- H v / |H v|``, with ``H v`` by a second backward pass; the value is ``v^T H v``.

    Args:
        model: in the mode to measure in. Its parameters and buffers are the same bits afterwards.
        inputs, labels: one batch.
        loss: of outputs and labels.
        iterations: at most.
        tolerance: relative change of the value at which it ends.

    Raises:
        NotImplementedError: a layer has no second derivative, as gradient rules as released have not.

    Source: Yao et al., PyHessian (2020); as a measure of smoothness Santurkar et al., NeurIPS 2018.
    """
    parameters, buffers = _parameters(model), list(model.buffers())
    states = [b.clone() for b in buffers]
    generator = torch.Generator().manual_seed(0)
    v = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in parameters]
    value = math.inf
    try:
        gradients = torch.autograd.grad(loss(model(inputs), labels), parameters, create_graph=True)
        for _ in range(iterations):
            norm = _inner(v, v) ** 0.5
            if norm == 0:
                return 0.0
            v = [part / norm for part in v]
            product = torch.autograd.grad(gradients, parameters, v, retain_graph=True, materialize_grads=True)
            before, value = value, _inner(v, product)
            if abs(value - before) <= tolerance * abs(value):
                break
            v = list(product)
    finally:
        _move(buffers, states, None, 0)
    return value


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
    """Train on ``batches``, and measure ``effective_smoothness`` on every ``every``-th of them, before its step.

    Args:
        model: trained in place.
        batches: inputs and labels.
        optimizer: of its parameters.
        lengths: see ``effective_smoothness``.
        every: steps between two measurements.
        clip: largest gradient norm of a step, 0 for none.

    Returns:
        One row per measurement: ``step``, and what ``Smoothness`` holds. Training whose gradient is not finite ends
        there, with a last row that has ``finite`` False.

    Raises:
        ValueError: ``every`` is below 1, or what ``effective_smoothness`` refuses.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    rows = []
    try:
        for step, inputs, labels in descend(model, batches, optimizer, clip):
            if step % every == 0:
                rows.append({"step": step} | asdict(effective_smoothness(model, inputs, labels, lengths)))
                if math.isinf(rows[-1]["gradient_norm"]):
                    break
    except NonFiniteError:
        rows.append({"step": step} | asdict(NOT_FINITE))
    return rows
