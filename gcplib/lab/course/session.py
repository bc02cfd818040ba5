"""What every notebook begins with: style, threads, and the setting that its parameters stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcplib.lab.setting import Setting, make_setting

__all__ = ["setup"]

# Parameters that mean the same in every notebook, and are handed to ``make_setting`` as they are.
SHARED = [
    *("dataset", "root", "families", "train", "validation", "test", "pixels"),
    *("backbone", "backbone_options", "pretrained", "stride", "device", "workers", "reduction", "stage"),
]


def setup(
    parameters: Mapping[str, Any], *, rate: float | None = None, threads: int | None = 1, **others: Any
) -> Setting:
    """Return the setting of a notebook, and set style, seed and threads.

    Args:
        parameters: of the notebook, ``globals()`` behind its first cell; names that it does not have keep the
            defaults of ``gcplib.lab.setting.make_setting``. ``epochs`` and ``recipe`` become the recipe, of several
            learning rates with the first. Names of loops, such as ``seed``, are not taken from here.
        rate: the peak learning rate, where it is no part of ``recipe``.
        threads: of torch in this process. One: batches this small gain little from more, and lose much beside
            others. None leaves them alone.
        others: fields of a ``RunSpec`` that are not those of the parameters; ``seed`` is that of torch, too.

    Raises:
        ValueError: a recipe that is no dict, epochs named twice, or what ``make_setting`` refuses.
    """
    import matplotlib.pyplot as plt
    import torch

    from gcplib.lab.analysis import use_style
    from gcplib.lab.training import Recipe

    use_style()
    # Loaded, a notebook's backend also shows figures that are made without pyplot, such as those of a data set.
    plt.switch_backend(plt.get_backend())
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(others.get("seed", 0))
    given = {name: parameters[name] for name in SHARED if name in parameters} | others
    return make_setting(**given, recipe=Recipe(**recipe_fields(parameters, rate)))


def recipe_fields(parameters: Mapping[str, Any], rate: float | None = None) -> dict[str, Any]:
    """Return the fields of a recipe that ``epochs`` and ``recipe`` stand for, with the first of several rates."""
    if not isinstance(given := parameters.get("recipe", {}), Mapping):
        raise ValueError(f"recipe is a dict, got {given!r}; papermill takes one with -y 'recipe: {{...}}'")
    fields = dict(given)
    if "epochs" in fields and "epochs" in parameters:
        raise ValueError("epochs is a parameter of its own; leave it out of recipe")
    if "epochs" in parameters:
        fields["epochs"] = parameters["epochs"]
    if rate is not None:
        fields["learning_rate"] = rate
    if isinstance(rates := fields.get("learning_rate"), list | tuple):
        fields["learning_rate"] = rates[0]
    return fields
