"""One run from its spec to its files, and how to try it before."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from gcplib.lab.data import ImagesSpec
from gcplib.lab.data.rendering import SPLITS
from gcplib.lab.files import cache_dir
from gcplib.lab.progress import track
from gcplib.lab.training.build import set_up, switch_pool
from gcplib.lab.training.engine import Engine
from gcplib.lab.training.loop import EVAL_BATCH, Diverged, Stopped, accuracy, evaluate, plan_epoch, top5, train_epoch
from gcplib.lab.training.recipe import Recipe
from gcplib.lab.training.sources import Source
from gcplib.lab.training.spec import RunSpec
from gcplib.lab.training.state import TrainingState, latest_checkpoint
from gcplib.lab.training.writer import RunWriter

# From SIGTERM to the end, at most: a step and a checkpoint must fit in.
GRACE_SECONDS = 50.0


def train(spec: RunSpec, directory: Path, fabric: Fabric, engine: Engine) -> None:
    """Train a run, or the rest of it, and write its files; ``result.json`` comes last and says that it is whole.

    Raises:
        Stopped: the process was asked to end (SIGTERM); a checkpoint is there to continue from, or the run is whole.
    """
    start = time.perf_counter()
    state, dataset, source = set_up(spec, fabric, engine, latest_checkpoint(directory, spec.name))
    places = {split: torch.as_tensor(dataset.indices(split)) for split in SPLITS}
    validation, test = (source.labels[places[split]] for split in ("validation", "test"))

    def logits_of(split: str) -> Tensor:
        return evaluate(state.evaluated, fabric, source, places[split], spec.recipe.flip)

    writer = RunWriter(spec, directory, state, fabric, engine)
    with _asked_to_stop() as stop:
        outcome, reason, last = "finished", "", None
        scores = {"test_accuracy": None, "test_top5": None}  # a diverged run has none, not those of chance
        epochs = range(state.epoch, spec.recipe.epochs)
        if fabric.is_global_zero:
            epochs = track(epochs, f"{spec.pool}, {spec.labels} labels, seed {spec.seed}", unit="epoch")
        try:
            for epoch in epochs:
                for module in nn.ModuleList(state.networks).modules():
                    if hasattr(module, "enter_epoch"):  # such as those trained in two stages
                        module.enter_epoch(epoch)
                row = train_epoch(state, fabric, source, places["train"], spec.recipe, spec.seed, writer.watch, stop)
                _finish_epoch(state, row, logits_of("validation"), validation, spec.recipe.report_best)
                if spec.pool_at(epoch + 1) != spec.pool_at(epoch):
                    switch_pool(state, spec, epoch + 1)  # before the checkpoint, which is one of the next epoch
                writer.after_epoch()
            last = best = logits_of("test")
            scores = {"test_accuracy": 100 * accuracy(last, test), "test_top5": 100 * top5(last, test)}
            if spec.recipe.report_best:
                if state.best["epoch"] < state.epoch - 1:
                    best = _with_best_weights(state, spec, lambda: logits_of("test"))
                scores |= {"best_epoch": state.best["epoch"], "best_test_accuracy": 100 * accuracy(best, test)}
        except Diverged as error:
            outcome, reason = "diverged", str(error)
        except Stopped:
            writer.save()
            fabric.barrier()  # the others wait for the one that writes
            # Only that one ends with an error: Fabric kills it at once when another does.
            raise Stopped(143 if fabric.is_global_zero else 0) from None
        row = state.history[-1] if state.history else {}
        gpu = torch.cuda.get_device_name(source.device) if source.device.type == "cuda" else None
        result = {
            "outcome": outcome,
            "reason": reason,
            "seconds": time.perf_counter() - start,
            **scores,
            **{name: 100 * row[name] if row else None for name in ("validation_accuracy", "train_accuracy")},
            "epochs": state.epoch,
            "parameters": sum(p.numel() for p in state.network.parameters()),
            "torch": torch.__version__,
            "data": dataset.digest,
            "device": str(source.device),
            "gpu": gpu,
            "devices": fabric.world_size,
        }
        writer.finish(result, last, dataset)
        if stop():  # asked during the last evaluation: this run is whole, but no other may begin
            raise Stopped(143 if fabric.is_global_zero else 0)


def _finish_epoch(state: TrainingState, row: dict, logits: Tensor, labels: Tensor, report_best: bool) -> None:
    found = accuracy(logits, labels)
    if report_best and found >= max((past["validation_accuracy"] for past in state.history), default=0.0):
        state.best = {"epoch": state.epoch, "weights": _copied(state)}  # of equal epochs the last
    row["validation_loss"] = functional.cross_entropy(logits, labels).item()
    row |= {"validation_accuracy": found, "validation_top5": top5(logits, labels)}
    state.history.append(row)
    state.epoch += 1


def _copied(state: TrainingState) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.evaluated.state_dict().items()}


def _with_best_weights(state: TrainingState, spec: RunSpec, logits: Callable[[], Tensor]) -> Tensor:
    """Return the logits of the epoch that was best on the validation images; the weights stay those of the last."""
    last = _copied(state)
    switch_pool(state, spec, state.best["epoch"])
    state.evaluated.load_state_dict(state.best["weights"])
    found = logits()
    switch_pool(state, spec, state.epoch - 1)
    state.evaluated.load_state_dict(last)
    return found


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


def dry_run(spec: RunSpec, fabric: Fabric, engine: Engine) -> dict:
    """Take one step with the pool of every phase, then a timed one, evaluate a batch, and write at most features.

    Returns:
        Counts of images and classes, parameters, seconds per step, hours for the whole run, GPU memory in GB, the
        features of the ``head`` stage, and advice.

    Raises:
        Diverged: the first steps are not finite. Whatever training would raise at its start.
    """
    cached = _cached()
    state, dataset, source = set_up(spec, fabric, engine)
    places = {split: torch.as_tensor(dataset.indices(split)) for split in SPLITS}
    steps = len(plan_epoch(places["train"], spec.recipe, spec.seed, 0))
    batch = places["train"][: spec.recipe.batch_size]
    for phase in [*spec.phases, spec.phases[-1]]:
        switch_pool(state, spec, phase)
        start = time.perf_counter()
        train_epoch(state, fabric, source, batch, spec.recipe, spec.seed)
    seconds = time.perf_counter() - start
    first = places["test"][: EVAL_BATCH * fabric.world_size]
    logits = evaluate(state.evaluated, fabric, source, first, spec.recipe.flip)
    return {
        **{f"{split} images": len(places[split]) for split in SPLITS},
        "classes": logits.shape[1],
        "parameters": sum(p.numel() for p in state.network.parameters()),
        "pool": " then ".join(dict.fromkeys([spec.pool, *(entry.pool for entry in spec.recipe.switch)])),
        "device": str(fabric.device),
        "loaders": getattr(source, "loaders", 0),
        "seconds per step": seconds,
        "hours for all epochs, without evaluation": seconds * steps * spec.recipe.epochs / 3600,
        "GPU memory in GB": torch.cuda.max_memory_allocated() / 1e9 if fabric.device.type == "cuda" else None,
        "features": _about_features(source, len(dataset), cached) if spec.stage == "head" else None,
        "advice": _advice(spec),
    }


def _cached() -> set[Path]:
    return set(cache_dir().glob("features-*"))


def _about_features(source: Source, count: int, before: set[Path]) -> str:
    size = source.inputs(torch.tensor([0])).nbytes * count / 1e9
    new = ", ".join(sorted(path.name for path in _cached() - before))
    return f"{size:.3g} GB in {cache_dir()}, " + (f"now written: {new}" if new else "there before")


def _advice(spec: RunSpec) -> str | None:
    """Return which rates to try where the default was meant for something else."""
    if not isinstance(spec.data, ImagesSpec) or spec.recipe.learning_rate != Recipe().learning_rate:
        return None
    rates = "0.05 and 0.1 (for gap 0.5)" if spec.stage == "head" else "0.001, 0.003 and 0.01"
    return (
        f"recipe.learning_rate {spec.recipe.learning_rate} is the default, for heads on typefaces; try {rates} too, "
        "and keep the one with the best validation accuracy"
    )
