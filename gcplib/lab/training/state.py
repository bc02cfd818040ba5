"""All that changes while training, and its checkpoints."""

import pickle
import warnings
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gcplib.lab.files import write_atomic
from gcplib.lab.training.recipe import Recipe

# Raised when what a checkpoint holds changes.
CHECKPOINT_VERSION = 2


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
        return self.networks[-1]

    @property
    def networks(self) -> list[nn.Module]:
        """The network, and its moving average if there is one."""
        return [self.network] if self.average is None else [self.network, self.average.module]

    def state_dict(self) -> dict:
        parts = {name: part for name, part in vars(self).items() if name != "model"}
        return {name: part.state_dict() if hasattr(part, "state_dict") else part for name, part in parts.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, value in state.items():
            if hasattr(part := getattr(self, name), "load_state_dict"):
                part.load_state_dict(value)
            else:
                setattr(self, name, value)


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
    new = {p for m in network.modules() if getattr(m, "learns_as_pool", False) for p in m.parameters()}
    backbone = set(network.backbone.parameters()) - new if hasattr(network, "backbone") else set()
    classifier = set(getattr(network, "head", network).classifier.parameters())
    factors = {"backbone": recipe.backbone_factor, "pool": 1.0, "classifier": recipe.classifier_factor}
    groups = {name: {"name": name, "params": [], "base": recipe.learning_rate * f} for name, f in factors.items()}
    for p in network.parameters():
        groups["backbone" if p in backbone else "classifier" if p in classifier else "pool"]["params"].append(p)
    used = [group for group in groups.values() if group["params"]]
    return torch.optim.SGD(used, lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def slow_optimizer(network: nn.Module, recipe: Recipe, fraction: float = 0.1) -> torch.optim.Optimizer:
    """Return the SGD of a recipe at a fraction of its rates, as a warm-up begins; one rate for all but the classifier.

    It has no weight decay, so that its steps follow the gradient alone.
    """
    rate = fraction * recipe.learning_rate
    slow = make_optimizer(network, replace(recipe, learning_rate=rate, weight_decay=0.0, backbone_factor=1.0))
    for group in slow.param_groups:
        group["lr"] = group["base"]
    return slow


def checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, newest first."""
    return sorted(directory.glob(f"checkpoint-{'[0-9]' * 5}-{'[0-9]' * 7}.pt"), reverse=True)


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
    for old in checkpoints(directory)[2:]:
        old.unlink(missing_ok=True)


def latest_checkpoint(directory: Path, name: str) -> dict | None:
    """Return the newest checkpoint of the run of that name that is whole, or None.

    A damaged one is named in a warning and passed over.

    Raises:
        CheckpointError: a checkpoint is of another version, or of another run.
    """
    for path in checkpoints(directory):
        try:
            with zipfile.ZipFile(path) as file:
                if (part := file.testzip()) is not None:  # torch does not look: a changed bit would train on
                    raise ValueError(f"checksum of {part} is wrong")
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
        return content
    return None
