"""Training in processes that are killed: ``python fault_driver.py FOLDER`` with a ``spec.yaml`` in it.

The processes are forked from one that has imported everything, which takes seconds each time otherwise, and which has
computed nothing, so that it can be forked. What happened goes to ``report.json``.
"""

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import lightning_fabric.strategies  # noqa: F401  these three are imported late otherwise, by every process
import pandas as pd  # noqa: F401
import timm  # noqa: F401
import torch
import yaml
from train_often import checkpoint_often

import gcplib.lab.training.loop as loop_module
import gcplib.lab.training.train as train_module
from gcplib.lab.cli import main
from gcplib.lab.data import load_data
from gcplib.lab.training import Engine, RunSpec, ensure
from gcplib.lab.training.build import set_up
from gcplib.lab.training.engine import cached_fabric, stop_with_parent
from gcplib.lab.training.loop import evaluate, train_epoch
from gcplib.lab.training.runs import run_directory
from gcplib.lab.training.sources import Batch
from gcplib.lab.training.state import checkpoints

KILLS = 20


def fork(function: Callable[[], object], output: Path | None = None, **environment: str) -> int:
    """Start a function in a process of its own, which leads a group, and return its number."""
    if child := os.fork():
        return child
    os.setpgrp()
    os.environ.update(environment)
    if output is not None:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    try:
        code = function() or 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(process: int) -> int:
    """Return the exit code of a process, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def progress(directory: Path, steps: int) -> int:
    """Return how many steps the newest checkpoint has behind it, or -1 for none."""
    found = checkpoints(directory)
    if not found:
        return -1
    _, epoch, step = found[0].stem.split("-")
    return int(epoch) * steps + int(step)


def kill_again_and_again(spec: RunSpec, steps: int) -> dict:
    """Kill a run at random moments, three times at its start and then all along it; the last process finishes it."""
    checkpoint_often()
    directory, rng = run_directory(spec), random.Random(0)
    targets = [-1, -1, -1, *(round(1 + place * 0.75 * steps * spec.recipe.epochs / KILLS) for place in range(KILLS))]
    places, codes, left = [], [], 0
    for target in targets:
        process = fork(lambda: ensure(spec, Engine("cpu", loaders=0)) and 0)
        while progress(directory, steps) < target and os.waitpid(process, os.WNOHANG) == (0, 0):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.06 if target >= 0 else 0.2))
        os.kill(process, signal.SIGKILL)
        codes.append(wait(process))
        places.append(progress(directory, steps))
        left += len(list(directory.glob(".checkpoint-*")))
    begin = time.perf_counter()
    last = wait(fork(lambda: ensure(spec, Engine("cpu", loaders=0)) and 0))
    return {"codes": codes, "places": places, "left": left, "last": last, "seconds": time.perf_counter() - begin}


def ask_to_stop(spec: RunSpec, folder: Path, name: str, group: bool) -> dict:
    """Send SIGTERM to the command, or to it and its loaders, and call it again."""
    output, directory = folder / f"{name}.txt", run_directory(spec)
    command = ["train", "--config", str(folder / "spec.yaml"), "--accelerator", "cpu", "--loaders", "2"]
    process = fork(lambda: main(command), output)
    while not (directory / "metrics.csv").exists():  # the first epoch is done
        time.sleep(0.005)
    time.sleep(0.1)
    before = len(checkpoints(directory))
    (os.killpg if group else os.kill)(process, signal.SIGTERM)
    code = wait(process)
    after = len(checkpoints(directory))
    last = wait(fork(lambda: main(command), folder / f"{name}-again.txt"))
    return {"code": code, "before": before, "after": after, "last": last, "output": output.read_text()}


def ask_in_vain(spec: RunSpec, output: Path) -> dict:
    """Send SIGTERM to a process whose step never ends."""
    train_module.GRACE_SECONDS = 0.3
    begun = output.with_name("begun")

    def forever(*_: object) -> None:
        begun.touch()
        time.sleep(60)

    train_module.train_epoch = forever
    process = fork(lambda: ensure(spec, Engine("cpu", loaders=0)), output)
    while not begun.exists():
        time.sleep(0.005)
    os.kill(process, signal.SIGTERM)
    train_module.train_epoch = train_epoch
    return {"code": wait(process), "output": output.read_text()}


def lose_the_parent(output: Path) -> str:
    """Return what a process says whose parent ends."""

    def stay() -> None:
        stop_with_parent(os.getppid(), "my parent is gone")
        time.sleep(60)

    def leave() -> None:
        fork(stay, output)
        time.sleep(0.3)

    wait(fork(leave))
    deadline = time.monotonic() + 20
    while not (output.exists() and output.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return output.read_text()


def evaluate_on(spec: RunSpec, output: Path) -> None:
    """Train an epoch with batch norm, evaluate the moving average, and save the logits."""
    torch.set_num_threads(1)
    engine = Engine("cpu", loaders=0)
    fabric = cached_fabric(engine, "float32")
    state, dataset, source = set_up(spec, fabric, engine)
    train_epoch(state, fabric, source, torch.as_tensor(dataset.indices("train")), spec.recipe, spec.seed)
    if fabric.global_rank == 0:
        torch.save(state.evaluated.state_dict(), output.with_suffix(".weights"))
    loop_module.EVAL_BATCH = 2
    logits = evaluate(state.evaluated, fabric, source, torch.arange(7), spec.recipe.flip)
    torch.save(logits, f"{output}.{fabric.global_rank}")
    if fabric.global_rank == 0:
        # The same weights in one process, which asks the others nothing.
        state.network.load_state_dict(torch.load(output.with_suffix(".weights"), weights_only=True))
        (x,) = source.batches([Batch(torch.arange(7))])
        with torch.inference_mode():
            alone = (state.network.eval()(x) + state.network(x.flip(-1))) / 2
        torch.save(alone, f"{output}.alone")


def on_two(function: Callable[[], object], output: Path) -> list[int]:
    """Run a function in two processes, as torchrun starts them, and return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": "0"}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        fork(function, Path(f"{output}-{rank}.txt"), **shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in (0, 1)
    ]
    return [wait(process) for process in processes]


def drive(folder: Path) -> dict:
    spec = RunSpec.from_dict(yaml.safe_load((folder / "spec.yaml").read_text()))
    steps, report = -(-len(load_data(spec.data).indices("train")) // spec.recipe.batch_size), {"seconds": {}}

    def place(name: str) -> None:
        os.environ["GCPLIB_RUNS"] = str(folder / name)
        report["seconds"][name] = time.perf_counter()

    place("whole")
    report["whole"] = wait(fork(lambda: ensure(spec, Engine("cpu", loaders=0)) and 0))
    for name, group in (("stopped", False), ("stopped-group", True)):
        place(name)
        report[name] = ask_to_stop(spec, folder, name, group)
    place("two")
    report["two"] = on_two(lambda: evaluate_on(spec, folder / "logits"), folder / "two")
    place("in-vain")
    report["in-vain"] = ask_in_vain(spec, folder / "in-vain.txt")
    report["orphan"] = lose_the_parent(folder / "orphan.txt")
    place("killed")
    report["killed"] = kill_again_and_again(spec, steps)
    place("end")
    times = report["seconds"]
    report["seconds"] = {n: round(b - a, 1) for (n, a), b in zip(times.items(), [*times.values()][1:], strict=False)}
    return report | {"steps": steps}


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    (place / "report.json").write_text(json.dumps(drive(place), indent=1))
