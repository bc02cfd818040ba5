"""Slides as a page of HTML in one file that needs no network: reveal.js and figures inside, formulas as MathML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import jinja2
import nbformat
from pygments.formatters import HtmlFormatter

from gcplib.lab.course.parameters import chosen
from gcplib.lab.course.slides import stacks_of
from gcplib.lab.files import project_root, runs_dir, write_text

__all__ = ["deck_of", "reveal_files", "with_outputs", "write_slides"]


def reveal_files() -> Path:
    """Return the folder of reveal.js, which comes with a package of PyPI.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    found = find_spec("sphinx_revealjs")  # it is looked up, not imported: Sphinx is not needed
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("slides need the files of sphinx-revealjs: pip install 'gcplib[teach]'")
    return Path(found.submodule_search_locations[0]) / "_static" / "revealjs"


def with_outputs(notebook: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of those cells that have been executed as they are now."""
    found = {(cell.id, cell.source): cell.outputs for cell in executed.cells if cell.cell_type == "code"}
    full = nbformat.from_dict(notebook)
    for cell in full.cells:
        if cell.cell_type == "code":
            cell.outputs = found.get((cell.id, cell.source), [])
    return full


def deck_of(notebook: nbformat.NotebookNode) -> str:
    """Return the slides of a notebook as a page."""
    files = reveal_files()
    script = {name: (files / path).read_text(encoding="utf-8") for name, path in _SCRIPTS.items()}
    # In a page these would end the script, or hide its end, even within texts: they are written as texts may be.
    script = {name: re.sub(r"<(?=/?script|!--)", r"\\x3c", text) for name, text in script.items()}
    style = {name: (files / path).read_text(encoding="utf-8") for name, path in _STYLES.items()}
    style["theme_css"] = re.sub(r"@import .*", "", style["theme_css"])  # of fonts, which are files beside it
    title = re.match(r"#\s+(.*)", notebook.cells[0].source)
    values = {"title": title[1] if title else "", "stacks": stacks_of(notebook), **script, **style}
    values["code_css"] = HtmlFormatter(nobackground=True).get_style_defs(".highlight")
    template = Path(__file__).with_name("deck.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(template).render(values)


_SCRIPTS = {"reveal_js": "dist/reveal.js", "notes_js": "plugin/notes/notes.js"}
_STYLES = {"reveal_css": "dist/reveal.css", "theme_css": "dist/theme/white.css"}


def write_slides(
    names: Sequence[str] = (), folder: Path | None = None, *, profile: str = "study"
) -> list[tuple[Path, bool]]:
    """Write the slides of notebooks, and return each file with whether it has the figures of a study.

    Args:
        names: of notebooks, or how they begin; all where there are none.
        folder: of the slides.
        profile: of the study whose executed notebooks have the figures.
    """
    written = []
    for name, path in chosen(names).items():
        notebook = nbformat.read(path, as_version=4)
        executed = runs_dir() / profile / "notebooks" / path.name
        if executed.is_file():
            notebook = with_outputs(notebook, nbformat.read(executed, as_version=4))
        page = deck_of(notebook)
        write_text(out := (folder or project_root() / "slides") / f"{name}.html", page)
        written.append((out, "data:image/png" in page))
    return written
