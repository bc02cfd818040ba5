"""On what a run is trained: devices and processes, through Lightning Fabric. Nothing here changes what the run is."""

import functools
import os
import sys
import threading
import time
from datetime import timedelta
from typing import Literal, Self

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from gcplib.lab.validation import specification

PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

# How long a process waits for the others before it gives up. A peer that dies is noticed sooner, by its connection or
# by whoever started it; this is for one that hangs.
PATIENCE = timedelta(minutes=10)


class PeerLost(RuntimeError):
    """Another process of the same run has ended, and this one cannot go on alone."""


@specification
class Engine:
    """Where and how a run is computed.

    Args:
        accelerator: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
        devices: processes on this machine, one per device. Under ``torchrun`` and ``fabric run`` theirs count.
        loaders: processes that decode images, for each device; None chooses.
        tensorboard: also write event files for TensorBoard.
        checkpoint_seconds: at least so long between two checkpoints.

    Raises:
        SpecError: unknown accelerator, one that is not there, or a number that makes no sense.
    """

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = 1
    loaders: NonNegativeInt | None = None
    tensorboard: bool = False
    checkpoint_seconds: NonNegativeFloat = 20.0

    @model_validator(mode="after")
    def _is_there(self) -> Self:
        if self.accelerator == "cuda" and not torch.cuda.is_available():
            raise ValueError("accelerator 'cuda' was asked for, but torch sees no GPU; use auto or cpu")
        return self

    @property
    def kind(self) -> str:
        """The accelerator that ``auto`` stands for."""
        found = "cuda" if torch.cuda.is_available() else "cpu"
        return found if self.accelerator == "auto" else self.accelerator


@functools.cache  # a process joins the others of its run once
def cached_fabric(engine: Engine, precision: str) -> Fabric:
    """Return a launched Fabric: with several devices, this process is one of theirs afterwards.

    Raises:
        ValueError: ``fp16`` on a CPU, or fewer processes than the devices that were asked for.
    """
    if precision == "fp16" and engine.kind == "cpu":
        # Fabric would take bf16, and the run would be filed as what it is not.
        raise ValueError("recipe.precision 'fp16' needs a GPU; on a CPU give bf16 or float32")
    parent, mixed = os.getppid(), PRECISIONS[precision]
    if os.environ.get("LT_CLI_USED") == "1":
        # `fabric run` has set devices and strategy and starts the processes; Fabric refuses to be told twice.
        fabric = Fabric(precision=mixed)
    else:
        devices, nodes, strategy = engine.devices, 1, "auto"
        if is_torchrun := "TORCHELASTIC_RUN_ID" in os.environ:
            devices = int(os.environ["LOCAL_WORLD_SIZE"])
            nodes = int(os.environ["WORLD_SIZE"]) // devices
        if is_torchrun or devices > 1:
            backend = "nccl" if engine.kind == "cuda" else "gloo"
            strategy = DDPStrategy(timeout=PATIENCE, process_group_backend=backend)
        fabric = Fabric(accelerator=engine.kind, strategy=strategy, devices=devices, num_nodes=nodes, precision=mixed)
        fabric.launch()
        if fabric.world_size < devices:
            raise ValueError(
                f"{devices} devices were asked for, and the cluster's job has {fabric.world_size} process; "
                "start one task per device (srun --ntasks-per-node), or use torchrun"
            )
    if fabric.world_size > 1 and fabric.local_rank > 0:
        stop_with_parent(parent, "The process that started this one is gone; the same command continues the run.")
    return fabric


def stop_with_parent(parent: int, message: str = "") -> None:
    """End this process, with a message, when its parent is gone: nobody else would."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        if message:
            print(message, file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
