"""Gates by name, side by side, as wide as another one, and inside any timm CNN."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gcplib.nn.gate_blocks import ChannelGate, Gate, PositionGate, SqueezeExcitation, start_random
from gcplib.nn.options import check_known, make_module

# Names of stages, or by name the options of each stage's own gate.
Stages = Sequence[str] | Mapping[str, Mapping[str, Any]]

FUSIONS = ("average", "max", "concat")


class FusedGate(Gate):
    """Both blocks of GSoP side by side, c by channels and p by positions, and one of three ways to make one map of two.

    ``average``: ``(c + p) / 2``; released: ``c + p``. ``max``: the larger, element by element. ``concat``: grouped
    vertical convolutions of both, added, batch norm; started as identity, this is added to x with a scale of zero.

    Args:
        channels: ``C``.
        fusion: one of these.
        width: of both blocks; see ``ChannelGate`` and ``PositionGate``.
        stride: of the first.
        grid: of the second.
        common: ``start`` of both, ``device`` and ``dtype``, see ``Gate``.

    Source: the released code of GSoP. Its groups are ``C / 64`` and its kernels ``2 log2(32 / groups) + 5`` high;
    where C has no such divisor we take the next smaller one.
    """

    def __init__(
        self, channels: int, *, fusion: str = "average", width: int = 128, stride: int = 1, grid: int = 8, **common
    ):
        super().__init__(channels, **common)
        check_known("fusion", fusion, FUSIONS)
        self.fusion = fusion
        self.by_channel = ChannelGate(channels, width=width, stride=stride, **common)
        self.by_position = PositionGate(channels, width=width, grid=grid, **common)
        if fusion == "concat":
            groups = next(g for g in range(max(1, channels // 64), 0, -1) if channels % g == 0)
            half = max(0, int(math.log2(32 / groups))) + 2
            place = {name: common.get(name) for name in ("device", "dtype")}
            size = {"kernel_size": (2 * half + 1, 1), "padding": (half, 0), "groups": groups} | place
            self.joined = nn.ModuleList(nn.Conv2d(channels, channels, **size) for _ in range(2))
            self.norm = nn.BatchNorm2d(channels, **place)
            for convolution in self.joined:
                start_random(convolution.weight)
            if not self.released:
                nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        c, p = self.by_channel(x), self.by_position(x)
        if self.fusion == "max":
            return torch.maximum(c, p)
        if self.fusion == "average":
            return c + p if self.released else (c + p) / 2
        both = self.norm(self.joined[0](c) + self.joined[1](p)).to(x.dtype)
        return both if self.released else x + both


def _squeeze_excitation(
    channels: int, *, like: str | nn.Module | None = None, hidden: int | None = None, **options
) -> SqueezeExcitation:
    if like is not None:
        if like == "se" or hidden is not None:
            raise ValueError(f"se takes a second-order gate to be like, or hidden, got {like=} and {hidden=}")
        own = {name: options.pop(name) for name in ("start", "device", "dtype") if name in options}
        with torch.device("meta"):  # only counted
            peer = create_gate(channels, like, **options)
        hidden, options = equal_width(channels, sum(p.numel() for p in peer.parameters())), own
    return SqueezeExcitation(channels, hidden=hidden, **options)


GATES: dict[str, Callable[..., nn.Module]] = {
    "channel": ChannelGate,
    "position": PositionGate,
    **{fusion: partial(FusedGate, fusion=fusion) for fusion in FUSIONS},
    "se": _squeeze_excitation,
}


def list_gates() -> list[str]:
    """Return the kinds that ``create_gate`` knows."""
    return list(GATES)


def create_gate(channels: int, kind: str | Callable[..., nn.Module] | nn.Module = "channel", **options) -> nn.Module:
    """Make a gate by name, a module from ``(B, C, H, W)`` to the same shape.

    Args:
        channels: ``C``.
        kind: ``channel`` or ``position``, the blocks of GSoP; ``average``, ``max`` or ``concat`` of both; ``se``, the
            first-order peer. Or a class of modules, called like these; or a module, which is returned.
        options: of the gate. ``se`` takes ``hidden``, or ``like``, a gate whose number of parameters it gets, with that
            one's ``width``, ``stride`` and ``grid``.

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
    """Return the ``hidden`` h of ``SqueezeExcitation`` whose parameters, ``h (2 C + 1) + C``, are nearest to a number.

    Raises:
        ValueError: no width comes within 1 %.

    >>> equal_width(112, 114016)
    506
    """
    hidden = max(1, round((parameters - channels) / (2 * channels + 1)))
    found = hidden * (2 * channels + 1) + channels
    if abs(found - parameters) > 0.01 * parameters:
        raise ValueError(
            f"no squeeze-and-excitation of {channels} channels has {parameters} parameters within 1%; "
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

    In timm's ResNets it stands in front of the last residual addition of a stage, as in the paper; else behind it.

    Args:
        backbone: of ``gcplib.create_backbone``, or a whole timm network.
        stages: names of its ``feature_info`` modules, such as ``["layer3"]``; or with options of each stage's own gate,
            such as ``{"layer1": {"stride": 2}, "layer2": {}}``.
        kind: see ``create_gate``, like the options.

    Returns:
        The gates, in the order of the stages, with device and dtype of the network.

    Raises:
        ValueError: a stage that the network lacks, is named twice or has a gate; unknown kind or option.
    """
    network = backbone if hasattr(backbone, "feature_info") else backbone.network
    known, own = _stages(network), stage_options(stages)
    if missing := [stage for stage in own if stage not in known]:
        raise ValueError(f"{type(network).__name__} has no stage {missing[0]!r}; its stages: {', '.join(known)}")
    if isinstance(kind, nn.Module):
        raise TypeError(f"every stage gets a gate of its own; give a name or a class, got the module {kind!r}")
    example, gates = next(network.parameters()), []
    for stage, its_own in own.items():
        if any(isinstance(module, Gate) for module in network.get_submodule(stage).modules()):
            raise ValueError(f"stage {stage!r} has a gate already")
        gate = create_gate(known[stage], **{"kind": kind} | options | its_own)
        gates.append(gate.to(example.device, example.dtype).train(network.training))
    # Only now, when nothing can fail any more.
    for stage, gate in zip(own, gates, strict=True):
        _insert(network.get_submodule(stage), gate)
    return gates


def _stages(network: nn.Module) -> dict[str, int]:
    """Return the stages that are still there after pruning, with their channels."""
    modules = dict(network.named_modules(remove_duplicate=False))
    found = {}
    for entry in network.feature_info:
        stage = modules.get(entry["module"], nn.Identity())
        # An identity or an empty sequence is what timm leaves in place of what it has pruned.
        if not isinstance(stage, nn.Identity) and not (isinstance(stage, nn.Sequential) and len(stage) == 0):
            found[entry["module"]] = entry["num_chs"]
    return found


def _insert(stage: nn.Module, gate: nn.Module) -> None:
    """Put a gate in front of the residual addition of the stage's last block, or behind the stage."""
    from timm.models.resnet import BasicBlock, Bottleneck

    last = stage[-1] if isinstance(stage, nn.Sequential) else stage
    if isinstance(last, BasicBlock | Bottleneck):
        last.se = gate if last.se is None else nn.Sequential(last.se, gate)
    elif type(stage).forward is nn.Sequential.forward:
        stage.add_module("gate", gate)
    else:
        # A stage may call all modules that it has: inside an identity the gate is one of them, and called by the hook.
        stage.add_module("gate", held := nn.Identity())
        held.add_module("held", gate)
        stage.register_forward_hook(_call_held_gate)


def _call_held_gate(stage: nn.Module, args: tuple, out: Tensor) -> Tensor:
    return stage.gate.held(out)
