"""What a run is: a small frozen description whose hash names the run's folder."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from gcplib.lab.data import ImagesSpec, TypefacesSpec
from gcplib.lab.files import digest
from gcplib.lab.training.recipe import Recipe

__all__ = ["RunSpec"]

# Raised when the same spec would train to other weights, so that old runs are not taken for new ones.
SPEC_VERSION = 1

STAGES = ("head", "full")
LABELS = ("fine", "coarse")

DataSpec = TypefacesSpec | ImagesSpec


@dataclass(frozen=True)
class RunSpec:
    """A run, fully described.

    Args:
        pool: a name of ``gcplib.list_pools()``. options: of that pool, e.g. ``{"exponent": 0.25}``.
        reduction: channels after the 1x1 reduction, or those after each of several, or None.
        labels: ``fine`` (typeface, species) or ``coarse`` (category, kind of bird) of the same images.
        stage: ``head`` trains reduction, pool and classifier on cached features of the frozen backbone; ``full``
            trains everything end to end.
        seed: of the initial weights and the order of the images; the images have their own in ``data``.
        backbone, stride, pretrained: see ``gcplib.create_backbone``. backbone_options: its ``options``.
        data: the images, typefaces or a data set on disk. recipe: how to train.
        systems: what else is built into the network, with its options; see ``gcplib.lab.training.systems``.

    Raises:
        ValueError: an unknown pool, stage, kind of labels or system, images that change in the ``head`` stage, or
            random crops without room for them.
    """

    pool: str = "mpn_cov"
    options: dict[str, Any] = field(default_factory=dict)
    reduction: int | tuple[int, ...] | None = 64
    labels: str = "fine"
    stage: str = "head"
    seed: int = 0
    backbone: str = "tf_efficientnet_lite0"
    stride: int = 16
    pretrained: bool | str = True
    backbone_options: dict[str, Any] = field(default_factory=dict, metadata={"later": True})
    data: DataSpec = field(default_factory=TypefacesSpec)
    recipe: Recipe = field(default_factory=Recipe)
    systems: dict[str, dict[str, Any]] = field(default_factory=dict, metadata={"later": True})

    def __post_init__(self) -> None:
        from gcplib.lab.training.systems import check_systems
        from gcplib.nn import list_pools

        if isinstance(self.reduction, list):
            object.__setattr__(self, "reduction", tuple(self.reduction))

        for name, known in (("pool", list_pools()), ("stage", STAGES), ("labels", LABELS)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}")
        check_systems(self.systems, self.stage)
        object.__setattr__(self, "systems", _plain(self.systems))
        first = self.systems.get("coarse2fine", {}).get("first", 1)
        if "coarse2fine" in self.systems and isinstance(first, int) and first >= self.recipe.epochs:
            raise ValueError(
                f"systems.coarse2fine looks a second time from epoch {first} on, but the run has {self.recipe.epochs} "
                "epochs; give a smaller 'first'"
            )
        for name in ("flip", "crop"):
            value = getattr(self.recipe, name)
            if value not in (False, "center") and self.stage != "full":
                raise ValueError(
                    f"recipe.{name} {value!r} needs stage 'full', got {self.stage!r}: cached features are those of "
                    "one image, upright and cut at its center"
                )
        if self.recipe.crop == "random" and not _has_room(self.data):
            raise ValueError(
                "recipe.crop 'random' needs images with room around the square that is cropped: images from disk "
                f"with data.resize 'shorter', or a data.scale above data.pixels; got {self.data}"
            )

    def pool_at(self, epoch: int) -> tuple[str, dict[str, Any]]:
        """Return the name and the options of the pool in an epoch: those of the last ``recipe.switch`` before it."""
        found = self.pool, self.options
        for entry in self.recipe.switch:
            if epoch >= self.recipe.switch_epoch(entry):
                found = entry.pool, entry.options
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as nested plain values, with its version: what is written to ``spec.yaml``."""
        return _plain(dataclasses.asdict(self)) | {"version": SPEC_VERSION}

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

        The images count by their digest, which changes with the renderer and the fonts, or with the files on disk.
        """
        everything = _named(self) | {"version": SPEC_VERSION, "images": self.data.digest}
        # A data set that moves keeps its runs; its files are in the digest.
        everything["data"].pop("root", None)
        pools = "+".join([self.pool, *(entry.pool for entry in self.recipe.switch)])
        pools = ".".join([pools, *self.systems])
        return f"{pools}-{self.labels}-{self.stage}-{self.seed}-{digest(everything)}"


def _has_room(data: DataSpec) -> bool:
    if isinstance(data, TypefacesSpec):
        return False
    return data.resize == "shorter" or (data.scale or 0) > data.pixels


def _plain(value: Any) -> Any:
    """Return nested values with lists for tuples, as YAML has them."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def _named(value: Any) -> Any:
    """Return what a run's name depends on, as plain values: fields that came later only where they are set."""
    if isinstance(value, tuple | list):
        return [_named(inner) for inner in value]
    if not dataclasses.is_dataclass(value):
        return value
    named = {}
    for entry in dataclasses.fields(value):
        inner = getattr(value, entry.name)
        if not (entry.metadata.get("later") and inner == _default(entry)):
            named[entry.name] = _named(inner)
    return named


def _default(entry: dataclasses.Field) -> Any:
    return entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()


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
    return cls(**{key: _make(hints[key], value, f"{path}.{key}".lstrip(".")) for key, value in values.items()})


def _make(hint: Any, value: Any, where: str) -> Any:
    """Check a value of a spec against the type of its field, and make dataclasses of mappings."""
    if hint == DataSpec:
        # Pixels and seed are in both; layout and root are in data from disk alone.
        from_disk = isinstance(value, dict) and value.keys() & {"layout", "root"}
        hint = ImagesSpec if from_disk else TypefacesSpec
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        plain = typing.get_origin(option) or option
        if plain is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(option)[0]
            return tuple(_make(inner, item, f"{where}[{place}]") for place, item in enumerate(value))
        if plain is float and type(value) is int:
            return float(value)
        if type(value) is plain:
            return value
    raise ValueError(f"{where} must be {hint}, got {value!r} ({type(value).__name__})")
