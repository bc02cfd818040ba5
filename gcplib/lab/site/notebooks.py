"""A notebook, executed or not, as Markdown for Sphinx, and the figures that it drew."""

from __future__ import annotations

import base64
import functools
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gcplib.lab.site.pages import fence

__all__ = ["CoursePage", "Figure", "plain"]

# What is not part of the course's argument: closed at first.
ASIDE = {"parameters", "injected-parameters", "check", "check-task", "solution"}


class Figure(NamedTuple):
    """An image that a cell drew; the caption is the cell's own, or else the heading above it."""

    name: str
    caption: str
    cell: str
    is_headline: bool
    png: bytes

    def markdown(self, folder: str, caption: str = "") -> str:
        """Return the figure, read from a folder, with its caption as the text for who cannot see it."""
        alt = json.dumps(self.caption, ensure_ascii=False)
        return fence(f":alt: {alt}\n\n{caption}".strip(), f"{{figure}} {folder}/{self.name}.png")


class CoursePage:
    """A notebook: its title, its figures by cells, and its text with the failing cell marked."""

    def __init__(self, path: Path, failure: dict[str, Any] | None = None) -> None:
        self.name, self.failure = path.name.split(".")[0], failure or {}
        self.cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for number, cell in enumerate(self.cells):
            cell["source"] = "".join(cell["source"])
            cell.setdefault("id", str(number))
        sources = [cell["source"] for cell in self.cells if cell["cell_type"] == "markdown"]
        heading = re.search(r"^#+\s+(.+)$", "\n".join(sources), re.MULTILINE)
        self.title = plain(heading[1]) if heading else self.name

    @property
    def short(self) -> str:
        """The number of the notebook and the beginning of its title, for lists."""
        number = re.match(r"\d+", self.name)
        return " ".join(filter(None, [number and number[0], self.title.partition(":")[0]]))

    @functools.cached_property
    def figures(self) -> list[Figure]:
        """What it drew, in order.

        Without a caption in the cell's metadata it is the last heading, or bold beginning of a paragraph, above it.
        """
        found, above = [], self.title
        for cell in self.cells:
            if cell["cell_type"] == "markdown":
                heads = re.findall(r"^\s*(?:#+\s+(.+)|\*\*(.+?)\*\*.*)$", cell["source"], re.MULTILINE)
                above = plain(next(filter(None, heads[-1]))) if heads else above
            is_headline = "headline" in _tags(cell)
            for number, png in enumerate(filter(None, map(_png, cell.get("outputs", ())))):
                name = f"{self.name}-{cell['id']}" + (f"-{number + 1}" if number else "")
                caption = cell["metadata"].get("caption", above)
                found.append(Figure(name, caption, cell["id"], is_headline, base64.b64decode(png)))
        return found

    @property
    def headlines(self) -> list[Figure]:
        """The figures that tell the notebook's story: those tagged so, or all if none is."""
        return [figure for figure in self.figures if figure.is_headline] or self.figures

    def figure_of(self, claim: str) -> Figure | None:
        """Return the figure that a finding about a claim follows: the last with a caption of its own before it."""
        last = None
        for cell in self.cells:
            if cell["metadata"].get("caption"):
                last = next((figure for figure in self.figures if figure.cell == cell["id"]), last)
            if cell["cell_type"] == "code" and claim in cell["source"] and "finding(" in cell["source"]:
                return last
        return None

    def markdown(self, about: str = "") -> str:
        """Return the page, with some Markdown below its title."""
        first, *others = self.cells or [{"cell_type": "markdown", "source": f"# {self.name}"}]
        if not first["source"].startswith("# "):
            first, others = {"source": f"# {self.title}"}, self.cells
        title, _, rest = first["source"].partition("\n")
        parts = [title, about, rest]
        for cell in others:
            parts += [cell["source"]] if cell["cell_type"] != "code" else self._code(cell)
        return "\n\n".join(filter(None, parts)) + "\n"

    def _code(self, cell: dict[str, Any]) -> Iterator[str]:
        state = " failed" if cell["id"] == self.failure.get("id") else ""
        yield f'<div class="cell{state}" id="cell-{html.escape(cell["id"])}">'
        if cell["source"].strip():
            is_open = "" if ASIDE & _tags(cell) and not state else " open"
            about = next(iter(sorted(ASIDE & _tags(cell))), "code").replace("-", " ")
            lines = len(cell["source"].splitlines())
            yield f'<details class="code"{is_open}><summary>{about}, {lines} line{"s" * (lines > 1)}</summary>'
            yield fence(cell["source"].rstrip(), "python")
            yield "</details>"
        figures = iter([figure for figure in self.figures if figure.cell == cell["id"]])
        for output in cell.get("outputs", ()):
            if _png(output):
                yield next(figures).markdown("../figures", cell["metadata"].get("caption", ""))
            elif shown := _shown(output):
                yield shown
        yield "</div>"


def _shown(output: dict[str, Any]) -> str:
    """An output that is no figure."""
    data = output.get("data", {})
    if "text/markdown" in data:
        return "".join(data["text/markdown"])
    if "text/html" in data:
        return _output(fence("".join(data["text/html"]), "{raw} html"))
    text = "\n".join(output.get("traceback", ())) or "".join(output.get("text", data.get("text/plain", "")))
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip()
    return _output(fence(text)) if text else ""


def _output(text: str) -> str:
    # What is wide scrolls by itself, also by keys.
    return f'<div class="output" tabindex="0">\n\n{text}\n\n</div>'


def _png(output: dict[str, Any]) -> str:
    return "".join(output.get("data", {}).get("image/png", "")).strip()


def _tags(cell: dict[str, Any]) -> set[str]:
    return set(cell["metadata"].get("tags", []))


def plain(markdown: str) -> str:
    """Return one line of Markdown as text.

    >>> plain("**The [root](a.md)** of `S`:")
    'The root of S'
    """
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"(\*\*|__|`|\$)", "", text).strip().rstrip("#:").strip()
