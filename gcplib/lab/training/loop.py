"""The training loop, and evaluation, to be read in one sitting."""

import math
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from gcplib.lab.training.recipe import Recipe, learning_rate_factor
from gcplib.lab.training.sources import Batch, ImageSource, Source
from gcplib.lab.training.state import TrainingState
from gcplib.linalg import NonFiniteError
from gcplib.nn import get_loss

# Images per batch of evaluation, on each device.
EVAL_BATCH = 64

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
    batches = Batch(indices[order], flips, places).split(recipe.batch_size)
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
    stop: Callable[[], bool] = lambda: False,
) -> dict:
    """Train one epoch, or the rest of it, on the images ``indices`` and return its row of ``metrics.csv``.

    With several devices each takes its part of every batch, and all have the same weights after every step.

    Args:
        watch: goes through the steps; it may show how far it is, and save the state between them.
        stop: asked in each step.

    Raises:
        Diverged: features, loss or gradient became non-finite.
        Stopped: ``stop`` said so, on any device.
    """
    rank, world = fabric.global_rank, fabric.world_size
    batches = [batch for batch in plan_epoch(indices, recipe, seed, state.epoch) if len(batch) >= world]
    own = [batch.take(slice(rank, None, world)).parts(recipe.accumulate) for batch in batches]
    state.model.train()
    for module in state.model.modules() if recipe.freeze_batch_norm else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # uses the statistics it has, and leaves them as they are
    inputs = iter(source.batches([part for parts in own[state.step :] for part in parts]))
    for step in watch(range(state.step, len(batches))):
        begin = time.perf_counter()
        factor = learning_rate_factor(recipe, state.epoch + step / len(batches))
        for group in state.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        # Dropout and its kin draw the same numbers in this step whenever it is done.
        _seed(fabric.device, seed, state.epoch, step, rank)
        sums, asked = _take_step(state, fabric, source, own[step], len(batches[step]), inputs, recipe, stop)
        if state.average is not None:
            state.average.update_parameters(state.network)
        sums["seconds"] = time.perf_counter() - begin
        state.sums = {name: state.sums.get(name, 0.0) + value for name, value in sums.items()}
        state.step = step + 1
        if asked:
            raise Stopped(143)  # between two steps, where nothing is half done
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
) -> tuple[dict[str, float], bool]:
    """Do one step of the optimizer, on parts of the batch one after the other.

    Returns what it adds to the sums of the epoch, and whether any device was asked to stop.
    """
    world, place = fabric.world_size, f"epoch {state.epoch}, step {state.step}"
    totals, reason, waited = torch.zeros(2, device=source.device), "", 0.0
    state.optimizer.zero_grad(set_to_none=True)
    for part in parts:
        last = part is parts[-1]
        target = source.labels[part.indices].to(source.device)
        begin = time.perf_counter()
        x = next(inputs)
        waited += time.perf_counter() - begin
        with fabric.no_backward_sync(state.model, enabled=world > 1 and not last):
            try:
                logits, loss = _loss(state.model(x), target, recipe)
                totals += torch.stack([loss.detach() * len(part), (logits.argmax(1) == target).sum()])
            except NonFiniteError as error:
                reason = str(error)
            if last:
                # A device that left the step by itself would leave the others waiting for its gradient.
                facts = torch.cat([totals, totals.new_tensor([bool(reason), stop()])])
                sum_of_losses, correct, broken, asked = fabric.all_reduce(facts, reduce_op="sum").tolist()
                if broken:
                    raise Diverged(f"{place}: {reason or 'features are not finite on another device'}")
            if not reason:
                # The mean over the whole batch, however it is divided; Fabric averages over the devices.
                weight = len(part) * world / total
                fabric.backward(loss if weight == 1 else loss * weight)
    clip = recipe.clip or math.inf
    norm = fabric.clip_gradients(state.model, state.optimizer, max_norm=clip, error_if_nonfinite=False).item()
    skipped = recipe.precision == "fp16" and not math.isfinite(norm)  # a step whose gradient overflowed
    if not math.isfinite(sum_of_losses) or not (math.isfinite(norm) or skipped):
        raise Diverged(f"{place}: loss {sum_of_losses / total}, gradient norm {norm}")
    if skipped and state.sums.get("skipped") == MOST_SKIPPED_STEPS:
        raise Diverged(f"{place}: the gradient overflowed fp16 in {MOST_SKIPPED_STEPS} steps; use bf16 or float32")
    state.optimizer.step()
    sums = {"loss": sum_of_losses, "correct": correct, "norm": 0.0 if skipped else norm * total, "seen": total}
    return sums | {"waited": waited, "skipped": skipped}, asked > 0


def _loss(outputs: Tensor | tuple[Tensor, ...], target: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return logits and loss. A network may look at an image several times: the means over its logits count."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if recipe.label_smoothing:
        losses = [functional.cross_entropy(y.float(), target, label_smoothing=recipe.label_smoothing) for y in outputs]
    else:
        losses = [get_loss(recipe.loss)(y.float(), target) for y in outputs]
    return sum(outputs) / len(outputs), sum(losses) / len(losses)


@torch.inference_mode()
def evaluate(
    network: nn.Module, fabric: Fabric, source: Source | ImageSource, indices: Tensor, flip: bool = False
) -> Tensor:
    """Return the logits ``(len(indices), classes)`` on the CPU; with ``flip`` the mean over images and mirror images.

    Raises:
        Diverged: features or logits are not finite, as when the last step of an epoch went too far.
    """
    rank, world, count = fabric.global_rank, fabric.world_size, len(indices)
    network.eval()
    for buffer in network.buffers() if world > 1 else ():
        # Each device has its own statistics of batch norm after a step of training; the first one's count.
        torch.distributed.broadcast(buffer, 0)
    # The images are dealt out like cards; as every device must have as many, the first ones come again at the end.
    mine = indices[torch.arange(rank, -(-count // world) * world, world) % count]
    found, reason = [], ""
    try:
        for x in source.batches(Batch(mine).split(EVAL_BATCH)):
            with fabric.autocast():
                logits = network(x).float()
                found.append((logits + network(x.flip(-1)).float()) / 2 if flip else logits)
    except NonFiniteError as error:
        reason = str(error)
    bad = sum(int((~torch.isfinite(part)).any(1).sum()) for part in found)
    reason = reason or (f"logits of {bad} of {len(mine)} images are not finite" if bad else "")
    if fabric.all_reduce(torch.tensor(float(bool(reason)), device=source.device), reduce_op="sum"):
        raise Diverged(f"evaluation: {reason or 'not finite on another device'}")
    logits = torch.cat(found)
    if world > 1:
        logits = fabric.all_gather(logits).transpose(0, 1).flatten(0, 1)[:count]
    return logits.cpu()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose class is the likeliest one."""
    return (logits.argmax(1) == labels).double().mean().item()


def top5(logits: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose class is among the five likeliest."""
    return (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).any(1).double().mean().item()
