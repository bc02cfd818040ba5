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

    Attributes:
        network: the plain network. model: the same as Fabric has set it up, for training.
        epoch, step: the next ones to do. history: finished epochs. sums: of the epoch that is under way.
        average: moving average of the weights. best: epoch and weights with the best validation accuracy.
    """

    network: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    history: list[dict] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    average: AveragedModel | None = None
    best: dict[str, Any] | None = None

    @property
    def judged(self) -> nn.Module:
        """The network to evaluate and to keep."""
        return self.network if self.average is None else self.average.module

    @property
    def networks(self) -> list[nn.Module]:
        """The network, and its moving average if there is one."""
        return [self.network] if self.average is None else [self.network, self.average.module]

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "best": self.best,
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "sums": self.sums,
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for name in ("best", "epoch", "step", "history", "sums"):
            setattr(self, name, state[name])


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
    groups = [
        {"name": name, "params": parameters, "base": recipe.learning_rate * factor}
        for name, parameters, factor in (
            ("backbone", backbone, recipe.backbone_factor),
            ("pool", [p for p in network.parameters() if id(p) not in others], 1.0),
            ("classifier", classifier, recipe.classifier_factor),
        )
        if parameters
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, newest first."""
    found = {path: re.fullmatch(r"checkpoint-(\d+)-(\d+)", path.stem) for path in directory.glob("checkpoint-*.pt")}
    return sorted((p for p, m in found.items() if m), key=lambda p: tuple(map(int, found[p].groups())), reverse=True)


def save_checkpoint(directory: Path, state: TrainingState, fabric: Fabric, name: str) -> None:
    """Write a checkpoint, atomically, and remove all but the last two.

    Args:
        name: that of the run: a checkpoint of another one is refused.
    """
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

    Args:
        prepare: makes the network what it is in an epoch, before that epoch's weights are put in.

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
            raise CheckpointError(
                f"{path} has version {found}, this gcplib continues from version {CHECKPOINT_VERSION}; finish the run "
                "with the gcplib that began it, or delete its checkpoints to train it anew"
            )
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
