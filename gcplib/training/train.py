"""One run from its spec to its files."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcplib.data import Pictures, Typefaces, load_data, require_sound
from gcplib.models import Head, Model, create_backbone
from gcplib.nn import create_pool
from gcplib.progress import track
from gcplib.training.engine import Engine
from gcplib.training.features import cache_features
from gcplib.training.loop import Diverged, Stopped, evaluate, train_epoch
from gcplib.training.sources import PictureSource, Source, default_loaders
from gcplib.training.spec import RunSpec
from gcplib.training.state import TrainingState, load_latest, make_average, make_optimizer
from gcplib.training.writer import RunWriter

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["backbone_of", "make_head", "network_and_source", "switch_pool", "train"]

# From SIGTERM to the end, at most: a step and a checkpoint must fit in.
GRACE_SECONDS = 50.0


def make_head(spec: RunSpec, channels: int, classes: int, epoch: int = 0) -> Head:
    """Return the head of a run as it is from ``epoch`` on, untrained."""
    pool, options = spec.pool_at(epoch)
    return Head(create_pool(pool, channels, spec.reduction, **options), classes)


def backbone_of(spec: RunSpec) -> tuple:
    """Return what names a run's backbone: the arguments of ``cache_features`` after the data."""
    return spec.backbone, spec.stride, spec.pretrained, spec.backbone_options


def network_and_source(
    spec: RunSpec, dataset: Typefaces | Pictures, device: torch.device, engine: Engine
) -> tuple[nn.Module, Source | PictureSource]:
    classes, labels = len(dataset.class_names(spec.labels)), torch.as_tensor(dataset.labels(spec.labels))
    if spec.stage == "head":
        features = cache_features(dataset, *backbone_of(spec))
        torch.manual_seed(spec.seed)
        head = make_head(spec, features.shape[1], classes)
        return head, Source(lambda batch: features[batch].to(device), labels, device)
    if isinstance(dataset, Pictures):
        require_sound(dataset)
    torch.manual_seed(spec.seed)
    backbone = create_backbone(spec.backbone, spec.pretrained, spec.stride, spec.backbone_options)
    network = Model(backbone, make_head(spec, backbone.out_channels, classes))
    loaders = default_loaders(device, isinstance(dataset, Pictures)) if engine.loaders is None else engine.loaders
    return network, PictureSource(dataset, backbone.prepare, labels, device, loaders)


def switch_pool(state: TrainingState, spec: RunSpec, epoch: int) -> None:
    """Put the pool of ``epoch`` in place of the one that is there; the reduction, which has the weights, stays.

    The optimiser, other devices and the moving average hold the same parameters as before.
    """
    for network in state.networks:
        head = getattr(network, "head", network)
        fresh = make_head(spec, head.pool.in_channels, head.classifier.out_features, epoch).pool
        if fresh.out_features != head.pool.out_features:
            raise ValueError(
                f"recipe.switch: {spec.pool_at(epoch)[0]} has vectors of {fresh.out_features} numbers, the pool before "
                f"it {head.pool.out_features}; the classifier fits one length only"
            )
        fresh.reduction = head.pool.reduction
        head.pool = fresh.to(head.classifier.weight.device).train(network.training)


def train(spec: RunSpec, directory: Path, fabric: Fabric, engine: Engine) -> None:
    """Train a run, or the rest of it, and write its files; ``result.json`` comes last and says that it is whole.

    Raises:
        Stopped: the process was asked to end (SIGTERM); a checkpoint is there to continue from.
    """
    start = time.perf_counter()
    dataset = load_data(spec.data)
    network, source = network_and_source(spec, dataset, fabric.device, engine)
    network.to(fabric.device)
    state = TrainingState(network, network, make_optimizer(network, spec.recipe))
    state.average = make_average(network, spec.recipe.ema)
    if spec.recipe.batch_size < fabric.world_size:
        raise ValueError(f"recipe.batch_size is {spec.recipe.batch_size}, fewer than the {fabric.world_size} devices")
    for phase in sorted({0, *map(spec.recipe.switch_epoch, spec.recipe.switch)}, reverse=True):
        switch_pool(state, spec, phase)  # a pool that does not fit shows now, not in its epoch
    load_latest(directory, state, fabric, spec.name, lambda epoch: switch_pool(state, spec, epoch))
    wrapped = torch.compile(network) if spec.recipe.compile else network
    state.model, state.optimizer = fabric.setup(wrapped, state.optimizer)
    splits = {name: torch.as_tensor(dataset.indices(name)) for name in ("train", "validation", "test")}
    writer = RunWriter(spec, directory, state, fabric, engine)
    outcome, reason, scores = "finished", "", {}
    try:
        with _asked_to_stop() as stop, _last_checkpoint(writer, fabric):
            for epoch in _epochs(spec, state, fabric):
                wanted = (state, fabric, source, splits["train"], spec.recipe, spec.seed)
                row = train_epoch(*wanted, writer.watch, writer.after_step, stop)
                logits = evaluate(state.judged, fabric, source, splits["validation"], spec.recipe.flip)
                row |= _score(logits, source.labels[splits["validation"]])
                _finish_epoch(state, row, spec.recipe.report_best)
                if spec.pool_at(epoch + 1) != spec.pool_at(epoch):
                    switch_pool(state, spec, epoch + 1)  # before the checkpoint, which is one of the next epoch
                writer.after_epoch()
        scores = {"last": evaluate(state.judged, fabric, source, splits["test"], spec.recipe.flip)}
        scores |= _judge_best(state, fabric, source, splits["test"], spec)
    except Diverged as error:
        outcome, reason = "diverged", str(error)
    result = {"outcome": outcome, "reason": reason, "seconds": time.perf_counter() - start}
    result |= summary(spec, state, scores, source.labels[splits["test"]])
    result |= {"torch": torch.__version__, "data": dataset.digest, "device": str(source.device)}
    writer.finish(result | {"devices": fabric.world_size}, scores.get("last"), splits["test"], source.labels)


@contextlib.contextmanager
def _last_checkpoint(writer: RunWriter, fabric: Fabric) -> Iterator[None]:
    """Write a checkpoint before a process ends that was asked to; the others wait for the one that writes.

    Only that one ends with an error: Fabric kills it at once when another does.
    """
    try:
        yield
    except Stopped:
        writer.save()
        fabric.barrier()
        raise Stopped(143 if fabric.is_global_zero else 0) from None


def _epochs(spec: RunSpec, state: TrainingState, fabric: Fabric) -> Iterator[int]:
    epochs = range(state.epoch, spec.recipe.epochs)
    if not fabric.is_global_zero:
        return iter(epochs)
    return track(epochs, f"{spec.pool}, {spec.labels} labels, seed {spec.seed}", unit="epoch")


def _finish_epoch(state: TrainingState, row: dict, report_best: bool) -> None:
    state.history.append(row)
    state.epoch += 1
    best = max(range(len(state.history)), key=lambda place: (state.history[place]["validation_accuracy"], place))
    if report_best and best == state.epoch - 1:
        weights = {name: value.detach().cpu().clone() for name, value in state.judged.state_dict().items()}
        state.best = {"epoch": best, "weights": weights}


def _judge_best(
    state: TrainingState, fabric: Fabric, source: Source | PictureSource, test: Tensor, spec: RunSpec
) -> dict:
    """Return the logits on the test pictures of the epoch that was best on the validation pictures."""
    if state.best is None or state.best["epoch"] == state.epoch - 1:
        return {}
    last = {name: value.clone() for name, value in state.judged.state_dict().items()}
    switch_pool(state, spec, state.best["epoch"])
    state.judged.load_state_dict(state.best["weights"])
    logits = evaluate(state.judged, fabric, source, test, spec.recipe.flip)
    switch_pool(state, spec, state.epoch - 1)
    state.judged.load_state_dict(last)
    return {"best": logits}


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM has come, as it does before a machine is taken away."""
    asked, ended = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(*_: object) -> None:
        asked.set()
        # A process that waits for another one, which has ended, would never come to the end of its step.
        threading.Thread(target=leave, daemon=True).start()

    def leave() -> None:
        if not ended.wait(GRACE_SECONDS):
            print("Asked to end, and the step does not: ending without a checkpoint.", file=sys.stderr, flush=True)
            os._exit(143)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked.is_set
    finally:
        ended.set()
        signal.signal(signal.SIGTERM, before)


def _top(logits: Tensor, labels: Tensor, k: int) -> float:
    return (logits.topk(min(k, logits.shape[1])).indices == labels[:, None]).any(1).double().mean().item()


def _score(logits: Tensor, labels: Tensor) -> dict:
    return {
        "validation_loss": functional.cross_entropy(logits, labels).item(),
        "validation_accuracy": (logits.argmax(1) == labels).double().mean().item(),
        "validation_top5": _top(logits, labels, 5),
    }


def summary(spec: RunSpec, state: TrainingState, scores: dict[str, Tensor], labels: Tensor) -> dict:
    """Return what ``result.json`` says, in percent; a diverged run has a test accuracy of None, not of chance."""
    last = state.history[-1] if state.history else {}
    logits = scores.get("last")
    found = {
        "test_accuracy": None if logits is None else 100 * (logits.argmax(1) == labels).double().mean().item(),
        "test_top5": None if logits is None else 100 * _top(logits, labels, 5),
        "validation_accuracy": 100 * last["validation_accuracy"] if last else None,
        "train_accuracy": 100 * last["train_accuracy"] if last else None,
        "epochs": state.epoch,
        "parameters": sum(p.numel() for p in state.network.parameters()),
    }
    if spec.recipe.report_best and logits is not None:
        best = scores.get("best", logits)
        found |= {
            "best_epoch": state.best["epoch"],
            "best_test_accuracy": 100 * (best.argmax(1) == labels).double().mean().item(),
        }
    return found
