"""The stem of a network, its first layers, and a way to put other features in the place of what it gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["find_stem", "stem_output"]

# The last module of a stem under the names that timm gives it: ResNets end theirs with a max pool, EfficientNets and
# MobileNets with a batch norm that holds its activation, ConvNeXts, RegNets and others have one module.
STEMS = ("maxpool", "stem", "features.pool0", "act1", "bn1")


def find_stem(model: nn.Module, name: str = "") -> nn.Module:
    """Return the module whose output is that of the stem: for a ResNet what the max pool gives, as published.

    Args:
        model: a ``Model``, or a timm network.
        name: of the module within the timm network, where the usual ones are not meant.

    Raises:
        ValueError: there is no module of that name, or of none of the usual ones; the message lists those there are.
    """
    network = getattr(model, "backbone", model)
    network = getattr(network, "network", network)
    modules = dict(network.named_modules())
    for candidate in (name,) if name else STEMS:
        if candidate in modules:
            return modules[candidate]
    there = ", ".join(child for child, _ in network.named_children()) or "none"
    wanted = f"no module {name!r}" if name else f"none of the usual stems ({', '.join(STEMS)})"
    raise ValueError(f"{type(network).__name__} has {wanted}; give the name of one, its modules are: {there}")


def stem_output(model: nn.Module, stem: nn.Module, inputs: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the model's output with ``x`` in the place of the stem's, and that ``x``, a leaf to differentiate by.

    Every call starts with the same random numbers, and leaves them and the model's buffers as they were.

    Args:
        model: in the mode to look at it in.
        stem: one of its modules, see ``find_stem``.
        inputs: of the model.
        x: features, or None for those that the stem itself gives.

    Raises:
        ValueError: a stem that is not called exactly once in a pass.
    """
    seen: list[Tensor] = []

    def replace(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        seen.append((output if x is None else x).detach().requires_grad_())
        # A copy, because the network may work on it in place.
        return seen[-1].clone()

    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with stem.register_forward_hook(replace), torch.random.fork_rng(devices):
        output = functional_call(model, buffers, (inputs,))
    if len(seen) != 1:
        raise ValueError(f"the stem must be called once in a pass, {type(stem).__name__} was {len(seen)} times")
    return output, seen[0]
