"""How to train: everything that changes the weights and is neither network nor data."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field, fields
from typing import Any

from gcplib.lab.training.schedules import SCHEDULES

__all__ = ["PRECISIONS", "PoolSwitch", "Recipe"]

PRECISIONS = ("float32", "bf16", "fp16")


def later(default: Any) -> Any:
    """A field that came later: it counts in a run's name only where it is set, so that older runs keep theirs."""
    return field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class PoolSwitch:
    """From an epoch on another pool takes over, with the weights that the one before has learned.

    Args:
        pool: a name of ``gcplib.list_pools()`` with vectors of the same length. options: of that pool.
        epoch: a number, counted from 0, or ``last_decay``: when a ``step`` schedule decays for the last time.

    Source: the hybrid protocol of Song et al. (ICCV 2021): Newton-Schulz until the last decay, then an SVD rule.
    """

    pool: str
    options: dict[str, Any] = field(default_factory=dict)
    epoch: int | str = "last_decay"

    def __post_init__(self) -> None:
        from gcplib.nn import list_pools

        if self.pool not in list_pools():
            raise ValueError(f"unknown pool {self.pool!r} in recipe.switch; known: {', '.join(list_pools())}")
        whole = isinstance(self.epoch, int) and not isinstance(self.epoch, bool) and self.epoch >= 1
        if not whole and self.epoch != "last_decay":
            raise ValueError(f"recipe.switch.epoch must be a number from 1, or 'last_decay', got {self.epoch!r}")


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum.

    The defaults are for the ``head`` stage on typefaces; notebook 07 compares learning rates on validation images.

    Args:
        epochs: passes over the training images. batch_size: images a step, over all devices together.
        learning_rate: peak rate of reduction and pool.
        classifier_factor: the classifier's rate over ``learning_rate`` (the papers use 5 to 20 when fine-tuning).
        momentum, weight_decay: of SGD. clip: largest gradient norm, 0 for none (the papers clip at 5).
        schedule: a name of ``gcplib.lab.training.schedules``.
        milestones: epochs after which ``step`` decays, times 0.1.
        flip: train on every image or its mirror image, at random, and judge by the mean of the logits of both, as
            the papers do. For the ``full`` stage, whose images pass through the backbone in every epoch.
        backbone_factor: the backbone's rate over ``learning_rate``.
        warm_up: epochs of linear warm-up before the schedule is followed; ``one_cycle`` has its own.
        switch: pools that take over later.
        crop: ``center``, or ``random`` places in training (``full`` stage, data with a ``scale`` above ``pixels``).
        loss: a name that ``gcplib.nn.get_loss`` knows: ``cross_entropy``, or ``gce(15)``, over the 15 hardest
            wrong classes.
        label_smoothing: share of the target that is spread over all classes (cross-entropy only).
        accumulate: parts that a batch is cut into, one after the other, where it does not fit in memory.
        precision: ``float32``, or autocast to ``bf16`` or ``fp16``; pools compute in float32 or better all the same.
        ema: decay a step of an exponential moving average of the weights, which is then what is judged and kept; 0
            for none.
        freeze_batch_norm: keep the statistics of batch norm as they are.
        compile: pass the network through ``torch.compile``.
        report_best: also judge, on the test images, the epoch that was best on the validation images.

    Raises:
        ValueError: a setting is out of its range, or two of them contradict each other.
    """

    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 0.2
    classifier_factor: float = 10.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float = 5.0
    schedule: str = "one_cycle"
    milestones: tuple[int, ...] = ()
    flip: bool = later(False)
    backbone_factor: float = later(1.0)
    warm_up: float = later(0.0)
    switch: tuple[PoolSwitch, ...] = later(())
    crop: str = later("center")
    label_smoothing: float = later(0.0)
    accumulate: int = later(1)
    precision: str = later("float32")
    ema: float = later(0.0)
    freeze_batch_norm: bool = later(False)
    compile: bool = later(False)
    report_best: bool = later(False)
    loss: str = later("cross_entropy")

    def __post_init__(self) -> None:
        from gcplib.nn import get_loss

        self._plain_types()
        for name in ("epochs", "batch_size", "accumulate"):
            _range(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "classifier_factor", "backbone_factor"):
            _range(name, getattr(self, name), getattr(self, name) > 0, "positive")
        for name in ("momentum", "weight_decay", "clip", "warm_up"):
            _range(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("ema", "label_smoothing"):
            _range(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        known = (("schedule", tuple(SCHEDULES)), ("precision", PRECISIONS), ("crop", ("center", "random")))
        for name, values in known:
            if getattr(self, name) not in values:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(values)}")
        get_loss(self.loss)
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(f"recipe.label_smoothing is for the loss cross_entropy, not {self.loss}; set it to 0")
        _range("accumulate", self.accumulate, self.accumulate <= self.batch_size, f"at most {self.batch_size}")
        if self.warm_up and self.schedule == "one_cycle":
            raise ValueError(f"recipe.warm_up is {self.warm_up}, but one_cycle has a warm-up of its own; set it to 0")
        places = [self.switch_epoch(entry) for entry in self.switch]
        if places != sorted(set(places)) or (places and places[-1] >= self.epochs):
            raise ValueError(f"recipe.switch is at epochs {places}; give rising ones below {self.epochs}")

    def _plain_types(self) -> None:
        """Turn NumPy's numbers, as a table gives them, into Python's: they would not survive YAML, and hash apart."""
        for entry in fields(self):
            name, value = entry.name, getattr(self, entry.name)
            kind = type(entry.default)
            if kind is bool and value not in (True, False):
                raise ValueError(f"recipe.{name} must be true or false, got {value!r}")
            if kind in (int, float):
                _number(name, kind, value)
            if kind in (bool, int, float):
                object.__setattr__(self, name, kind(value))
            if kind is tuple:
                object.__setattr__(self, name, tuple(value))

    def switch_epoch(self, entry: PoolSwitch) -> int:
        """Return the epoch, from 0, in which the pool of an entry of ``switch`` takes over.

        Raises:
            ValueError: ``last_decay`` of a schedule that has none.
        """
        if entry.epoch != "last_decay":
            return int(entry.epoch)
        decays = [epoch for epoch in self.milestones if epoch < self.epochs] if self.schedule == "step" else []
        if not decays:
            raise ValueError(
                f"recipe.switch is at the last decay, but the schedule {self.schedule!r} with milestones "
                f"{list(self.milestones)} has none before epoch {self.epochs}; give the epoch as a number"
            )
        return max(decays)


def _number(name: str, kind: type, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"recipe.{name} must be a finite number, got {value!r}")
    if kind is int and value != int(value):
        raise ValueError(f"recipe.{name} must be an integer, got {value!r}")


def _range(name: str, value: float, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(f"recipe.{name} must be {wanted}, got {value}")
