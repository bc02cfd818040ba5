"""What the parameters of a notebook stand for: images, a frozen network, and the run that its runs are variants of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gcplib.backbones import Backbone
from gcplib.lab.data import Images, ImagesSpec, Typefaces, choose_data, load_data
from gcplib.lab.training import (
    Engine,
    Recipe,
    Run,
    RunSpec,
    Tuned,
    cache_all_features,
    cache_features,
    ensure_all,
    results_table,
    tune,
)
from gcplib.lab.training.build import make_start
from gcplib.models import create_backbone

if TYPE_CHECKING:
    import pandas as pd

    from gcplib.lab.probing import Result

__all__ = ["Setting", "make_setting"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Setting:
    """Images, network and training of a notebook; everything is read or computed when it is first asked for.

    Args:
        base: the run that all others are variants of, by ``dataclasses.replace``.
        engine: where things are computed.
        workers: runs that are trained side by side.
    """

    base: RunSpec
    engine: Engine
    workers: int = 1

    @cached_property
    def dataset(self) -> Typefaces | Images:
        """The images."""
        return load_data(self.base.data)

    @property
    def device(self) -> torch.device:
        """What whole networks are computed on."""
        return torch.device(self.engine.kind)

    @property
    def of_backbone(self) -> tuple[str, int | None, bool | str, Mapping[str, Any]]:
        """The arguments of ``create_backbone`` and, behind the data set, of ``cache_features``."""
        return self.base.backbone, self.base.stride, self.base.pretrained, self.base.backbone_options

    @cached_property
    def network(self) -> Backbone:
        """The backbone with its published weights, frozen, on the device."""
        name, stride, pretrained, options = self.of_backbone
        found = create_backbone(name, pretrained, stride, options, pixels=self.base.data.pixels)
        return found.eval().requires_grad_(False).to(self.device)

    @cached_property
    def features(self) -> Tensor:
        """The frozen backbone's maps ``(images, C, H, W)`` of every image, read from disk as they are needed."""
        return cache_features(self.dataset, *self.of_backbone, engine=self.engine)

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of labels that there are, of ``fine`` and ``coarse``; what is missing is said once."""
        found = ["fine"]
        try:
            self.dataset.class_names("coarse")
            found.append("coarse")
        except ValueError as error:
            print(f"without coarse labels: {error}")
        return found

    @cached_property
    def labels(self) -> dict[str, Tensor]:
        """The labels ``(images,)`` of each kind that there is; nothing is said of one that is missing."""
        found = {"fine": torch.as_tensor(self.dataset.labels("fine"))}
        with suppress(ValueError):
            found["coarse"] = torch.as_tensor(self.dataset.labels("coarse"))
        return found

    @cached_property
    def places(self) -> dict[str, Tensor]:
        """The indices of the images of each split."""
        return {split: torch.as_tensor(self.dataset.indices(split)) for split in SPLITS}

    @property
    def classes(self) -> int:
        """The number of fine classes."""
        return len(self.dataset.class_names("fine"))

    def maps(self, index: Tensor, network: Backbone | None = None) -> Tensor:
        """Return feature maps ``(n, C, H, W)`` of some images: cached ones, or in the full stage those of a network."""
        if self.base.stage == "head":
            return self.features[index]
        network = network or self.network
        with torch.no_grad():
            images = (torch.from_numpy(self.dataset.images(block.numpy())) for block in index.split(8))
            return torch.cat([network(network.prepare(few)).cpu() for few in images])

    def untrained(self, spec: RunSpec) -> nn.Module:
        """Return what a run on these images begins with, on the device: a head, or in the full stage all of it."""
        classes = len(self.dataset.class_names(spec.labels))
        return make_start(spec, classes, self.network.out_channels).to(self.device)

    def batches(self, seed: int, steps: int, kind: str = "fine") -> Iterator[tuple[Tensor, Tensor]]:
        """Yield maps, or in the full stage prepared images, with labels: of training images drawn for each step."""
        generator, places = torch.Generator().manual_seed(seed), self.places["train"]
        for _ in range(steps):
            index = places[torch.randperm(len(places), generator=generator)[: self.base.recipe.batch_size]]
            if self.base.stage == "head":
                inputs = self.maps(index).to(self.device)
            else:
                inputs = self.network.prepare(self.dataset.images(index.numpy()))
            yield inputs, self.labels[kind][index].to(self.device)

    def parts(self, model: nn.Module) -> tuple[Backbone, nn.Module]:
        """Return backbone and head of a run's network; behind every head of the head stage is the frozen backbone."""
        return (self.network, model) if self.base.stage == "head" else (model.backbone, model.head)

    def some(self, split: str, count: int) -> Tensor:
        """Return the indices of a few images of a split, evenly spaced in its order."""
        return self.places[split][torch.linspace(0, len(self.places[split]) - 1, count).long()]

    def chance(self, kind: str = "fine") -> float:
        """Return the accuracy in percent of always naming the largest class of the training images."""
        counts = np.bincount(self.labels[kind][self.places["train"]])
        return 100 * counts.max() / counts.sum()

    def described(self, *more: str) -> str:
        """Return images, sizes and stage in a line, for figures and the records of claims, with more behind them."""
        data, base = self.base.data, self.base
        if isinstance(data, ImagesSpec):
            seen = f"{Path(data.root).name} ({data.dataset})" if data.root else data.dataset
            count = f"{self.classes} classes, {len(self.places['train'])} training images"
        else:
            seen, count = "Typefaces", f"{data.families} families, {data.train} training images each"
        network = [] if base.backbone == RunSpec.backbone else [base.backbone]
        where = [f"{data.pixels} px", *network, f"stride {base.stride}", f"{base.stage} stage"]
        return ", ".join([seen, count, *where, *more])

    def stages(self, strides: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Return the frozen network's maps of several stages, and more, of every image; see ``cache_all_features``."""
        name, _, *rest = self.of_backbone
        return cache_all_features(self.dataset, name, strides, *rest, engine=self.engine)

    def probe(self, **asked: Any) -> list[Result]:
        """Return what probes read from stages of the frozen network; ``asked`` are other fields of a ``ProbeSpec``."""
        from gcplib.lab.probing import ProbeSpec, probe  # here, because other notebooks need no scikit-learn

        name, _, pretrained, options = self.of_backbone
        network = {"backbone": name, "pretrained": pretrained, "backbone_options": dict(options)}
        return probe(ProbeSpec(data=self.base.data, **network, **asked), self.engine)[0]

    def train(self, specs: Iterable[RunSpec]) -> list[Run]:
        """Return the finished runs of ``specs``, training the missing ones; see ``ensure_all``."""
        return ensure_all(list(specs), self.workers, self.engine)

    def scores(self, runs: Mapping[tuple, Run], names: Sequence[str]) -> pd.DataFrame:
        """Return a row per run: ``results_table``, its key under these names, and its ``score``, and say how it went.

        The score is the test accuracy in percent. A run that diverged has that of guessing the most frequent class,
        which is what its user is left with.

        Args:
            runs: by key.
            names: of the parts of the keys.
        """
        data = self.base.data
        source = data.dataset if isinstance(data, ImagesSpec) else "typefaces"
        table = results_table(runs.values()).assign(dataset=source)
        table[list(names)] = list(runs)
        table["epochs"] = [run.spec.recipe.epochs for run in runs.values()]
        guess = {kind: self.chance(kind) for kind in table["labels"].unique()}
        table["score"] = table.test_accuracy.astype(float).fillna(table["labels"].map(guess))
        lost = table[table.outcome != "finished"]
        chance = ", ".join(f"{value:.1f} %" for value in guess.values())
        print(f"{len(runs)} runs, {len(lost)} diverged; guessing has {chance}")
        if len(lost):
            print(lost[[*names, "reason"]].to_string(index=False))
        return table

    def tune(self, specs: Mapping[str, RunSpec], rates: Mapping[str, Iterable[float]]) -> Tuned:
        """Return the best learning rate of each method on validation images; see ``gcplib.lab.training.tune``."""
        return tune(specs, rates, self.train)


def make_setting(
    *,
    dataset: str = "typefaces",
    root: str = "",
    families: int,
    train: int,
    validation: int,
    test: int,
    pixels: int,
    pretrained: str = "",
    device: str = "auto",
    workers: int = 1,
    recipe: Recipe | None = None,
    **fields: Any,
) -> Setting:
    """Return what the parameters of a notebook stand for.

    Args:
        dataset: see ``gcplib.lab.data.choose_data``, also for the next six.
        root: folder of the images.
        families: count of typefaces.
        train: training images per typeface.
        validation: validation images per typeface.
        test: test images per typeface.
        pixels: side of an image.
        pretrained: a file of backbone weights; empty for the published ones.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
        workers: runs that are trained side by side.
        recipe: how runs are trained.
        fields: others of a ``RunSpec``, such as ``stride``.

    Raises:
        SpecError: an unknown device or field, or values that do not fit.
        ValueError: see ``choose_data``.
    """
    counts = {"families": families, "train": train, "validation": validation, "test": test}
    data = choose_data(dataset, root, **counts, pixels=pixels)
    base = RunSpec(data=data, pretrained=pretrained or True, recipe=recipe or Recipe(), **fields)
    return Setting(base, Engine(accelerator=device), workers)
