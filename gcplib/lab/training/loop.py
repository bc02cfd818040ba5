"""The training loop, to be read in one sitting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from gcplib.lab.training.engine import agree
from gcplib.lab.training.recipe import Recipe, learning_rate_factor
from gcplib.lab.training.sources import Batch, ImageSource, Source
from gcplib.lab.training.state import TrainingState
from gcplib.linalg import NonFiniteError
from gcplib.nn import get_loss

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Diverged", "Stopped", "plan_epoch", "train_epoch"]

# Half precision starts with a loss scale that is too large and finds its own by skipping steps.
MOST_SKIPPED_STEPS = 50


class Diverged(RuntimeError):
    """Training became non-finite; the message says what and in which step."""


class Stopped(SystemExit):
    """Somebody asked the process to end (SIGTERM); a checkpoint is written before it does."""


def plan_epoch(indices: Tensor, recipe: Recipe, seed: int, epoch: int) -> list[Batch]:
    """Return the batches of an epoch: which images, in which order, which mirrored and cropped where.

    All of it depends on seed and epoch alone, so an epoch can be entered anywhere.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order = torch.randperm(len(indices), generator=generator)
    # Drawn after the order, and for the whole epoch: the order is the same with and without them.
    flips = torch.rand(len(indices), generator=generator).lt(0.5) if recipe.flip else None
    places = torch.rand(len(indices), 2, generator=generator) if recipe.crop == "random" else None
    whole = Batch(indices[order], flips, places)
    starts = range(0, len(indices), recipe.batch_size)
    batches = [whole.take(slice(start, start + recipe.batch_size)) for start in starts]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches = batches[:-1]  # batch norm cannot train on a single 1 x 1 map, and one image an epoch is no loss
    return batches


def train_epoch(
    state: TrainingState,
    fabric: Fabric,
    source: Source | ImageSource,
    indices: Tensor,
    recipe: Recipe,
    seed: int,
    watch: Callable[[range], Iterable[int]] = iter,
    after_step: Callable[[int], None] = lambda steps: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict:
    """Train one epoch, or the rest of it, on the images ``indices`` and return its row of ``metrics.csv``.

    With several devices each takes its part of every batch, and all have the same weights after every step.

    Args:
        watch: goes through the steps, and may show how far it is.
        after_step: called after each step with their number in the epoch.
        stop: asked in each step.

    Raises:
        Diverged: features, loss or gradient became non-finite.
        Stopped: ``stop`` said so, on any device.
    """
    rank, world = fabric.global_rank, fabric.world_size
    batches = [batch for batch in plan_epoch(indices, recipe, seed, state.epoch) if len(batch) >= world]
    own = [batch.take(slice(rank, None, world)).parts(recipe.accumulate) for batch in batches]
    state.model.train()
    if recipe.freeze_batch_norm:
        freeze_batch_norm(state.model)
    state.sums = state.sums or dict.fromkeys(("loss", "correct", "norm", "seen", "seconds", "waited", "skipped"), 0.0)
    first = state.step
    inputs = iter(source.batches([part for parts in own[first:] for part in parts]))
    for step in watch(range(first, len(batches))):
        begin = time.perf_counter()
        factor = learning_rate_factor(recipe, state.epoch + step / len(batches))
        for group in state.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        # Dropout and its kin draw the same numbers in this step whenever it is done.
        _seed(fabric.device, seed, state.epoch, step, rank)
        found = _take_step(state, fabric, source, own[step], len(batches[step]), inputs, recipe, stop)
        skipped = _check_step(found, state, recipe)
        if state.average is not None:
            state.average.update_parameters(state.network)
        seen = len(batches[step])
        sums = {"loss": found["loss"] * seen, "norm": 0.0 if skipped else found["norm"] * seen, "seen": seen}
        sums |= {"correct": found["correct"], "waited": found["waited"], "skipped": skipped}
        for name, value in (sums | {"seconds": time.perf_counter() - begin}).items():
            state.sums[name] += value
        state.step = step + 1
        if found["stop"]:
            raise Stopped(143)  # between two steps, where nothing is half done
        after_step(len(batches))
    sums, state.sums, state.step = state.sums, {}, 0
    return {
        "epoch": state.epoch,
        "seconds": sums["seconds"],
        "learning_rate": recipe.learning_rate * learning_rate_factor(recipe, state.epoch + 1 - 1 / len(batches)),
        "train_loss": sums["loss"] / sums["seen"],
        "train_accuracy": sums["correct"] / sums["seen"],
        "gradient_norm": sums["norm"] / sums["seen"],
        "images_per_second": sums["seen"] / sums["seconds"],
        "waiting_share": sums["waited"] / sums["seconds"],
    }


def _check_step(found: dict, state: TrainingState, recipe: Recipe) -> bool:
    """Say whether a step was skipped because its gradient overflowed fp16; other non-finite numbers are errors."""
    where = f"epoch {state.epoch}, step {state.step}"
    if found["broken"]:
        raise Diverged(f"{where}: {found['reason'] or 'features are not finite on another device'}")
    skipped = recipe.precision == "fp16" and not math.isfinite(found["norm"])
    if not math.isfinite(found["loss"]) or not (math.isfinite(found["norm"]) or skipped):
        raise Diverged(f"{where}: loss {found['loss']}, gradient norm {found['norm']}")
    if skipped and state.sums["skipped"] == MOST_SKIPPED_STEPS:
        raise Diverged(f"{where}: the gradient overflowed fp16 in {MOST_SKIPPED_STEPS} steps; use bf16 or float32")
    return skipped


def _seed(device: torch.device, *where: int) -> None:
    number = 0
    for part in where:
        number = (number * 1_000_003 + part) % 2**63
    # torch.manual_seed looks for every kind of device, which takes longer than a small step may.
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def _take_step(
    state: TrainingState,
    fabric: Fabric,
    source: Source | ImageSource,
    parts: list[Batch],
    total: int,
    inputs: Iterator[Tensor],
    recipe: Recipe,
    stop: Callable[[], bool],
) -> dict:
    """Do one step of the optimizer, on parts of the batch one after the other; all devices agree on what happened."""
    world = fabric.world_size
    found = {"loss": 0.0, "correct": 0.0, "waited": 0.0, "norm": 0.0, "reason": ""}
    totals, broken = torch.zeros(2, device=source.device), False
    state.optimizer.zero_grad(set_to_none=True)
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        target = source.labels[part.indices].to(source.device)
        begin = time.perf_counter()
        x = next(inputs)
        found["waited"] += time.perf_counter() - begin
        with fabric.no_backward_sync(state.model, enabled=world > 1 and not last):
            try:
                logits, loss = _loss(state.model(x), target, recipe)
                totals += torch.stack([loss.detach() * len(part), (logits.argmax(1) == target).sum()])
            except NonFiniteError as error:
                found["reason"], broken = str(error), True
            if last:
                found |= agree(fabric, totals, broken, stop())
                if found["broken"]:
                    return found
            if not broken:
                # The mean over the whole batch, however it is divided; Fabric averages over the devices.
                weight = len(part) * world / total
                fabric.backward(loss if weight == 1 else loss * weight)
    norm = fabric.clip_gradients(
        state.model, state.optimizer, max_norm=recipe.clip or math.inf, error_if_nonfinite=False
    )
    found["norm"] = norm.item()
    found["loss"] = found["loss"] / total
    if math.isfinite(found["loss"]) and (math.isfinite(found["norm"]) or recipe.precision == "fp16"):
        state.optimizer.step()
    return found


def _loss(outputs: Tensor | tuple[Tensor, ...], target: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return logits and loss. A network may look at an image several times: the means over its logits count."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = get_loss(recipe.loss)
    if recipe.label_smoothing:
        loss = partial(functional.cross_entropy, label_smoothing=recipe.label_smoothing)
    losses = [loss(logits.float(), target) for logits in outputs]
    return sum(outputs) / len(outputs), sum(losses) / len(losses)


def freeze_batch_norm(model: nn.Module) -> None:
    """Let batch norm use the statistics it has, as in evaluation, and leave them as they are."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
