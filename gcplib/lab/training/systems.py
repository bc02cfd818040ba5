"""The mapping ``systems`` of run files: what is built into a network beside its pool, by name, each with its options.

- ``gate: {stages: [blocks.4], kind: channel}``: GSoP in stages of the backbone; the stage ``features`` is between
  backbone and pool (``gcplib.nn.create_gate`` has the other options);
- ``views: {mode: all}``: the eight views of an image (``gcplib.nn.D4Views``);
- ``diversify: {}``: suppressed class maps, for the pool ``gap`` (``gcplib.nn.DiversificationBlock``);
- ``coarse2fine: {maps: 8}``: a second look (``gcplib.nn.Coarse2Fine``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from gcplib.backbones import Backbone
from gcplib.linalg.calls import unknown
from gcplib.models import Head, Model
from gcplib.nn import Coarse2Fine, D4Views, DiversificationBlock, create_gate, insert_gates
from gcplib.nn.gate import GATES, stage_options
from gcplib.nn.options import check_known, check_options
from gcplib.nn.views import VIEWS

__all__ = ["SYSTEMS", "build_head", "build_model", "check_systems"]

SYSTEMS = ("gate", "views", "diversify", "coarse2fine")
PARTS = {"views": D4Views, "diversify": DiversificationBlock, "coarse2fine": Coarse2Fine}
# The stage of a gate that stands between backbone and pool, and so needs no backbone.
FEATURES = "features"

Systems = Mapping[str, Mapping[str, Any]]


def check_systems(systems: Systems, stage: str = "full") -> None:
    """Raise ``ValueError`` for systems that do not exist or do not go together, with all problems.

    Args:
        systems: name and options of each.
        stage: of the run; ``head`` has no backbone to build anything into.
    """
    if problems := list(_problems(systems, stage)):
        raise ValueError("; ".join(problems))


def _problems(systems: Systems, stage: str) -> Iterator[str]:
    for name, options in systems.items():
        if name not in SYSTEMS:
            yield unknown("system", name, SYSTEMS)
        elif not isinstance(options, Mapping):
            yield f"systems.{name} must be a mapping of options, got {options!r}"
        else:
            try:
                _check(name, options, stage)
            except (TypeError, ValueError) as error:
                yield f"systems.{name}: {str(error).removeprefix(f'{name}: ')}"
    if "coarse2fine" in systems:
        if stage == "head":
            yield "systems.coarse2fine looks at the image twice: it needs the stage 'full'"
        if others := {"views", "diversify"} & set(systems):
            yield f"systems.coarse2fine does not go together with {', '.join(sorted(others))}"


def _check(name: str, options: Mapping[str, Any], stage: str) -> None:
    if name == "gate":
        stages = stage_options(options.get("stages", ()))
        if stage == "head" and list(stages) != [FEATURES]:
            raise ValueError(f"the stage 'head' has a frozen backbone; gate ['{FEATURES}'] there, got {list(stages)}")
        for own in stages.values():
            gate = {"kind": "channel"} | {key: value for key, value in options.items() if key != "stages"} | own
            check_known("kind of gate", kind := gate.pop("kind"), GATES)
            if "like" not in gate:  # else the options are those of the gate that it is like
                check_options(f"gate {kind!r}", GATES[kind], gate)
        return
    check_options(name, PARTS[name], options)
    if name == "views":
        check_known("mode", options.get("mode", "all"), VIEWS)
    if name == "diversify":
        DiversificationBlock(**options)


def build_head(pool: nn.Module, num_classes: int, systems: Systems | None = None) -> Head:
    """Return the head of a network with the systems that belong to it: views, a gate in front of the pool, diversify.

    Its pool and classifier start as they would without them.

    Raises:
        ValueError: systems that do not exist, do not fit the pool, or do not go together.
    """
    systems = systems or {}
    check_systems(systems)
    views = systems["views"].get("mode", "all") if "views" in systems else None
    try:
        diversify = DiversificationBlock(**systems["diversify"]) if "diversify" in systems else None
        head = Head(pool, num_classes, diversify=diversify, views=views)
        if "gate" in systems and FEATURES in systems["gate"]["stages"]:
            options = dict(systems["gate"])
            options |= stage_options(options.pop("stages"))[FEATURES]
            head.gate = create_gate(pool.in_channels, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"systems: {error}") from error
    return head


def build_model(backbone: Backbone, pool: nn.Module, num_classes: int, systems: Systems | None = None) -> nn.Module:
    """Return backbone, pool and classifier as one network with the systems built in; the backbone is changed in place.

    Raises:
        ValueError: systems that do not exist, do not fit the backbone, or do not go together.
    """
    systems = systems or {}
    head = build_head(pool, num_classes, systems)
    if "gate" in systems:
        options = dict(systems["gate"])
        inside = stage_options(options.pop("stages"))
        inside.pop(FEATURES, None)
        if inside:
            insert_gates(backbone, inside, **options)
    if "coarse2fine" in systems:
        return Coarse2Fine(backbone, head, **systems["coarse2fine"])
    model = Model(backbone, head)
    return D4Views(model, **systems["views"]) if "views" in systems else model
