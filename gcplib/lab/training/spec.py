"""What a run is: a small frozen description whose hash names the run's folder."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, JsonValue, PositiveInt, Tag, model_validator

from gcplib.lab.data import ImagesSpec, TypefacesSpec
from gcplib.lab.files import digest
from gcplib.lab.plain import plain
from gcplib.lab.training.recipe import PoolName, Recipe
from gcplib.lab.training.systems import system_problems
from gcplib.lab.validation import Items, SpecError, specification, validated


def _kind_of_data(value: Any) -> str:
    """Pixels and seed are in both; dataset and root are in data from disk alone."""
    on_disk = isinstance(value, ImagesSpec) or (isinstance(value, Mapping) and value.keys() & {"dataset", "root"})
    return "ImagesSpec" if on_disk else "TypefacesSpec"


DataSpec = Annotated[
    Annotated[TypefacesSpec, Tag("TypefacesSpec")] | Annotated[ImagesSpec, Tag("ImagesSpec")],
    Discriminator(_kind_of_data),
]


@specification
class RunSpec:
    """A run, fully described.

    Args:
        pool: a name of ``gcplib.list_pools()``.
        options: of that pool, e.g. ``{"exponent": 0.25}``.
        reduction: channels after the 1x1 reduction, or those after each of several, or None.
        labels: ``fine`` (typeface, species) or ``coarse`` (category, kind of bird) of the same images.
        stage: ``head`` trains reduction, pool and classifier on cached features of the frozen backbone; ``full``
            trains everything end to end.
        seed: of the initial weights and the order of the images; the images have their own in ``data``.
        backbone: see ``gcplib.create_backbone``.
        stride: see ``gcplib.create_backbone``.
        pretrained: see ``gcplib.create_backbone``.
        backbone_options: the ``options`` of ``gcplib.create_backbone``.
        data: the images, typefaces or a data set on disk.
        recipe: how to train.
        systems: what else is built into the network, with its options; see ``gcplib.lab.training.systems``.
        version: raised when the same spec would train to other weights, so that old runs are not taken for new ones.

    Raises:
        SpecError: unknown names, values out of their ranges, systems that do not go together, images that change in
            the ``head`` stage, or random crops without room for them.
    """

    pool: PoolName = "mpn_cov"
    options: dict[str, JsonValue] = field(default_factory=dict)
    reduction: PositiveInt | Items[PositiveInt] | None = 64
    labels: Literal["fine", "coarse"] = "fine"
    stage: Literal["head", "full"] = "head"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    backbone: str = "tf_efficientnet_lite0"
    stride: int | None = None
    pretrained: bool | str = True
    backbone_options: dict[str, JsonValue] = field(default_factory=dict)
    data: DataSpec = field(default_factory=TypefacesSpec)
    recipe: Recipe = field(default_factory=Recipe)
    systems: dict[str, dict[str, JsonValue]] = field(default_factory=dict)
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = list(system_problems(self.systems, self.stage))
        first = self.systems.get("coarse2fine", {}).get("first", 1)
        if "coarse2fine" in self.systems and isinstance(first, int) and first >= self.recipe.epochs:
            problems.append(
                f"systems.coarse2fine looks a second time from epoch {first} on, but the run has {self.recipe.epochs} "
                "epochs; give a smaller 'first'"
            )
        for name in ("flip", "crop"):
            value = getattr(self.recipe, name)
            if value not in (False, "center") and self.stage != "full":
                problems.append(
                    f"recipe.{name} {value!r} needs stage 'full', got {self.stage!r}: cached features are those of "
                    "one image, upright and cut at its center"
                )
        if self.recipe.crop == "random" and not self.data.has_room:
            problems.append(
                "recipe.crop 'random' needs images with room around the square that is cropped: images from disk "
                f"with data.resize 'shorter', or a data.scale above data.pixels; got {self.data}"
            )
        if problems:
            raise SpecError("RunSpec", problems)
        return self

    def pool_at(self, epoch: int) -> tuple[str, dict[str, Any]]:
        """Return the name and the options of the pool in an epoch: those of the last ``recipe.switch`` before it."""
        found = self.pool, self.options
        for entry in self.recipe.switch:
            if epoch >= self.recipe.switch_epoch(entry):
                found = entry.pool, entry.options
        return found

    @property
    def phases(self) -> list[int]:
        """The epochs in which a pool begins, 0 and those of ``recipe.switch``."""
        return sorted({0, *map(self.recipe.switch_epoch, self.recipe.switch)})

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as nested plain values: what is written to ``spec.yaml``."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "the specification of a run") -> Self:
        """Read a spec from nested plain values, such as a YAML file's; omitted ones keep their defaults.

        Args:
            values: fields by name.
            where: what the message calls them, such as the name of a file.

        Raises:
            SpecError: unknown keys, wrong types or values: all of them, each with its path.
        """
        return validated(cls, values, where)

    @property
    def name(self) -> str:
        """The name of the run's folder, with pool, labels, stage and seed for people, and the hash of everything.

        The images count by their digest, which changes with the renderer and the fonts, or with the files on disk.
        """
        everything = self.to_dict() | {"images": self.data.digest}
        # A data set that moves keeps its runs; its files are in the digest.
        everything["data"].pop("root", None)
        pools = ".".join(["+".join([self.pool, *(entry.pool for entry in self.recipe.switch)]), *sorted(self.systems)])
        return f"{pools}-{self.labels}-{self.stage}-{self.seed}-{digest(everything)}"
