"""Runs as papers describe them: the files of ``published_recipes``, one per method, each for some data sets."""

from pathlib import Path
from typing import Any

from gcplib.lab.plain import merge, read_yaml
from gcplib.lab.validation import specification, unknown

FOLDER = Path(__file__).resolve().parent / "published_recipes"


@specification
class PublishedRecipe:
    """A run as a paper describes it, as far as it does; the user adds ``data.root`` to the spec."""

    name: str  # file and data set, such as tpami2022/cub
    title: str
    source: str  # where the settings are from
    differences: list[str]  # from the source
    published: str  # the numbers to compare with
    spec: dict[str, Any]  # fields of a RunSpec

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.title}", f"Source: {self.source}", f"Published: {self.published}"]
        return "\n".join([*lines, "Differences:", *(f"- {text}" for text in self.differences)])


def list_recipes() -> list[str]:
    """Return the names that ``load_recipe`` knows.

    >>> "tpami2022/cub" in list_recipes()
    True
    """
    return [f"{path.stem}/{data}" for path in sorted(FOLDER.glob("*.yaml")) for data in read_yaml(path)["data sets"]]


def load_recipe(name: str) -> PublishedRecipe:
    """Return a published recipe by its name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name not in (known := list_recipes()):
        raise ValueError(unknown("recipe", name, known))
    file, data = name.split("/")
    found = read_yaml(FOLDER / f"{file}.yaml")
    spec = merge(found.pop("spec"), found.pop("data sets")[data])
    return PublishedRecipe(name=name, spec=spec, **found)
