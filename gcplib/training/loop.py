"""The training loop, to be read in one sitting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcplib.linalg import NonFiniteError
from gcplib.training.spec import Recipe

__all__ = ["Diverged", "Source", "TrainingState", "evaluate", "learning_rate_factor", "train_epoch"]


class Diverged(RuntimeError):
    """Training became non-finite; the message says what and in which step."""


@dataclass(frozen=True)
class Source:
    """Where batches come from: ``inputs(indices)`` gives the network's input, ``labels`` all labels (N,)."""

    inputs: Callable[[Tensor], Tensor]
    labels: Tensor
    device: torch.device


@dataclass
class TrainingState:
    """All that changes while training: enough to continue after an interruption."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    history: list[dict] = field(default_factory=list)

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.history = state["epoch"], state["history"]


def make_optimizer(model: nn.Module, classifier: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with the classifier in a group of its own learning rate."""
    own = {id(p) for p in classifier.parameters()}
    rest = [p for p in model.parameters() if id(p) not in own]
    groups = [
        {"params": rest, "base": recipe.learning_rate},
        {"params": list(classifier.parameters()), "base": recipe.learning_rate * recipe.classifier_factor},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def learning_rate_factor(recipe: Recipe, epochs: float) -> float:
    """Return the learning rate over its peak after so many epochs (a fraction within an epoch).

    A function of time alone, so that a resumed run needs no scheduler state.
    """
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "step":
        return 0.1 ** sum(epochs >= milestone for milestone in recipe.milestones)
    warm_up = 0.3 * recipe.epochs
    if epochs < warm_up:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * epochs / warm_up)) / 2
    return (1 + math.cos(math.pi * (epochs - warm_up) / (recipe.epochs - warm_up))) / 2


def train_epoch(state: TrainingState, source: Source, indices: Tensor, recipe: Recipe, seed: int) -> dict:
    """Train one epoch on the pictures ``indices`` and return its row of ``metrics.csv``.

    The order of the pictures, and which of them are flipped, depend on seed and epoch alone.

    Raises:
        Diverged: features, loss or gradient became non-finite.
    """
    model, optimizer = state.model.train(), state.optimizer
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(1_000_003 * seed + state.epoch)
    order = torch.randperm(len(indices), generator=generator)
    batches = indices[order].split(recipe.batch_size)
    # Drawn after the order, and for the whole epoch: the order is the same with and without, and after a resumption.
    flips = torch.rand(len(indices), generator=generator).lt(0.5).split(recipe.batch_size)
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches = batches[:-1]  # batch norm cannot train on a single 1 x 1 map, and one picture a epoch is no loss
    loss_sum = correct = norm_sum = seen = 0
    for step, batch in enumerate(batches):
        factor = learning_rate_factor(recipe, state.epoch + step / len(batches))
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        target = source.labels[batch].to(source.device)
        inputs = source.inputs(batch)
        if recipe.flip:
            inputs = torch.where(flips[step].to(inputs.device).view(-1, 1, 1, 1), inputs.flip(-1), inputs)
        try:
            logits = model(inputs)
        except NonFiniteError as error:
            raise Diverged(f"epoch {state.epoch}, step {step}: {error}") from error
        loss = functional.cross_entropy(logits, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip or math.inf)
        if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
            raise Diverged(f"epoch {state.epoch}, step {step}: loss {loss.item()}, gradient norm {norm.item()}")
        optimizer.step()
        loss_sum += loss.item() * len(batch)
        correct += (logits.argmax(1) == target).sum().item()
        norm_sum += norm.item() * len(batch)
        seen += len(batch)
    return {
        "epoch": state.epoch,
        "seconds": time.perf_counter() - start,
        "learning_rate": recipe.learning_rate * factor,
        "train_loss": loss_sum / seen,
        "train_accuracy": correct / seen,
        "gradient_norm": norm_sum / seen,
    }


@torch.inference_mode()
def evaluate(model: nn.Module, source: Source, indices: Tensor, flip: bool = False, batch_size: int = 64) -> Tensor:
    """Return the logits ``(len(indices), classes)`` on the CPU; with ``flip`` the mean over pictures and mirror images.

    Raises:
        Diverged: features or logits are not finite, as when the last step of an epoch went too far.
    """
    model.eval()

    def judge(inputs: Tensor) -> Tensor:
        logits = model(inputs)
        return (logits + model(inputs.flip(-1))) / 2 if flip else logits

    try:
        logits = torch.cat([judge(source.inputs(batch)).float().cpu() for batch in indices.split(batch_size)])
    except NonFiniteError as error:
        raise Diverged(f"evaluation: {error}") from error
    if bad := int((~torch.isfinite(logits)).any(1).sum()):
        raise Diverged(f"evaluation: logits of {bad} of {len(logits)} pictures are not finite")
    return logits
