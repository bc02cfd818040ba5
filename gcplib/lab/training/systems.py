"""The mapping ``systems`` of run files: what is built into a network beside its pool, by name, each with its options.

- ``gate: {stages: [blocks.4], kind: channel}``: GSoP in stages of the backbone; the stage ``features`` is between
  backbone and pool (``gcplib.nn.create_gate`` has the other options);
- ``views: {mode: all}``: the eight views of an image (``gcplib.nn.D4Views``);
- ``diversify: {}``: suppressed class maps, for the pool ``gap`` (``gcplib.nn.DiversificationBlock``);
- ``coarse2fine: {maps: 8}``: a second look (``gcplib.nn.Coarse2Fine``).
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from gcplib.backbones import Backbone
from gcplib.lab.plain import SpecError
from gcplib.linalg.calls import unknown
from gcplib.models import Head, Model
from gcplib.nn import Coarse2Fine, D4Views, DiversificationBlock, create_gate, insert_gates
from gcplib.nn.gate import GATES, stage_options
from gcplib.nn.options import check_known, check_options
from gcplib.nn.views import VIEWS

PARTS = {"views": D4Views, "diversify": DiversificationBlock, "coarse2fine": Coarse2Fine}
SYSTEMS = ("gate", *PARTS)
# The stage of a gate that stands between backbone and pool, and so needs no backbone.
FEATURES = "features"

Systems = Mapping[str, Mapping[str, Any]]


def system_problems(systems: Systems, stage: str = "full") -> Iterator[str]:
    """Yield what is wrong with systems: one does not exist, an option does not fit, or they do not go together.

    Args:
        systems: name and options of each.
        stage: of the run; ``head`` has no backbone to build anything into.
    """
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
        gates = _gates({"gate": options})
        if stage == "head" and list(gates) != [FEATURES]:
            raise ValueError(f"the stage 'head' has a frozen backbone; gate ['{FEATURES}'] there, got {list(gates)}")
        for gate in gates.values():
            check_known("kind of gate", kind := gate.pop("kind", "channel"), GATES)
            if "like" not in gate:  # else the options are those of the gate that it is like
                check_options(f"gate {kind!r}", GATES[kind], gate)
        return
    check_options(name, PARTS[name], options)
    if name == "views":
        check_known("mode", options.get("mode", "all"), VIEWS)
    if name == "diversify":
        DiversificationBlock(**options)


def _gates(systems: Systems) -> dict[str, dict[str, Any]]:
    """Return for each stage with a gate its options: its own, and those that are given for all."""
    if "gate" not in systems:
        return {}
    options = systems["gate"]
    common = {name: value for name, value in options.items() if name != "stages"}
    return {stage: common | own for stage, own in stage_options(options.get("stages", ())).items()}


def build_head(pool: nn.Module, num_classes: int, systems: Systems) -> Head:
    """Return the head of a network with the systems that belong to it: views, a gate in front of the pool, diversify.

    Its pool and classifier start as they would without them.

    Raises:
        ValueError: systems that do not exist, do not fit the pool, or do not go together.
    """
    if problems := list(system_problems(systems)):
        raise SpecError("systems", problems)
    views = systems["views"].get("mode", "all") if "views" in systems else None
    gates = _gates(systems)
    gate = partial(create_gate, **gates[FEATURES]) if FEATURES in gates else None
    try:
        diversify = DiversificationBlock(**systems["diversify"]) if "diversify" in systems else None
        return Head(pool, num_classes, gate=gate, diversify=diversify, views=views)
    except (TypeError, ValueError) as error:
        raise ValueError(f"systems: {error}") from error


def build_model(backbone: Backbone, pool: nn.Module, num_classes: int, systems: Systems) -> nn.Module:
    """Return backbone, pool and classifier as one network with the systems built in; the backbone is changed in place.

    Raises:
        ValueError: systems that do not exist, do not fit the backbone, or do not go together.
    """
    head = build_head(pool, num_classes, systems)
    if inside := {stage: options for stage, options in _gates(systems).items() if stage != FEATURES}:
        insert_gates(backbone, inside)
    if "coarse2fine" in systems:
        return Coarse2Fine(backbone, head, **systems["coarse2fine"])
    model = Model(backbone, head)
    return D4Views(model, **systems["views"]) if "views" in systems else model
