"""What a run is: a small frozen description whose hash names the run's folder."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from gcplib.data import PicturesSpec, TypefacesSpec
from gcplib.files import digest

__all__ = ["Recipe", "RunSpec"]

# Raised when the same spec would train to other weights, so that old runs are not taken for new ones.
SPEC_VERSION = 1

SCHEDULES = ("one_cycle", "step", "constant")
STAGES = ("head", "full")
LABELS = ("fine", "coarse")

DataSpec = TypefacesSpec | PicturesSpec


@dataclass(frozen=True)
class Recipe:
    """How to train: SGD with momentum.

    The defaults are for the ``head`` stage on typefaces; notebook 07 compares learning rates on validation pictures.

    Args:
        epochs: passes over the training pictures. batch_size: pictures a step.
        learning_rate: peak rate of the reduction, the pool and, in the ``full`` stage, the backbone.
        classifier_factor: the classifier's rate over ``learning_rate`` (the papers use 5 to 20 when fine-tuning).
        momentum, weight_decay: of SGD. clip: largest gradient norm, 0 for none (the papers clip at 5).
        schedule: ``one_cycle`` (30 % warm-up, cosine to zero), ``step`` (times 0.1 at each milestone), ``constant``.
        milestones: epochs after which ``step`` decays.
        flip: train on every picture or its mirror image, at random, and judge by the mean of the logits of both, as
            the papers do. For the ``full`` stage, whose pictures pass through the backbone in every epoch.
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
    flip: bool = False

    def __post_init__(self) -> None:
        for name in ("learning_rate", "classifier_factor", "momentum", "weight_decay", "clip"):
            # A NumPy number, as a table gives it, would not survive YAML, and hash differently.
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("epochs", "batch_size"):
            object.__setattr__(self, name, int(getattr(self, name)))
            if getattr(self, name) < 1:
                raise ValueError(f"recipe.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "classifier_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"recipe.{name} must be positive, got {getattr(self, name)}")
        for name in ("momentum", "weight_decay", "clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"recipe.{name} must not be negative, got {getattr(self, name)}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; known: {', '.join(SCHEDULES)}")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if self.flip not in (True, False):
            raise ValueError(f"recipe.flip must be true or false, got {self.flip!r}")
        object.__setattr__(self, "flip", bool(self.flip))


@dataclass(frozen=True)
class RunSpec:
    """A run, fully described.

    Args:
        pool: a name of ``gcplib.list_pools()``. options: of that pool, e.g. ``{"exponent": 0.25}``.
        reduction: channels after the 1x1 reduction, or None.
        labels: ``fine`` (typeface, species) or ``coarse`` (category, kind of bird) of the same pictures.
        stage: ``head`` trains reduction, pool and classifier on cached features of the frozen backbone; ``full``
            trains everything end to end.
        seed: of the initial weights and the order of the pictures; the pictures have their own in ``data``.
        backbone, stride, pretrained: see ``gcplib.create_backbone``. backbone_options: its ``options``.
        data: the pictures, typefaces or a data set on disk. recipe: how to train.

    Raises:
        ValueError: an unknown pool, stage or kind of labels, or a flip in the ``head`` stage.
    """

    pool: str = "mpn_cov"
    options: dict[str, Any] = field(default_factory=dict)
    reduction: int | None = 64
    labels: str = "fine"
    stage: str = "head"
    seed: int = 0
    backbone: str = "tf_efficientnet_lite0"
    stride: int = 16
    pretrained: bool | str = True
    backbone_options: dict[str, Any] = field(default_factory=dict)
    data: DataSpec = field(default_factory=TypefacesSpec)
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        from gcplib.nn import list_pools

        for name, known in (("pool", list_pools()), ("stage", STAGES), ("labels", LABELS)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}")
        if self.recipe.flip and self.stage != "full":
            raise ValueError(
                f"recipe.flip needs stage 'full', got {self.stage!r}: cached features are those of the upright picture"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as nested plain values, with its version: what is written to ``spec.yaml``."""
        values = dataclasses.asdict(self) | {"version": SPEC_VERSION}
        values["recipe"]["milestones"] = list(self.recipe.milestones)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunSpec:
        """Read a spec from nested plain values, such as a YAML file's; omitted ones keep their defaults.

        Raises:
            ValueError: an unknown key, a wrong type (the message has the key's path), or another spec version.
        """
        values = dict(values)
        version = values.pop("version", SPEC_VERSION)
        if version != SPEC_VERSION:
            raise ValueError(f"the spec has version {version}, this gcplib reads version {SPEC_VERSION}")
        return _build(cls, values, "")

    @property
    def name(self) -> str:
        """The name of the run's folder: pool, labels, stage, seed for people, and the hash of everything.

        The pictures count by their digest, which changes with the renderer and the fonts, or with the files on disk.
        """
        everything = self.to_dict() | {"pictures": self.data.digest}
        # A data set that moves keeps its runs; its files are in the digest.
        everything["data"].pop("root", None)
        # Runs from before there were these two keep their names.
        if not self.recipe.flip:
            del everything["recipe"]["flip"]
        if not self.backbone_options:
            del everything["backbone_options"]
        return f"{self.pool}-{self.labels}-{self.stage}-{self.seed}-{digest(everything)}"


def _build(cls: type, values: Any, path: str) -> Any:
    """Make a dataclass from a dict, strictly by name and type."""
    if not isinstance(values, dict):
        raise ValueError(f"{path or 'spec'} must be a mapping, got {values!r}")
    hints = typing.get_type_hints(cls)
    if unknown := set(values) - set(hints):
        raise ValueError(f"unknown keys in {path or 'spec'}: {sorted(unknown)}; known: {sorted(hints)}")
    none = (dataclasses.MISSING, dataclasses.MISSING)
    required = {f.name for f in dataclasses.fields(cls) if (f.default, f.default_factory) == none}
    if missing := required - set(values):
        raise ValueError(f"missing keys in {path or 'spec'}: {sorted(missing)}")
    made = {}
    for key, value in values.items():
        hint, where = hints[key], f"{path}.{key}".lstrip(".")
        if hint == DataSpec:
            # Pixels and seed are in both; layout and root are in data from disk alone.
            from_disk = isinstance(value, dict) and value.keys() & {"layout", "root"}
            hint = PicturesSpec if from_disk else TypefacesSpec
        if dataclasses.is_dataclass(hint):
            made[key] = _build(hint, value, where)
        else:
            made[key] = _check(hint, value, where)
    return cls(**made)


def _check(hint: Any, value: Any, where: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        plain = typing.get_origin(option) or option
        if plain is tuple and isinstance(value, list | tuple) and all(type(v) is int for v in value):
            return tuple(value)
        if plain is float and type(value) is int:
            return float(value)
        if type(value) is plain:
            return value
    raise ValueError(f"{where} must be {hint}, got {value!r} ({type(value).__name__})")
