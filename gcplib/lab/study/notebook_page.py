"""An executed notebook as a page of HTML that needs no network: figures inside, formulas as MathML."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

__all__ = ["Page", "markdown_as_html"]


class _Renderer(IPythonRenderer):
    """Turns formulas into MathML, which browsers draw by themselves; what cannot be converted stays LaTeX."""

    def inline_math(self, text: str) -> str:
        return _mathml(text, "inline") or super().inline_math(text)

    def block_math(self, text: str) -> str:
        return _mathml(text, "block") or super().block_math(text)

    def latex_environment(self, name: str, body: str) -> str:
        return _mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block") or super().latex_environment(name, body)


def _mathml(text: str, display: str) -> str:
    try:
        return convert(text.strip(), display=display)
    except Exception:  # the converter raises many kinds; a formula in LaTeX is better than no page
        return ""


def markdown_as_html(source: str, attachments: Mapping[str, Any] | None = None, anchor: str = "¶") -> str:
    """Return Markdown as HTML, its formulas as MathML.

    Args:
        source: of a cell.
        attachments: of the cell.
        anchor: text of the links beside headings; none where it is empty.
    """
    renderer = _Renderer(
        escape=False,
        attachments=dict(attachments or {}),
        embed_images=True,
        path="",
        anchor_link_text=anchor,
        exclude_anchor_links=not anchor,
    )
    return MarkdownWithMath(renderer=renderer).render(source)


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return markdown_as_html(source, context.get("cell", {}).get("attachments"))


class Page:
    """An executed notebook: its title, its page with the failing cell marked, and its figures."""

    def __init__(self, path: Path, failure: dict[str, Any] | None = None) -> None:
        self.name, self.failure = path.name.split(".")[0], failure
        self.document = nbformat.read(path, as_version=4)
        sources = [cell.source for cell in self.document.cells if cell.cell_type == "markdown"]
        heading = re.search(r"^#+\s+(.+)$", "\n".join(sources), re.MULTILINE)
        self.title = _plain(heading[1]) if heading else self.name

    @property
    def html(self) -> str:
        """The whole page."""
        self.document.metadata.pop("widgets", None)  # they would need a script from the network; their text stays
        self.document.metadata["title"] = self.title
        exporter = _Exporter(template_file=str(Path(__file__).with_name("notebook.html.j2")))
        resources = {"failure": self.failure, "anchor": _anchor(self.failure) if self.failure else ""}
        return exporter.from_notebook_node(self.document, resources)[0]

    @functools.cached_property
    def figures(self) -> list[dict[str, str]]:
        """The images that it drew, in order: name, caption, png (base64) and link.

        A caption is the cell's metadata ``caption``, else the last heading or bold beginning of a paragraph above it.
        If any cell carries the tag ``headline``, only such cells count.
        """
        found, above, cells = [], self.name, self.document.cells
        chosen = [cell for cell in cells if "headline" in cell.metadata.get("tags", [])] or cells
        for cell in cells:
            if cell.cell_type == "markdown":
                heads = re.findall(r"^\s*(?:#+\s+(.+)|\*\*(.+?)\*\*.*)$", cell.source, re.MULTILINE)
                above = _plain(next(filter(None, heads[-1]))) if heads else above
            for output in cell.outputs if cell.cell_type == "code" and cell in chosen else ():
                if png := output.get("data", {}).get("image/png"):
                    name, caption = f"{self.name}-{len(found) + 1:02d}", cell.metadata.get("caption", above)
                    link = f"notebooks/{self.name}.html#{_anchor(cell)}"
                    found.append({"name": name, "caption": caption, "png": png.strip(), "link": link})
        return found


def _anchor(cell: dict[str, Any]) -> str:
    """Return the anchor that nbconvert gives a cell."""
    return f"cell-id={cell['id']}"


def _plain(markdown: str) -> str:
    """Return one line of Markdown as text."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"(\*\*|__|`|\$)", "", text).strip().rstrip("#:").strip()
