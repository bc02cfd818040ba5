"""Gates by name, as wide as another one, and inside any timm CNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gcplib.nn.gate_blocks import ChannelGate, Gate, PositionGate, SqueezeExcitation
from gcplib.nn.gate_fusion import FusedGate
from gcplib.nn.options import make_module

__all__ = ["create_gate", "equal_width", "insert_gates", "list_gates", "stage_options"]

# Names of stages; or by its name the options of each stage's own gate.
Stages = Sequence[str] | Mapping[str, Mapping[str, Any]]

# How far the parameters of a first-order peer may be from those of a second-order gate.
EQUAL = 0.01


def _squeeze_excitation(
    channels: int, *, like: str | nn.Module | None = None, hidden: int | None = None, **options
) -> SqueezeExcitation:
    if like is None:
        return SqueezeExcitation(channels, hidden=hidden, **options)
    if like == "se" or hidden is not None:
        raise ValueError(f"se takes a second-order gate to be like, or hidden, got like={like!r} and hidden={hidden}")
    own = {name: options.pop(name) for name in ("start", "device", "dtype") if name in options}
    with torch.device("meta"):  # only counted
        peer = create_gate(channels, like, **options)
    return SqueezeExcitation(channels, hidden=equal_width(channels, sum(p.numel() for p in peer.parameters())), **own)


GATES: dict[str, Callable[..., nn.Module]] = {
    "channel": ChannelGate,
    "position": PositionGate,
    "average": partial(FusedGate, fusion="average"),
    "max": partial(FusedGate, fusion="max"),
    "concat": partial(FusedGate, fusion="concat"),
    "se": _squeeze_excitation,
}


def list_gates() -> list[str]:
    """Return the kinds that ``create_gate`` knows."""
    return list(GATES)


def create_gate(channels: int, kind: str | Callable[..., nn.Module] | nn.Module = "channel", **options) -> nn.Module:
    """Make a gate by name, a module from ``(B, C, H, W)`` to the same shape.

    Args:
        channels: C.
        kind: ``channel`` or ``position``, the blocks of GSoP; ``average``, ``max`` or ``concat`` of both; ``se``, the
            first-order peer. Or a class of modules, called like these; or a module, which is returned.
        options: of the gate, such as ``width``, ``start``, ``device`` or ``dtype``. ``se`` takes ``hidden``, or
            ``like``, a gate whose number of parameters it gets, with that one's ``width``, ``stride`` and ``grid``.

    Raises:
        ValueError: unknown kind, or a bad size.
        UnknownOptionError: an option that the gate does not have.

    >>> create_gate(112, "se", like="channel").squeeze
    Linear(in_features=112, out_features=506, bias=True)
    """
    if kind == "se" and options.get("like") is not None:
        return _squeeze_excitation(channels, **options)  # the options are those of the gate that it is like
    return make_module("gate", GATES, kind, channels, options)


def equal_width(channels: int, parameters: int) -> int:
    """Return the ``hidden`` of ``SqueezeExcitation`` that gives it a number of parameters.

    ``h (2 C + 1) + C``, nearest to ``parameters``.

    Raises:
        ValueError: no width comes within 1 %.

    >>> equal_width(112, 114016)
    506
    """
    per_unit = 2 * channels + 1
    hidden = max(1, round((parameters - channels) / per_unit))
    found = hidden * per_unit + channels
    if abs(found - parameters) > EQUAL * parameters:
        raise ValueError(
            f"no squeeze-and-excitation of {channels} channels has {parameters} parameters within {EQUAL:.0%}; "
            f"the nearest has {found}"
        )
    return hidden


def stage_options(stages: Stages) -> dict[str, dict[str, Any]]:
    """Return by its name the options that a stage's gate has of its own.

    Raises:
        ValueError: a stage that is named twice, a name that is no text, options that are no mapping.

    >>> stage_options({"layer1": {"stride": 2}, "layer2": {}}), stage_options(["layer3"])
    ({'layer1': {'stride': 2}, 'layer2': {}}, {'layer3': {}})
    """
    if isinstance(stages, str) or not stages or any(not isinstance(stage, str) for stage in stages):
        raise ValueError(f"stages are a list of names such as ['layer3'], got {stages!r}")
    if len(set(stages)) < len(stages):
        raise ValueError(f"each stage takes one gate, got {list(stages)}")
    if not isinstance(stages, Mapping):
        return {stage: {} for stage in stages}
    if bad := {stage: own for stage, own in stages.items() if not isinstance(own, Mapping)}:
        raise ValueError(f"each stage takes a mapping of options, such as {{stride: 2}} or {{}}, got {bad}")
    return {stage: dict(own) for stage, own in stages.items()}


def insert_gates(
    backbone: nn.Module, stages: Stages, kind: str | Callable[..., nn.Module] = "channel", **options
) -> list[nn.Module]:
    """Put a gate into stages of a timm CNN, in place; it still works with ``forward_intermediates`` and pruning.

    Where the last block of a stage is one of timm's ResNets, the gate stands in front of its residual addition, as in
    the paper; elsewhere, behind the stage.

    Args:
        backbone: of ``gcplib.create_backbone``, or a whole timm network.
        stages: names of its ``feature_info`` modules, such as ``layer3`` or ``blocks.4``; or a mapping from them to
            options for that stage alone, such as ``{"layer1": {"stride": 2}, "layer2": {}}``.
        kind: see ``create_gate``; of each stage a gate of its own.
        options: see ``create_gate``.

    Returns:
        The gates, in the order of the stages, with device and dtype of the network.

    Raises:
        ValueError: a stage that the network lacks (the message lists those it has), is named twice or has a gate;
            unknown kind or option.
    """
    network = backbone if hasattr(backbone, "feature_info") else backbone.network
    known, own = _stages(network), stage_options(stages)
    if missing := [stage for stage in own if stage not in known]:
        raise ValueError(f"{type(network).__name__} has no stage {missing[0]!r}; its stages: {', '.join(known)}")
    if isinstance(kind, nn.Module):
        raise TypeError(f"every stage gets a gate of its own; give a name or a class, got the module {kind!r}")
    example = next(network.parameters())
    made = (create_gate(known[stage], **{"kind": kind} | options | own[stage]) for stage in own)
    gates = [gate.to(example.device, example.dtype) for gate in made]
    places = [_place(network.get_submodule(stage)) for stage in stages]
    for stage in stages:
        if any(isinstance(module, Gate | FusedGate) for module in network.get_submodule(stage).modules()):
            raise ValueError(f"stage {stage!r} has a gate already")
    for gate, (place, name) in zip(gates, places, strict=True):
        gate.train(network.training)
        if name == "se":
            place.se = gate if place.se is None else nn.Sequential(place.se, gate)
            continue
        if type(place).forward is nn.Sequential.forward:
            place.add_module(name, gate)
        else:
            place.add_module(name, _Held(gate))
            place.register_forward_hook(_behind)
    return gates


def _stages(network: nn.Module) -> dict[str, int]:
    """Return the stages that are still there after pruning, with their channels."""
    found = {}
    for entry in network.feature_info:
        try:
            stage = network.get_submodule(entry["module"])
        except AttributeError:
            continue
        # What timm leaves in place of what it has pruned.
        if not isinstance(stage, nn.Identity) and not (isinstance(stage, nn.Sequential) and len(stage) == 0):
            found[entry["module"]] = entry["num_chs"]
    return found


def _place(stage: nn.Module) -> tuple[nn.Module, str]:
    """Return the module that takes the gate, and the name that the gate gets there."""
    from timm.models.resnet import BasicBlock, Bottleneck

    last = stage[-1] if isinstance(stage, nn.Sequential) else stage
    return (last, "se") if isinstance(last, BasicBlock | Bottleneck) else (stage, "gate")


class _Held(nn.Module):
    """Keeps a gate among the modules of a stage, and lets pass what a stage that calls all of them puts through."""

    def __init__(self, gate: nn.Module):
        super().__init__()
        self.held = gate

    def forward(self, x: Tensor) -> Tensor:
        return x


def _behind(stage: nn.Module, args: tuple, out: Tensor) -> Tensor:
    return stage.gate.held(out)
