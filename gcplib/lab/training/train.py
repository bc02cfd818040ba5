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
from torch import Tensor
from torch.nn import functional

from gcplib.lab.progress import track
from gcplib.lab.training.build import enter_epoch, set_up, switch_pool
from gcplib.lab.training.engine import Engine
from gcplib.lab.training.evaluation import evaluate
from gcplib.lab.training.loop import Diverged, Stopped, train_epoch
from gcplib.lab.training.sources import ImageSource, Source
from gcplib.lab.training.spec import RunSpec
from gcplib.lab.training.state import TrainingState, load_latest
from gcplib.lab.training.writer import RunWriter

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["train"]

# From SIGTERM to the end, at most: a step and a checkpoint must fit in.
GRACE_SECONDS = 50.0


def train(spec: RunSpec, directory: Path, fabric: Fabric, engine: Engine) -> None:
    """Train a run, or the rest of it, and write its files; ``result.json`` comes last and says that it is whole.

    Raises:
        Stopped: the process was asked to end (SIGTERM); a checkpoint is there to continue from, or the run is whole.
    """
    start = time.perf_counter()

    def resume(state: TrainingState) -> None:
        load_latest(directory, state, fabric, spec.name, lambda epoch: switch_pool(state, spec, epoch))

    state, dataset, source = set_up(spec, fabric, engine, resume)
    splits = {name: torch.as_tensor(dataset.indices(name)) for name in ("train", "validation", "test")}
    writer = RunWriter(spec, directory, state, fabric, engine)
    with _asked_to_stop() as stop:
        outcome, reason, scores = "finished", "", {}
        try:
            with _last_checkpoint(writer, fabric):
                for epoch in _epochs(spec, state, fabric):
                    enter_epoch(state, epoch)
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
        if stop():
            raise Stopped(
                143 if fabric.is_global_zero else 0
            )  # asked during the last evaluation: this run is whole, but no other may begin


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
    state: TrainingState, fabric: Fabric, source: Source | ImageSource, test: Tensor, spec: RunSpec
) -> dict:
    """Return the logits on the test images of the epoch that was best on the validation images."""
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
