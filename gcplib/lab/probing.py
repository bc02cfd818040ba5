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
from gcplib.lab.probe_questions import BESIDE, Asked, asked_for, beside_own, called, read
from gcplib.lab.progress import track
from gcplib.lab.training import Engine, cache_all_features
from gcplib.lab.validation import Items, specification
from gcplib.probe import LinearProbe

__all__ = ["ProbeSpec", "Result", "probe"]

# Raised when the same probe would give other predictions, so that old results are not taken for new.
VERSION = 3
_TIMED, _ROUNDS = 64, 5  # images that are predicted for the cost, and how often; the fastest counts


@specification
class ProbeSpec:
    """A question to a frozen network: what can be read from its features of these images?

    Args:
        data: the images.
        backbone: any timm network.
        pretrained: see ``gcplib.create_backbone``.
        backbone_options: the same.
        strides: the stages, see ``gcplib.features.create_features``; None for stride 16 and the last.
        labels: ``fine`` or ``coarse``.
        widths: channels before second-order pooling, after a projection to the principal ones.
        seeds: how often each probe with weights to begin with is trained, by the rate that the first seed has chosen;
            none is with 0. A logistic regression has one solution, and is fitted once.
        thorough: ask also what takes long and decides no practitioner's question: covariances as long as the average,
            other powers, the sparse inverse, and the own average with covariance or root beside it.
        dtype: that features are kept in.
    """

    data: ImagesSpec | TypefacesSpec
    backbone: str = "tf_efficientnet_lite0"
    pretrained: bool | str = True
    backbone_options: dict[str, Any] = Field(default_factory=dict)
    strides: Items[int] | None = None
    labels: Literal["fine", "coarse"] = "fine"
    widths: Items[PositiveInt] = (64, 128)
    seeds: Annotated[int, Field(ge=0)] = 3
    thorough: bool = False
    dtype: Literal["float16", "float32"] = "float16"

    @cached_property
    def name(self) -> str:
        """The name of the folder of its results."""
        settings = asdict(self) | {"data": self.data.digest}
        return f"{getattr(self.data, 'dataset', 'typefaces')}-{self.backbone}-{self.labels}-{digest(settings)}"


@dataclass(frozen=True)
class Result:
    """One probe, with all its seeds."""

    what: str  # what is read
    stage: str  # of which features
    order: int  # 1 for averages, weighted or not, 2 for what knows covariances
    correct: np.ndarray  # (seeds, test images)
    length: int  # of the vector
    parameters: int  # that were fitted
    milliseconds: float  # for an image, without the network
    chosen: list[float]  # the setting of each seed
    at_end: bool  # whether a choice was at the end of what was tried
    validation: float = 0.0  # accuracy in percent on the images by which the setting was chosen
    width: int = 0  # channels after the projection; 0 for what has none

    @property
    def name(self) -> str:
        """The name for people."""
        return called(self.what, self.width)


def probe(spec: ProbeSpec, engine: Engine | None = None) -> tuple[list[Result], Images | Typefaces]:
    """Return what every probe reads, and the data set; what was fitted before is read from disk.

    Raises:
        ValueError: as ``load_data`` and ``cache_all_features``; or fewer than two images of a class for training.
    """
    dataset = load_data(spec.data)
    labels = dataset.labels(spec.labels)
    dtype, network = getattr(torch, spec.dtype), (spec.backbone, spec.strides, spec.pretrained, spec.backbone_options)
    features = cache_all_features(dataset, *network, engine=engine, dtype=dtype)
    list_of = asked_for(spec, features)
    fitted = track(_fitted(spec, list_of, dataset, features, labels), "probes", len(list_of), "probe")
    return list(fitted), dataset


def _fitted(
    spec: ProbeSpec, list_of: list[Asked], dataset: Images | Typefaces, features: dict[str, Tensor], labels: np.ndarray
) -> Iterator[Result]:
    places = {split: dataset.indices(split) for split in ("train", "validation", "test")}
    own_validation = not isinstance(dataset, Images) or "validation" in dataset.listing.splits
    took: dict[tuple[str, int, str], float] = {}
    for asked in list_of:
        about = [asked.what, asked.stage, asked.kind.__name__, str(asked.options), spec.name, VERSION]
        path = runs_dir() / "probe" / spec.name / "probes" / f"{digest(about)}.json"
        with locked(path):
            if not (kept := read_json(path)):
                of_both = asked.what.startswith(BESIDE)
                training = torch.from_numpy(np.concatenate([places["train"], places["validation"]]))
                X = beside_own(features, asked, training) if of_both else read(features, asked)
                kept = _fit(asked, X, labels, places, max(1, spec.seeds), own_validation)
                # The pool beside the average has been computed before its probe was timed.
                alone = (asked.what.removeprefix(BESIDE), asked.width, asked.stage)
                kept["milliseconds"] += took[alone] if of_both else 0
                write_json(path, kept)
        took[asked.what, asked.width, asked.stage] = kept["milliseconds"]
        shape = (max(1, spec.seeds), len(places["test"]))
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(kept.pop("correct")), np.uint8))[: shape[0] * shape[1]]
        right = bits.reshape(shape).astype(bool)
        yield Result(asked.what, asked.stage, asked.order, right, **kept, width=asked.width)


def _fit(
    asked: Asked, X: Tensor, labels: np.ndarray, places: dict[str, np.ndarray], seeds: int, own_validation: bool
) -> dict[str, Any]:
    training = np.concatenate([places["train"], places["validation"]])
    correct, chosen, at_end, fitted, validation = [], [], False, None, 0.0
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
        if seed == 0:
            validation = 100 * dict(fitted.search_)[chosen[0]][0]
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
        "validation": validation,
    }
