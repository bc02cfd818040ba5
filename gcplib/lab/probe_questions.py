"""What is asked of a frozen network: averages, covariances of every stage, and trained probes of the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gcplib.nn.moment_probing import MomentProbingPool
from gcplib.probe import LinearProbe, TrainedProbe
from gcplib.probe.base import Probe

if TYPE_CHECKING:
    from gcplib.lab.probing import ProbeSpec

__all__ = ["Asked", "asked_for", "beside_own", "called", "equal_width", "read"]

WITH_TOKEN = "class token and "  # before the stage whose patches are beside it
TRAINING = {"epochs": 12}  # of probes with weights to begin with
POOLS = {"covariance": {"pool": "cov"}, "root": {"pool": "mpn_cov"}, "Gaussian": {"pool": "gaussian"}}
# What a thorough probe reads besides: of the first width other powers of the covariance, and of all its sparse inverse.
POWERS = {
    "power 1/4": {"pool": "mpn_cov", "options": {"exponent": 0.25}},
    "power 3/4": {"pool": "mpn_cov", "options": {"exponent": 0.75}},
}
SPARSE = {"sparse inverse": {"pool": "isice"}}
BESIDE = "own average and "  # before what is beside it


@dataclass(frozen=True)
class Asked:
    """What is to be fitted: the keyword arguments of a probe, and its features."""

    what: str
    stage: str
    order: int
    kind: type[Probe]
    options: dict[str, Any]

    @property
    def width(self) -> int:
        """Channels after the projection; 0 for what has none."""
        return self.options.get("width", 0)


def asked_for(spec: ProbeSpec, features: dict[str, Tensor]) -> list[Asked]:
    """Return the probes of a network: averages, covariances of each stage, and trained ones of the last."""
    stages = [name for name in features if name.startswith("stage") or name.startswith("stride")]
    found = [Asked("own average", "own", 1, LinearProbe, {})]
    if "tokens" in features:
        found.append(Asked("class token", "tokens", 1, LinearProbe, {}))
    for stage in stages:
        found.append(Asked("average", stage, 1, LinearProbe, {"pool": "gap"}))
        for width, pools in _widths(spec, features[stage].shape[1]).items():
            for what, options in pools.items():
                found.append(Asked(what, stage, 2, LinearProbe, options | {"width": width}))
    if spec.thorough:
        width = min(spec.widths[-1], features[stages[-1]].shape[1])
        for what in ("covariance", "root"):
            found.append(Asked(BESIDE + what, stages[-1], 2, LinearProbe, POOLS[what] | {"width": width}))
    if not spec.seeds:
        return found
    # They take minutes at a stage of many positions; at the last they are what papers report.
    found.append(Asked("attention", stages[-1], 1, TrainedProbe, {"pool": "attention", **TRAINING}))
    of_token = "tokens" in features
    moments = {"pool": TokenMoments if of_token else "moment_probing", "rates": (1e-3, 3e-3), **TRAINING}
    found.append(Asked("Moment Probing", WITH_TOKEN * of_token + stages[-1], 2, TrainedProbe, moments))
    return found


def _widths(spec: ProbeSpec, channels: int) -> dict[int, dict[str, dict[str, Any]]]:
    """Return the pools that are asked of a stage, by the number of channels they get."""
    widths = sorted({min(width, channels) for width in spec.widths})
    found = {width: dict(POOLS) for width in widths}
    if spec.thorough:
        found |= {width: found[width] | SPARSE for width in widths}
        found[widths[0]] |= POWERS
        found.setdefault(equal_width(channels), dict(POOLS))
    return dict(sorted(found.items()))


def called(what: str, width: int) -> str:
    """Return the name of a probe for people."""
    return f"{what}, {width} channels" if width else what


def equal_width(channels: int) -> int:
    """Return how many channels have a covariance that is as long as the average of ``channels``, or shorter by little.

    >>> equal_width(112), 14 * 15 // 2
    (14, 105)
    """
    return max(2, int(((8 * channels + 1) ** 0.5 - 1) / 2))


class TokenMoments(MomentProbingPool):
    """Moment probing as its paper has it for vision transformers: the first position is the class token."""

    def forward(self, x: Tensor) -> Tensor:
        """Return vectors of ``(B, C, 1 + M, 1)``."""
        return super().forward(x[:, :, 1:], class_token=x[:, :, 0, 0])


def read(features: dict[str, Tensor], asked: Asked) -> Tensor:
    """Return the features that a probe reads: of ``tokens`` the class token alone."""
    stage = asked.stage
    if stage == "tokens":
        return features["tokens"][:, 0]
    if stage.startswith(WITH_TOKEN):
        patches = features[stage.removeprefix(WITH_TOKEN)].flatten(2).transpose(1, 2)
        return torch.cat([features["tokens"][:, :1], patches], 1)
    return features[stage]


def beside_own(features: dict[str, Tensor], asked: Asked, places: Tensor) -> Tensor:
    """Return the own average with the vector of a pool beside it, each centered and of mean square length 1.

    A regression with one penalty would else hear the longer one alone. Mean and length are those of the images at
    ``places``, as are the directions of the projection.
    """
    maps = features[asked.stage]
    pooled = LinearProbe(**asked.options)
    pooled.directions_ = pooled.principal(maps[places])
    found = []
    for vectors in (features["own"][:].float(), pooled.vectors(maps)):
        centered = vectors - vectors[places].mean(0)
        found.append(centered / centered[places].square().sum(1).mean().sqrt())
    return torch.cat(found, 1)
