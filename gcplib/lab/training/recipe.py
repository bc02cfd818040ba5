"""How to train: everything that changes the weights and is neither network nor data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator
from pydantic.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gcplib.lab.validation import Items, SpecError, one_of, specification
from gcplib.nn import get_loss, list_pools

__all__ = ["PoolName", "PoolSwitch", "Recipe", "learning_rate_factor"]


def _one_cycle(now: float, epochs: int, milestones: Sequence[int]) -> float:
    warm_up = 0.3 * epochs
    if now < warm_up:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * now / warm_up)) / 2
    return (1 + math.cos(math.pi * (now - warm_up) / (epochs - warm_up))) / 2


# The rate over its peak after ``now`` of ``epochs`` epochs, of time alone: a resumed run needs no state of a scheduler.
SCHEDULES: Mapping[str, Callable[[float, int, Sequence[int]], float]] = {
    "one_cycle": _one_cycle,
    "step": lambda now, epochs, milestones: 0.1 ** sum(now >= milestone for milestone in milestones),
    "cosine": lambda now, epochs, milestones: (1 + math.cos(math.pi * now / epochs)) / 2,
    "constant": lambda now, epochs, milestones: 1.0,
    "fast": lambda now, epochs, milestones: (1 - math.floor(now * 30 / epochs) / 52) ** 11,
    "adju": lambda now, epochs, milestones: (1 - math.floor(now * 50 / epochs) / 49) ** 2,
}

PoolName = one_of("pool", list_pools)
Schedule = one_of("schedule", SCHEDULES.keys)
Loss = Annotated[str, AfterValidator(lambda name: get_loss(name) and name)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@specification
class PoolSwitch:
    """From an epoch on another pool takes over, with the weights that the one before has learned.

    Args:
        pool: a name of ``gcplib.list_pools()`` with vectors of the same length.
        options: of that pool.
        epoch: a number, counted from 0, or ``last_decay``: when a ``step`` schedule decays for the last time.

    Source: the hybrid protocol of Song et al. (ICCV 2021): Newton-Schulz until the last decay, then an SVD rule.
    """

    pool: PoolName
    options: dict[str, JsonValue] = field(default_factory=dict)
    epoch: PositiveInt | Literal["last_decay"] = "last_decay"


@specification
class Recipe:
    """How to train: SGD with momentum.

    The defaults are for the ``head`` stage on typefaces; notebook 07 compares learning rates on validation images.

    Args:
        epochs: passes over the training images.
        batch_size: images per step, over all devices together.
        learning_rate: peak rate of reduction and pool.
        classifier_factor: the classifier's rate over ``learning_rate`` (the papers use 5 to 20 when fine-tuning).
        momentum: of SGD.
        weight_decay: of SGD.
        clip: largest gradient norm, 0 for none (the papers clip at 5).
        schedule: of the learning rate, see ``learning_rate_factor``.
        milestones: epochs after which ``step`` decays, times 0.1.
        flip: train on every image or its mirror image, at random, and evaluate the mean of the logits of both, as
            the papers do. For the ``full`` stage, whose images pass through the backbone in every epoch.
        backbone_factor: the backbone's rate over ``learning_rate``.
        warm_up: epochs of linear warm-up before the schedule is followed; ``one_cycle`` has its own.
        switch: pools that take over later.
        crop: ``center``, or ``random`` places in training (``full`` stage, data with a ``scale`` above ``pixels``).
        label_smoothing: fraction of the target that is spread over all classes (cross-entropy only).
        accumulate: parts that a batch is cut into, one after the other, where it does not fit in memory.
        precision: ``float32``, or autocast to ``bf16`` or ``fp16``; pools compute in float32 or better all the same.
        ema: decay per step of an exponential moving average of the weights, which is then what is evaluated and kept;
            0 for none.
        freeze_batch_norm: keep the statistics of batch norm as they are.
        compile: pass the network through ``torch.compile``.
        report_best: also evaluate, on the test images, the epoch that was best on the validation images.
        loss: a name that ``gcplib.nn.get_loss`` knows: ``cross_entropy``, or ``gce(15)``, over the 15 hardest
            wrong classes.

    Raises:
        SpecError: settings are out of their ranges, or contradict each other.
    """

    epochs: PositiveInt = 12
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 0.2
    classifier_factor: PositiveFloat = 10.0
    momentum: NonNegativeFloat = 0.9
    weight_decay: NonNegativeFloat = 1e-4
    clip: NonNegativeFloat = 5.0
    schedule: Schedule = "one_cycle"
    milestones: Items[NonNegativeInt] = ()
    flip: bool = False
    backbone_factor: PositiveFloat = 1.0
    warm_up: NonNegativeFloat = 0.0
    switch: Items[PoolSwitch] = ()
    crop: Literal["center", "random"] = "center"
    label_smoothing: Fraction = 0.0
    accumulate: PositiveInt = 1
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    ema: Fraction = 0.0
    freeze_batch_norm: bool = False
    compile: bool = False
    report_best: bool = False
    loss: Loss = "cross_entropy"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = []
        if self.label_smoothing and self.loss != "cross_entropy":
            problems.append(f"label_smoothing is for the loss cross_entropy, not {self.loss}; set it to 0")
        if self.accumulate > self.batch_size:
            problems.append(f"accumulate is {self.accumulate}, more than the {self.batch_size} images of a batch")
        if self.warm_up and self.schedule == "one_cycle":
            problems.append(f"warm_up is {self.warm_up}, but one_cycle has a warm-up of its own; set it to 0")
        try:
            places = [self.switch_epoch(entry) for entry in self.switch]
            if places != sorted(set(places)) or (places and places[-1] >= self.epochs):
                problems.append(f"switch is at epochs {places}; give rising ones below {self.epochs}")
        except ValueError as error:
            problems.append(str(error))
        if problems:
            raise SpecError("Recipe", problems)
        return self

    def switch_epoch(self, entry: PoolSwitch) -> int:
        """Return the epoch, from 0, in which the pool of an entry of ``switch`` takes over.

        Raises:
            ValueError: ``last_decay`` of a schedule that has none.
        """
        if entry.epoch != "last_decay":
            return entry.epoch
        decays = [epoch for epoch in self.milestones if epoch < self.epochs] if self.schedule == "step" else []
        if not decays:
            raise ValueError(
                f"switch is at the last decay, but the schedule {self.schedule!r} with milestones "
                f"{list(self.milestones)} has none before epoch {self.epochs}; give the epoch as a number"
            )
        return max(decays)


def learning_rate_factor(recipe: Recipe, epochs: float) -> float:
    """Return the learning rate over its peak after so many epochs (a fraction within an epoch).

    ``one_cycle`` is 30 % warm-up, then a cosine to zero; ``cosine`` that without warm-up; ``step`` decays by 0.1 at
    each milestone; ``constant`` stays; ``fast`` and ``adju`` are the short schedules of Wang et al. (CVPR 2020) for
    ResNets, ``(1 - e / 52)^11`` over 30 and ``(1 - e / 49)^2`` over 50 epochs, all epoch long with the rate of its
    start; over any other number they keep these steps, each with its published fraction of the training. Their ``norm``
    is ``step`` with the milestones 30, 60, 90. A linear warm-up of ``recipe.warm_up`` epochs, from a hundredth,
    multiplies all but the first.
    """
    factor = SCHEDULES[recipe.schedule](epochs, recipe.epochs, recipe.milestones)
    if epochs < recipe.warm_up:
        factor *= 0.01 + 0.99 * epochs / recipe.warm_up
    return factor
