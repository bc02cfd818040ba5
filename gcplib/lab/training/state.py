"""All that changes while training, and its checkpoints."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gcplib.lab.files import write_atomic
from gcplib.lab.training.recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["CheckpointError", "TrainingState", "load_latest", "make_optimizer", "save_checkpoint"]

# Raised when what a checkpoint holds changes.
CHECKPOINT_VERSION = 2
KEPT = 2


class CheckpointError(ValueError):
    """A checkpoint that cannot be continued from; the message says why."""


@dataclass
class TrainingState:
    """Enough to continue after an interruption, bit for bit on a CPU.

    What is not here is a function of seed and time: the order of the images, the random numbers of a step, the
    learning rate, the pool of a hybrid run.
    """

    network: nn.Module
    model: nn.Module  # the same, as Fabric has set it up for training
    optimizer: torch.optim.Optimizer
    epoch: int = 0  # this and the next: what is to be done next
    step: int = 0
    history: list[dict] = field(default_factory=list)  # finished epochs
    sums: dict[str, float] = field(default_factory=dict)  # of the epoch that is under way
    average: AveragedModel | None = None  # of the weights
    best: dict[str, Any] | None = None  # epoch and weights with the best validation accuracy

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate and to keep."""
        return self.network if self.average is None else self.average.module

    @property
    def networks(self) -> list[nn.Module]:
        """The network, and its moving average if there is one."""
        return [self.network] if self.average is None else [self.network, self.average.module]

    def state_dict(self) -> dict:
        parts = {name: getattr(self, name) for name in ("network", "optimizer", "average")}
        return {
            **{name: None if part is None else part.state_dict() for name, part in parts.items()},
            **{name: getattr(self, name) for name in ("best", "epoch", "step", "history", "sums")},
        }

    def load_state_dict(self, state: dict) -> None:
        for name, value in state.items():
            if name not in ("network", "optimizer", "average"):
                setattr(self, name, value)
            elif value is not None:
                getattr(self, name).load_state_dict(value)


def make_average(network: nn.Module, decay: float) -> AveragedModel | None:
    """Return a moving average of the weights, and of the statistics of batch norm, or None for a decay of 0."""
    if not decay:
        return None

    # torch's own average rounds integers down, among them the indices that some pools keep as buffers.
    def average(kept: list[Tensor], new: list[Tensor], _: object) -> None:
        if kept[0].is_floating_point():
            torch._foreach_lerp_(kept, new, 1 - decay)
        else:
            torch._foreach_copy_(kept, new)

    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with a learning rate each for the backbone, for the classifier, and for all that is between or added.

    What is new in the backbone, such as a gate, says so by an attribute ``learns_as_pool``.
    """
    head = getattr(network, "head", network)
    classifier = list(head.classifier.parameters())
    backbone = list(network.backbone.parameters()) if hasattr(network, "backbone") else []
    new = {id(p) for m in network.modules() if getattr(m, "learns_as_pool", False) for p in m.parameters()}
    backbone = [p for p in backbone if id(p) not in new]
    others = {id(p) for p in backbone + classifier}
    pool = [p for p in network.parameters() if id(p) not in others]
    parts = {"backbone": (backbone, recipe.backbone_factor), "pool": (pool, 1.0)}
    parts["classifier"] = classifier, recipe.classifier_factor
    groups = [{"name": n, "params": p, "base": recipe.learning_rate * f} for n, (p, f) in parts.items() if p]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, newest first."""
    found = {path: re.fullmatch(r"checkpoint-(\d+)-(\d+)", path.stem) for path in directory.glob("checkpoint-*.pt")}
    return sorted((p for p, m in found.items() if m), key=lambda p: tuple(map(int, found[p].groups())), reverse=True)


def save_checkpoint(directory: Path, state: TrainingState, fabric: Fabric, name: str) -> None:
    """Write a checkpoint of the run of that name, atomically, and remove all but the last two."""
    content = {
        "version": CHECKPOINT_VERSION,
        "run": name,
        "scaler": fabric.strategy.precision.state_dict(),
        "state": state.state_dict(),
    }
    with write_atomic(directory / f"checkpoint-{state.epoch:05d}-{state.step:07d}.pt") as temporary:
        torch.save(content, temporary)
    for old in checkpoints(directory)[KEPT:]:
        old.unlink(missing_ok=True)


def load_latest(
    directory: Path,
    state: TrainingState,
    fabric: Fabric,
    name: str,
    prepare: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Continue from the newest checkpoint that is whole; a damaged one is named in a warning and passed over.

    ``prepare`` makes the network what it is in an epoch, before that epoch's weights are put in.

    Raises:
        CheckpointError: a checkpoint is of another version, or of another run.
    """
    for path in checkpoints(directory):
        try:
            _require_whole(path)
            # No code is unpickled: tensors and plain values only.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
        except (OSError, EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as e:
            reason = str(e).partition("\n")[0] or type(e).__name__
            warnings.warn(f"{path.name} of {directory.name} is damaged ({reason}); trying the one before", stacklevel=2)
            continue
        found = content.get("version") if isinstance(content, dict) else None
        if found != CHECKPOINT_VERSION:
            message = f"{path} has version {found}, this gcplib continues from version {CHECKPOINT_VERSION}; finish "
            raise CheckpointError(message + "the run with the gcplib that began it, or delete its checkpoints")
        if content["run"] != name:
            raise CheckpointError(f"{path} is of the run {content['run']}, not of {name}; delete it, or move it back")
        prepare(content["state"]["epoch"])
        state.load_state_dict(content["state"])
        fabric.strategy.precision.load_state_dict(content["scaler"])
        return


def _require_whole(path: Path) -> None:
    """Compare the file with its checksums, which torch writes but does not look at: a changed bit would train on."""
    with zipfile.ZipFile(path) as file:
        if (part := file.testzip()) is not None:
            raise ValueError(f"checksum of {part} is wrong")
