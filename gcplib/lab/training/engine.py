"""On what a run is trained: devices and processes, through Lightning Fabric. Nothing here changes what the run is."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from gcplib.lab.validation import specification

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "Engine",
    "PeerLost",
    "agree",
    "cached_fabric",
    "has_lost_peer",
    "make_fabric",
    "share_buffers",
    "stop_with_parent",
]

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
    def _is_there(self) -> Engine:
        if self.accelerator == "cuda" and not torch.cuda.is_available():
            raise ValueError("accelerator 'cuda' was asked for, but torch sees no GPU; use auto or cpu")
        return self

    @property
    def kind(self) -> str:
        """The accelerator that ``auto`` stands for."""
        if self.accelerator != "auto":
            return self.accelerator
        return "cuda" if torch.cuda.is_available() else "cpu"


def make_fabric(engine: Engine, precision: str) -> Fabric:
    """Return a launched Fabric: with several devices, this process is one of theirs afterwards.

    Raises:
        ValueError: ``fp16`` on a CPU, or fewer processes than the devices that were asked for.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

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


# A process joins the others of its run once.
cached_fabric = functools.cache(make_fabric)


def share_buffers(fabric: Fabric, network: nn.Module) -> None:
    """Give all devices the first one's statistics of batch norm: each has its own after a step of training."""
    if fabric.world_size > 1:
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)


def agree(fabric: Fabric, totals: Tensor, broken: bool, stop: bool) -> dict:
    """Add up loss and right answers over the devices, and tell all of them if one has to stop.

    A device that left the step by itself would leave the others waiting for its gradient.
    """
    flags = torch.tensor([float(broken), float(stop)], device=totals.device)
    facts = torch.cat([totals, flags])
    if fabric.world_size > 1:
        facts = fabric.all_reduce(facts, reduce_op="sum")
    loss, correct, broken, stop = facts.tolist()
    return {"loss": loss, "correct": correct, "broken": broken > 0, "stop": stop > 0}


def has_lost_peer(error: RuntimeError) -> bool:
    """Say whether an error of several processes is that another one has ended.

    NCCL and the store of torch have types for it. Gloo raises plain RuntimeErrors, which begin with the file of its
    sources that they are from: here alone a text is looked at.
    """
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)


def stop_with_parent(parent: int, message: str = "") -> None:
    """End this process, with a message, when its parent is gone: nobody else would."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        if message:
            print(message, file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
