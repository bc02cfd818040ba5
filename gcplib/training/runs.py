"""Runs as files: a finished run is read, an unfinished one continued, a missing one trained."""

from __future__ import annotations

import csv
import json
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from gcplib.data import Pictures, Typefaces, load_data
from gcplib.files import cache_dir, locked, runs_dir, write_atomic
from gcplib.models import Head, Model, create_backbone
from gcplib.nn import create_pool
from gcplib.progress import track
from gcplib.training.features import cache_features
from gcplib.training.loop import Diverged, Source, TrainingState, evaluate, make_optimizer, train_epoch
from gcplib.training.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "ensure", "ensure_all"]

# A checkpoint after every epoch would cost a head run more than it saves.
SECONDS_BETWEEN_CHECKPOINTS = 20.0


@dataclass(frozen=True)
class Run:
    """A finished run on disk.

    Attributes:
        spec: what was run. directory: ``spec.yaml``, ``metrics.csv``, ``result.json``, ``model.safetensors``,
        ``predictions.csv`` (picture, true and predicted class on the test set).
    """

    spec: RunSpec
    directory: Path

    @cached_property
    def result(self) -> dict:
        """Outcome (``finished`` or ``diverged``), accuracies in percent, times, versions."""
        return json.loads((self.directory / "result.json").read_text())

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row an epoch."""
        import pandas as pd

        return pd.read_csv(self.directory / "metrics.csv")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row a test picture: ``picture``, ``label``, ``prediction``."""
        import pandas as pd

        return pd.read_csv(self.directory / "predictions.csv")

    def load_model(self) -> nn.Module:
        """Return the trained network: a ``Head`` of the ``head`` stage, a whole ``Model`` of the ``full`` stage."""
        weights = load_file(self.directory / "model.safetensors")
        classes = len(next(value for name, value in weights.items() if name.endswith("classifier.bias")))
        backbone = create_backbone(self.spec.backbone, False, self.spec.stride, self.spec.backbone_options)
        head = _make_head(self.spec, backbone.out_channels, classes)
        model = head if self.spec.stage == "head" else Model(backbone, head)
        model.load_state_dict(weights)
        return model.eval()


def _make_head(spec: RunSpec, channels: int, classes: int) -> Head:
    return Head(create_pool(spec.pool, channels, spec.reduction, **spec.options), classes)


def _backbone(spec: RunSpec) -> tuple:
    return spec.backbone, spec.stride, spec.pretrained, spec.backbone_options


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _write_json(path: Path, value: dict) -> None:
    with write_atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def _write_rows(path: Path, rows: list[dict]) -> None:
    with write_atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys() if rows else ["epoch"])
        writer.writeheader()
        writer.writerows(rows)


def run_directory(spec: RunSpec) -> Path:
    """Return the folder of a run, whether it exists or not."""
    return runs_dir() / "train" / spec.name


def ensure(spec: RunSpec) -> Run:
    """Return the finished run of ``spec``, training it first if need be.

    An interrupted run continues from its last checkpoint to the weights it would have reached. A run that becomes
    non-finite ends with the outcome ``diverged`` and its history; it is not tried again.

    Raises:
        ValueError: the spec asks for something that does not exist. FileNotFoundError: its data set is not on disk.
    """
    run = Run(spec, run_directory(spec))
    if not (run.directory / "result.json").exists():
        with locked(run.directory):
            # Another process may have finished it while this one waited.
            if not (run.directory / "result.json").exists():
                _train(spec, run.directory)
    return run


def _model_and_source(spec: RunSpec, dataset: Typefaces | Pictures) -> tuple[nn.Module, Source]:
    device, classes = _device(), len(dataset.class_names(spec.labels))
    labels = torch.as_tensor(dataset.labels(spec.labels))
    if spec.stage == "head":
        features = cache_features(dataset, *_backbone(spec))
        torch.manual_seed(spec.seed)
        head = _make_head(spec, features.shape[1], classes)
        return head.to(device), Source(lambda batch: features[batch].to(device), labels, device)
    torch.manual_seed(spec.seed)
    backbone = create_backbone(spec.backbone, spec.pretrained, spec.stride, spec.backbone_options)
    model = Model(backbone, _make_head(spec, backbone.out_channels, classes)).to(device)
    return model, Source(lambda batch: backbone.prepare(dataset.images(batch.numpy())), labels, device)


def _train(spec: RunSpec, directory: Path) -> None:
    start = time.perf_counter()
    dataset = load_data(spec.data)
    model, source = _model_and_source(spec, dataset)
    classifier = model.classifier if spec.stage == "head" else model.head.classifier
    splits = {name: torch.as_tensor(dataset.indices(name)) for name in ("train", "validation", "test")}

    with write_atomic(directory / "spec.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(spec.to_dict(), sort_keys=False))
    state = TrainingState(model, make_optimizer(model, classifier, spec.recipe))
    checkpoint = directory / "checkpoint.pt"
    if checkpoint.exists():
        state.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    saved = time.perf_counter()
    outcome, reason = "finished", ""
    logits = None
    epochs = range(state.epoch, spec.recipe.epochs)
    try:
        for epoch in track(epochs, f"{spec.pool}, {spec.labels} labels, seed {spec.seed}", unit="epoch"):
            row = train_epoch(state, source, splits["train"], spec.recipe, spec.seed)
            row |= _score(
                evaluate(model, source, splits["validation"], spec.recipe.flip), source.labels[splits["validation"]]
            )
            state.history.append(row)
            state.epoch = epoch + 1
            _write_rows(directory / "metrics.csv", state.history)
            if time.perf_counter() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                with write_atomic(checkpoint) as temporary:
                    torch.save(state.state_dict(), temporary)
                saved = time.perf_counter()
        logits = evaluate(model, source, splits["test"], spec.recipe.flip)
    except Diverged as error:
        outcome, reason = "diverged", str(error)
        _write_rows(directory / "metrics.csv", state.history)
    result = _summary(spec, state, logits, source.labels[splits["test"]])
    if logits is not None:
        rows = zip(
            splits["test"].tolist(), source.labels[splits["test"]].tolist(), logits.argmax(1).tolist(), strict=True
        )
        _write_rows(
            directory / "predictions.csv", [dict(zip(("picture", "label", "prediction"), r, strict=True)) for r in rows]
        )
        with write_atomic(directory / "model.safetensors") as temporary:
            save_file({key: value.contiguous() for key, value in model.state_dict().items()}, temporary)
    versions = {"torch": torch.__version__, "data": dataset.digest, "device": str(source.device)}
    seconds = time.perf_counter() - start
    # Written last: its presence is what says that the run is whole.
    _write_json(
        directory / "result.json", {"outcome": outcome, "reason": reason, "seconds": seconds} | result | versions
    )
    checkpoint.unlink(missing_ok=True)


def _score(logits: Tensor, labels: Tensor) -> dict:
    return {
        "validation_loss": functional.cross_entropy(logits, labels).item(),
        "validation_accuracy": (logits.argmax(1) == labels).double().mean().item(),
    }


def _summary(spec: RunSpec, state: TrainingState, logits: Tensor | None, labels: Tensor) -> dict:
    """Return what ``result.json`` says; a diverged run has a test accuracy of None, not of chance."""
    last = state.history[-1] if state.history else {}
    correct = None if logits is None else 100 * (logits.argmax(1) == labels).double().mean().item()
    return {
        "test_accuracy": correct,
        "validation_accuracy": 100 * last["validation_accuracy"] if last else None,
        "train_accuracy": 100 * last["train_accuracy"] if last else None,
        "epochs": state.epoch,
        "parameters": sum(p.numel() for p in state.model.parameters()),
    }


def _ensure_quietly(spec: RunSpec) -> None:
    ensure(spec)


def _start_worker(parent: int) -> None:
    os.environ["GCPLIB_PROGRESS"] = "0"
    os.environ.pop("GCPLIB_STATUS", None)
    torch.set_num_threads(1)

    def end_with_parent() -> None:
        # A killed kernel cannot end its workers, and nothing else would.
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@cache
def _pool(workers: int, *_places: Path) -> ProcessPoolExecutor:
    """Return the worker processes for these folders, kept between calls: importing torch takes them many seconds."""
    return ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (os.getpid(),))


def ensure_all(specs: list[RunSpec], workers: int = 1) -> list[Run]:
    """Return the finished runs of ``specs``, in their order, training the missing ones.

    Args:
        specs: may repeat. workers: processes with one thread each; several small runs side by side are faster than
            one run on several cores, because batched eigendecompositions do not use them.
    """
    missing = _missing(specs)
    if missing and all(spec.stage == "head" for spec in missing):
        # Once, on all cores, before the workers compete for them.
        for data, *backbone in {str((s.data, *_backbone(s))): (s.data, *_backbone(s)) for s in missing}.values():
            cache_features(load_data(data), *backbone)
    description = f"{len(missing)} runs to train, {len(specs) - len(missing)} on disk"
    if workers > 1 and len(missing) > 1:
        pool = _pool(workers, runs_dir(), cache_dir())
        futures = [pool.submit(_ensure_quietly, spec) for spec in missing]
        try:
            for future in track(as_completed(futures), description, len(missing), "run"):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            _pool.cache_clear()
            raise
    else:
        for spec in track(missing, description, unit="run") if missing else ():
            ensure(spec)
    return [ensure(spec) for spec in specs]


def _missing(specs: list[RunSpec]) -> list[RunSpec]:
    by_name = {spec.name: spec for spec in specs}
    return [spec for spec in by_name.values() if not (run_directory(spec) / "result.json").exists()]
