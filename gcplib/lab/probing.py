"""Does second-order pooling pay on these images? Probes of a frozen network, with seeds, reused by a second run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from gcplib.lab.data import Images, ImagesSpec, Typefaces, TypefacesSpec, load_data
from gcplib.lab.files import digest, locked, read_json, runs_dir, write_json
from gcplib.lab.progress import track
from gcplib.lab.training import Engine, cache_all_features
from gcplib.lab.validation import Items, specification
from gcplib.nn.moment_probing import MomentProbingPool
from gcplib.probe import LinearProbe, TrainedProbe
from gcplib.probe.base import Probe

# Raised when the same probe would give other predictions, so that old results are not taken for new.
VERSION = 2
_TIMED, _ROUNDS = 64, 5  # images that are predicted for the cost, and how often; the fastest counts
WITH_TOKEN = "class token and "  # before the stage whose patches are beside it
TRAINING = {"epochs": 12}  # of probes with weights to begin with


@specification
class ProbeSpec:
    """A question to a frozen network: what can be read from its features of these images?

    Args:
        data: the images.
        backbone: any timm network.
        pretrained: see ``gcplib.create_backbone``.
        strides: the stages, see ``gcplib.features.create_features``; None for stride 16 and the last.
        labels: ``fine`` or ``coarse``.
        widths: channels before second-order pooling, after a projection to the principal ones.
        seeds: how often each probe with weights to begin with is trained, by the rate that the first seed has chosen. A
            logistic regression has one solution, and is fitted once.
        dtype: that features are kept in.
    """

    data: ImagesSpec | TypefacesSpec
    backbone: str = "tf_efficientnet_lite0"
    pretrained: bool | str = True
    strides: Items[int] | None = None
    labels: Literal["fine", "coarse"] = "fine"
    widths: Items[PositiveInt] = (64, 128)
    seeds: Annotated[int, Field(ge=1)] = 3
    dtype: Literal["float16", "float32"] = "float16"

    @cached_property
    def name(self) -> str:
        """The name of the folder of its results."""
        settings = asdict(self) | {"data": self.data.digest}
        return f"{getattr(self.data, 'dataset', 'typefaces')}-{self.backbone}-{self.labels}-{digest(settings)}"


@dataclass(frozen=True)
class Result:
    """One probe, with all its seeds."""

    name: str  # what is read
    stage: str  # of which features
    order: int  # 1 for averages, weighted or not, 2 for what knows covariances
    correct: np.ndarray  # (seeds, test images)
    length: int  # of the vector
    parameters: int  # that were fitted
    milliseconds: float  # for an image, without the network
    chosen: list[float]  # the setting of each seed
    at_end: bool  # whether a choice was at the end of what was tried


@dataclass(frozen=True)
class Asked:
    """What is to be fitted: the keyword arguments of a probe, and its features."""

    name: str
    stage: str
    order: int
    kind: type[Probe]
    options: dict[str, Any]


def asked_for(spec: ProbeSpec, features: dict[str, Tensor]) -> list[Asked]:
    """Return the probes of a network: averages, covariances of each stage, and trained ones of the last."""
    stages = [name for name in features if name.startswith("stage") or name.startswith("stride")]
    found = [Asked("own average", "own", 1, LinearProbe, {})]
    if "tokens" in features:
        found.append(Asked("class token", "tokens", 1, LinearProbe, {}))
    for stage in stages:
        found.append(Asked("average", stage, 1, LinearProbe, {"pool": "gap"}))
        channels = features[stage].shape[1]
        for width in sorted({min(width, channels) for width in spec.widths}):
            for pool, name in (("cov", "covariance"), ("mpn_cov", "root"), ("gaussian", "Gaussian")):
                options = {"pool": pool, "width": width}
                found.append(Asked(f"{name}, {width} channels", stage, 2, LinearProbe, options))
    # They take minutes at a stage of many positions; at the last they are what papers report.
    found.append(Asked("attention", stages[-1], 1, TrainedProbe, {"pool": "attention", **TRAINING}))
    of_token = "tokens" in features
    moments = {"pool": TokenMoments if of_token else "moment_probing", "rates": (1e-3, 3e-3), **TRAINING}
    found.append(Asked("Moment Probing", WITH_TOKEN * of_token + stages[-1], 2, TrainedProbe, moments))
    return found


class TokenMoments(MomentProbingPool):
    """Moment probing as its paper has it for vision transformers: the first position is the class token."""

    def forward(self, x: Tensor) -> Tensor:
        """Return vectors of ``(B, C, 1 + M, 1)``."""
        return super().forward(x[:, :, 1:], class_token=x[:, :, 0, 0])


def read(features: dict[str, Tensor], stage: str) -> Tensor:
    """Return the features of a stage, as a probe takes them: of ``tokens`` the class token alone."""
    if stage == "tokens":
        return features["tokens"][:, 0]
    if stage.startswith(WITH_TOKEN):
        patches = features[stage.removeprefix(WITH_TOKEN)].flatten(2).transpose(1, 2)
        return torch.cat([features["tokens"][:, :1], patches], 1)
    return features[stage]


def probe(spec: ProbeSpec, engine: Engine | None = None) -> tuple[list[Result], Images | Typefaces]:
    """Return what every probe reads, and the data set; what was fitted before is read from disk.

    Raises:
        ValueError: as ``load_data`` and ``cache_all_features``; or fewer than two images of a class for training.
    """
    dataset = load_data(spec.data)
    labels = dataset.labels(spec.labels)
    features = cache_all_features(
        dataset, spec.backbone, spec.strides, spec.pretrained, engine=engine, dtype=getattr(torch, spec.dtype)
    )
    list_of = asked_for(spec, features)
    fitted = track(_fitted(spec, list_of, dataset, features, labels), "probes", len(list_of), "probe")
    return list(fitted), dataset


def _fitted(
    spec: ProbeSpec, list_of: list[Asked], dataset: Images | Typefaces, features: dict[str, Tensor], labels: np.ndarray
) -> Iterator[Result]:
    places = {split: dataset.indices(split) for split in ("train", "validation", "test")}
    own_validation = not isinstance(dataset, Images) or "validation" in dataset.listing.splits
    for asked in list_of:
        about = [asked.name, asked.stage, asked.kind.__name__, str(asked.options), spec.name, VERSION]
        path = runs_dir() / "probe" / spec.name / "probes" / f"{digest(about)}.json"
        with locked(path):
            if not (kept := read_json(path)):
                kept = _fit(asked, read(features, asked.stage), labels, places, spec.seeds, own_validation)
                write_json(path, kept)
        shape = (spec.seeds, len(places["test"]))
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(kept.pop("correct")), np.uint8))[: shape[0] * shape[1]]
        yield Result(asked.name, asked.stage, asked.order, bits.reshape(shape).astype(bool), **kept)


def _fit(
    asked: Asked, X: Tensor, labels: np.ndarray, places: dict[str, np.ndarray], seeds: int, own_validation: bool
) -> dict[str, Any]:
    training = np.concatenate([places["train"], places["validation"]])
    correct, chosen, at_end, fitted = [], [], False, None
    for seed in range(seeds):
        options = dict(asked.options)
        if fitted is not None and asked.kind is LinearProbe:  # nothing else would come out
            correct.append(correct[0])
            continue
        if fitted is not None:
            options["rates"] = (fitted.rate_,)  # chosen with the first seed
        fitted = asked.kind(seed=seed, **options)
        if own_validation:
            one, two = (torch.from_numpy(places[split]) for split in ("train", "validation"))
            fitted.fit(X[one], labels[one], validation=(X[two], labels[two]))
        else:
            fitted.fit(X[torch.from_numpy(training)], labels[training])
        test = torch.from_numpy(places["test"])
        correct.append(fitted.predict(X[test]) == labels[test])
        chosen.append(getattr(fitted, "C_", None) or fitted.rate_)
        at_end |= bool(fitted.at_end_)
    few, times = X[test[:_TIMED]], []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        fitted.predict(few)
        times.append(time.perf_counter() - begin)
    return {
        "correct": np.packbits(np.array(correct)).tobytes().hex(),
        "length": int(fitted.length_),
        "parameters": int(fitted.parameters_),
        "milliseconds": 1000 * min(times) / len(few),
        "chosen": [float(value) for value in chosen],
        "at_end": at_end,
    }
