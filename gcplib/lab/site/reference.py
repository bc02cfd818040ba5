"""The reference: a page for each public module, with every name that it gives, from their docstrings."""

from __future__ import annotations

import inspect
import textwrap
from importlib import import_module

from gcplib.lab.site.pages import Sources

__all__ = ["MODULES", "public_names", "write_reference"]

MODULES = {
    "gcplib": "the door",
    "gcplib.nn": "layers: pools, gates, losses",
    "gcplib.linalg": "the mathematics: covariances, functions of matrices, gradients",
    "gcplib.models": "networks with a pool at their end",
    "gcplib.features": "what a network says of an image at every stage",
    "gcplib.exporting": "networks for other runtimes",
    "gcplib.probe": "estimators on frozen features",
    "gcplib.lab.data": "typefaces, and images from disk",
    "gcplib.lab.training": "runs, and how they are trained",
    "gcplib.lab.setting": "what the notebooks' parameters stand for",
    "gcplib.lab.probing": "probes of a folder of images",
    "gcplib.lab.analysis": "statistics, figures and measures",
    "gcplib.lab.comparison": "what notebook 07 compares",
    "gcplib.lab.study": "claims and their evidence",
    "gcplib.lab.course": "tasks, checks and findings of the notebooks",
}


def public_names(module: str) -> list[str]:
    """Return the names that a module gives, as it lists them."""
    return list(import_module(module).__all__)


def write_reference(sources: Sources) -> None:
    """Write the page of every module, and their list."""
    for module in MODULES:
        parts = [_title(module), f".. automodule:: {module}\n   :no-members:"]
        parts += [_entry(module, name) for name in public_names(module)]
        sources.add(f"api/{module}.rst", "\n\n".join(parts) + "\n")
    lines = [f"* :doc:`{module} <{module}>`: {about}" for module, about in MODULES.items()]
    tree = "\n   ".join([".. toctree::\n   :hidden:\n", *MODULES, "/genindex"])
    about = "Which names stay: :doc:`/docs/compatibility`."
    sources.add("api/index.rst", "\n\n".join([_title("API reference"), about, "\n".join(lines), tree]) + "\n")


def _entry(module: str, name: str) -> str:
    thing = getattr(import_module(module), name)
    if module == "gcplib":  # it only leads to the others
        home = next(other for other in MODULES if other != module and name in public_names(other))
        return f"* :py:obj:`gcplib.{name} <{home}.{name}>`"
    if not callable(thing):
        return f".. py:data:: {name}\n   :value: {textwrap.shorten(repr(thing), 200)}"
    kind = "class" if inspect.isclass(thing) else "function"
    members = "\n   :members:" * (kind == "class")
    return f".. auto{kind}:: {module}.{name}{members}"


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}"
