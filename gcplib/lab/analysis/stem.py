"""The stem of a network, its first layers, and a way to put other features in the place of what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

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


@contextmanager
def stem_output(model: nn.Module, stem: nn.Module, inputs: Tensor) -> Iterator[Callable]:
    """Yield ``run(x)``, which gives the model's output with ``x`` in the place of the stem's, and that ``x``.

    ``run(None)`` takes what the stem gives; that ``x`` is a leaf, and can be differentiated by. Every run starts with
    the same buffers and random numbers, and both are afterwards as before, also after an error.

    Raises:
        ValueError: in ``run``, a stem that is not called exactly once in a pass.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    seen: list[Tensor] = []
    wanted: Tensor | None = None

    def replace(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        seen.append((output if wanted is None else wanted).detach().requires_grad_())
        # A copy, because the network may work on it in place.
        return seen[-1].clone()

    def run(x: Tensor | None) -> tuple[Tensor, Tensor]:
        nonlocal wanted
        wanted = x
        seen.clear()
        _restore(buffers)
        with torch.random.fork_rng(devices):
            output = model(inputs)
        if len(seen) != 1:
            raise ValueError(f"the stem must be called once in a pass, {type(stem).__name__} was {len(seen)} times")
        return output, seen[0]

    hook = stem.register_forward_hook(replace)
    try:
        yield run
    finally:
        hook.remove()
        _restore(buffers)


@torch.no_grad()
def _restore(buffers: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, value in buffers:
        buffer.copy_(value)
