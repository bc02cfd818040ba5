"""The loss of a network as a function of what its stem gives, and rows of what is met on a line through that."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from gcplib.linalg import NonFiniteError
from gcplib.models import create_model

__all__ = [
    "find_stem",
    "loss_behind_stem",
    "lost_rows",
    "models_from_one_start",
    "rows_along",
    "value_and_gradient",
]

Function = Callable[[Tensor], Tensor]
Along = Callable[[Function, Tensor, Sequence[float]], tuple[Tensor, Tensor]]
Steps = Mapping[str, Sequence[float]]

# The last module of a stem as timm names it: ResNets end theirs with a max pool, EfficientNets and MobileNets with a
# batch norm that holds its activation, and ConvNeXts, RegNets and others have one module.
STEMS = ("maxpool", "stem", "features.pool0", "act1", "bn1")
PUBLISHED = "published"  # the scale whose steps multiply the gradient; those of others are distances over |X|


class _Seen(Exception):
    """Ends a pass behind the stem."""


def find_stem(model: nn.Module) -> nn.Module:
    """Return the module whose output is that of the stem, for a ResNet as published.

    Args:
        model: a timm network, a backbone, or a whole network with one.

    Raises:
        ValueError: it has none of the usual names.
    """
    network = getattr(model, "backbone", model)
    network = getattr(network, "network", network)
    modules = dict(network.named_modules())
    for name in STEMS:
        if name in modules:
            return modules[name]
    there = ", ".join(name for name, _ in network.named_children()) or "none"
    known = f"{type(network).__name__} has none of the usual stems ({', '.join(STEMS)})"
    raise ValueError(f"{known}; add the name of one to STEMS, its modules are: {there}")


def loss_behind_stem(
    model: nn.Module, inputs: Tensor, labels: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
) -> tuple[Tensor, Function]:
    """Return what the stem gives for a batch, in float64, and the loss as a function of what stands in its place.

    The function casts to the dtype of the stem, and is NaN where a layer refuses what is not finite. Weights, buffers
    and random numbers stay as they are, and every call has the same.

    Args:
        model: in the mode to measure in.
        inputs: one batch.
        labels: of the batch.
        loss: of outputs and labels.

    Raises:
        ValueError: see ``find_stem``; later, a stem that is not called once in a pass.
    """
    stem, found = find_stem(model), []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        found.append(output.detach())
        raise _Seen

    with contextlib.suppress(_Seen):
        _pass(model, inputs, stem, keep)

    def behind(x: Tensor) -> Tensor:
        calls = []

        def put(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            calls.append(output)
            return x.to(output.dtype, copy=True)  # the network may work on it in place

        try:
            output = _pass(model, inputs, stem, put)
        except NonFiniteError:
            return x.sum() * math.nan
        if len(calls) != 1:
            called = f"{type(stem).__name__} was {len(calls)} times"
            raise ValueError(f"the stem must be called once in a pass, {called}")
        return loss(output, labels)

    return found[0].double(), behind


def _pass(model: nn.Module, inputs: Tensor, stem: nn.Module, hook: Callable[..., Any]) -> Tensor:
    # Copies, so that every pass starts alike and leaves the model as it was.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with stem.register_forward_hook(hook), torch.random.fork_rng(devices):
        return functional_call(model, buffers, (inputs,))


def value_and_gradient(function: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value of a function at x, and its gradient there.

    >>> value_and_gradient(lambda x: x.square().sum(), torch.tensor([1.0, 2.0]))
    (tensor(5.), tensor([2., 4.]))
    """
    x = x.detach().requires_grad_()
    value = function(x)
    (gradient,) = torch.autograd.grad(value, x)
    return value.detach(), gradient


def rows_along(along: Along, loss: Function, x: Tensor, steps: Steps) -> list[dict[str, Any]]:
    """Return a row per scale and step with loss and change of the gradient there, beside loss and gradient here.

    Args:
        along: gives both at ``x + eta g`` for a loss, x and some etas.
        loss: see ``loss_behind_stem``.
        x: where the line begins.
        steps: by scale; ``published`` ones multiply the gradient, others are distances over the norm of x.

    Returns:
        Rows with ``scale``, ``eta``, ``distance``, ``loss``, ``change``, ``finite``, ``loss_here``,
        ``gradient_norm`` and ``size``, the norm of x. What is not finite is an outcome: ``change`` is then infinite.

    Raises:
        ValueError: the gradient at x is zero.
    """
    value, gradient = value_and_gradient(loss, x)
    norm, size = gradient.norm().item(), x.norm().item()
    if not (value.isfinite() & gradient.isfinite().all()):
        return lost_rows(steps, value.item())
    if norm == 0:
        raise ValueError("the gradient at the stem's output is zero: no direction")
    unit = {scale: 1.0 if scale == PUBLISHED else size / norm for scale in steps}
    each = [(scale, float(eta), float(eta) * unit[scale]) for scale in steps for eta in steps[scale]]
    found = along(loss, x, [eta for *_, eta in each])
    rows = []
    for (scale, step, eta), there, change in zip(each, *(part.tolist() for part in found), strict=True):
        finite = math.isfinite(there) and math.isfinite(change)
        row = {"scale": scale, "eta": step, "distance": eta * norm, "loss": there, "finite": finite}
        row["change"] = change if finite else math.inf
        rows.append(row | {"loss_here": value.item(), "gradient_norm": norm, "size": size})
    return rows


def lost_rows(steps: Steps, value: float = math.nan) -> list[dict[str, Any]]:
    """Return the rows of a batch whose own loss or gradient is not finite.

    Args:
        steps: see ``rows_along``.
        value: the loss of the batch.
    """
    there = {"distance": math.nan, "loss": math.nan, "finite": False, "change": math.inf}
    here = {"loss_here": value, "gradient_norm": math.inf, "size": math.nan}
    return [{"scale": scale, "eta": float(eta)} | there | here for scale in steps for eta in steps[scale]]


def models_from_one_start(
    backbone: nn.Module,
    pools: Mapping[str, Mapping[str, Any]],
    classes: int,
    reduction: int | None = None,
    seed: int = 0,
) -> dict[str, nn.Module]:
    """Return a model per pool: copies of one backbone, and reductions that start alike.

    Args:
        backbone: is copied.
        pools: by name, ``pool`` and options of it.
        classes: of the classifier.
        reduction: channels after the reduction; None for none.
        seed: of the new weights.
    """
    models = {}
    for name, fields in pools.items():
        how = dict(fields) | {"reduction": reduction}
        body = copy.deepcopy(backbone)
        torch.manual_seed(seed)  # a reduction is drawn first, so all draw the same
        models[name] = create_model(body, how.pop("pool"), classes, **how)
    return models
