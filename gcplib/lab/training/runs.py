"""Runs as files: a finished run is read, an unfinished one continued, a missing one trained."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric

from gcplib.lab.data import load_data
from gcplib.lab.data.workers import main_hidden
from gcplib.lab.files import cache_dir, runs_dir
from gcplib.lab.progress import track
from gcplib.lab.training.build import features_of
from gcplib.lab.training.engine import Engine, PeerLost, cached_fabric, stop_with_parent
from gcplib.lab.training.features import cache_features
from gcplib.lab.training.predict import Run
from gcplib.lab.training.spec import RunSpec
from gcplib.lab.training.train import train


def run_directory(spec: RunSpec) -> Path:
    """Return the folder of a run, whether it exists or not."""
    return runs_dir() / "train" / spec.name


def ensure(spec: RunSpec, engine: Engine | None = None) -> Run:
    """Return the finished run of ``spec``, training it first if need be.

    An interrupted run continues from its last checkpoint, on a CPU to the weights it would have reached, bit for bit.
    A run that becomes non-finite ends with the outcome ``diverged`` and its history; it is not tried again.

    Args:
        spec: the run.
        engine: on which devices; it is no part of what the run is.

    Raises:
        ValueError: the spec asks for something that does not exist, or its data set has corrupt images.
        FileNotFoundError: its data set is not on disk.
        CheckpointError: what is there cannot be continued.
        PeerLost: another process of the same run has ended.
        Stopped: this process was asked to end (SIGTERM).
    """
    run = Run(spec, run_directory(spec))
    if not _is_finished(run.directory):
        engine = engine or Engine()
        fabric = cached_fabric(engine, spec.recipe.precision)
        with _alone(run.directory, fabric):
            # Another process may have finished it while this one waited.
            if not _is_finished(run.directory):
                train(spec, run.directory, fabric, engine)
    return run


def _is_finished(directory: Path) -> bool:
    return (directory / "result.json").exists()


@contextlib.contextmanager
def _alone(directory: Path, fabric: Fabric) -> Iterator[None]:
    """Keep others from training the same run at the same time, and say so when a process of this one is lost."""
    several = fabric.world_size > 1
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock, free = FileLock(directory.parent / f".{directory.name}.lock"), True
    if fabric.is_global_zero:
        try:
            lock.acquire(timeout=0 if several else -1)  # others would lose patience with a first one that waits
        except Timeout:
            free = False
    if not fabric.broadcast(free):
        raise ValueError(f"{directory.name} is being trained by somebody else; wait for it, or end it")
    try:
        yield
    except RuntimeError as error:
        # NCCL and the store of torch have types for a lost process. Gloo raises plain RuntimeErrors, which begin with
        # the file of its sources that they are from: here alone a text is looked at.
        if several and (isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)):
            raise PeerLost(
                f"another of the {fabric.world_size} processes of this run has ended: {str(error).splitlines()[0]}; "
                "the same command continues from the last checkpoint"
            ) from error
        raise
    finally:
        lock.release()


def _start_worker(parent: int) -> None:
    os.environ["GCPLIB_PROGRESS"] = "0"
    os.environ.pop("GCPLIB_STATUS", None)
    torch.set_num_threads(1)
    # A killed kernel cannot end its workers, and nothing else would.
    stop_with_parent(parent)


@cache
def _pool(workers: int, *_places: Path) -> ProcessPoolExecutor:
    """Return the worker processes for these folders, kept between calls: importing torch takes them many seconds."""
    return ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (os.getpid(),))


def ensure_all(specs: list[RunSpec], workers: int = 1, engine: Engine | None = None) -> list[Run]:
    """Return the finished runs of ``specs``, in their order, training the missing ones.

    Args:
        specs: may repeat.
        workers: processes with one thread each; several small runs side by side are faster than one run on several
            cores, because batched eigendecompositions do not use them.
        engine: on which devices; they are all on one.

    Raises:
        ValueError: several workers with several devices each; see also ``ensure``.
    """
    engine = engine or Engine()
    if workers > 1 and engine.devices > 1:
        raise ValueError(f"{workers} workers with {engine.devices} devices each: give one of the two")
    by_name = {spec.name: spec for spec in specs}
    missing = [spec for spec in by_name.values() if not _is_finished(run_directory(spec))]
    if missing and all(spec.stage == "head" for spec in missing):
        # Once, on all cores, before the workers compete for them.
        for data, *backbone in {str((s.data, *features_of(s))): (s.data, *features_of(s)) for s in missing}.values():
            cache_features(load_data(data), *backbone, engine=engine)
    description = f"{len(missing)} runs to train, {len(specs) - len(missing)} on disk"
    if workers > 1 and len(missing) > 1:
        pool = _pool(workers, runs_dir(), cache_dir())
        # The longest first: a long one that begins last would leave the other workers idle.
        longest_first = sorted(missing, key=lambda spec: -spec.recipe.epochs)
        with main_hidden():
            futures = [pool.submit(ensure, spec, engine) for spec in longest_first]
        try:
            for future in track(as_completed(futures), description, len(missing), "run"):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            _pool.cache_clear()
            raise
    else:
        for spec in track(missing, description, unit="run") if missing else ():
            ensure(spec, engine)
    return [ensure(spec, engine) for spec in specs]


def results_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row per run: what it was, its outcome, its accuracies in percent (missing where it diverged).

    ``then`` names the pools of a hybrid run that take over, ``systems`` what else is built in; the best epoch is there
    where the recipe asks for it; ``correct`` says which test images were right (``gcplib.lab.outcomes``).
    """
    keys = ("outcome", "reason", "test_accuracy", "validation_accuracy", "train_accuracy", "seconds", "parameters")
    keys += ("test_top5", "best_epoch", "best_test_accuracy", "device", "devices")
    rows = []
    for run in runs:
        found = {key: run.result[key] for key in keys if key in run.result} | {"correct": run.correct}
        rows.append(_describe(run) | {"learning_rate": run.spec.recipe.learning_rate} | found)
    return pd.DataFrame(rows)


def metrics_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row per epoch of every run: what it was, and the columns of ``metrics.csv``.

    A run that diverged in its first epoch has no row.
    """
    tables = [run.metrics.assign(**_describe(run)) for run in runs]
    return pd.concat([table for table in tables if len(table)], ignore_index=True)


def _describe(run: Run) -> dict:
    """Return what a run was, without the learning rate, whose peak would hide that of each epoch."""
    spec = run.spec
    return {
        "pool": spec.pool,
        **spec.options,
        **({"then": "+".join(entry.pool for entry in spec.recipe.switch)} if spec.recipe.switch else {}),
        **({"systems": "+".join(spec.systems)} if spec.systems else {}),
        "labels": spec.labels,
        "stage": spec.stage,
        "seed": spec.seed,
    }
