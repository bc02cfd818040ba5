"""An executed notebook as a page of HTML that needs no network: figures inside, formulas as MathML."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

import nbformat
from jinja2 import DictLoader, pass_context
from markupsafe import Markup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

try:
    from latex2mathml.converter import convert as to_mathml
except ImportError:  # formulas then stay LaTeX, and MathJax is asked of the network
    to_mathml = None

__all__ = ["Figure", "figures_of", "notebook_page", "notebook_title", "runs_fragment"]

STYLE = """
<style>
 body.jp-Notebook { max-width: 62rem; margin: 0 auto; padding: 1rem 1rem 4rem; overflow: auto; }
 .jp-Cell:target { outline: 3px solid #c62828; outline-offset: 4px; }
 .gcp-top { font: 14px system-ui, sans-serif; padding: .6rem .8rem; border: 1px solid #ddd; border-radius: 6px;
            margin-bottom: 1rem; }
 .gcp-top.failed { border-color: #c62828; background: #fdecea; color: #5f1412; }
 math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", "STIX Math", "DejaVu Math TeX Gyre", math;
        font-size: 1.06em; } math[display=block] { margin: .6em 0; overflow: auto hidden; padding-bottom: .3em; }
</style>
"""
# The lab template without its scripts: nothing is fetched, and nothing needs to be.
TEMPLATE = (
    """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{% if resources.mathjax_url %}{{ super() }}{% endif %}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}"""
    + STYLE
    + """{%- endblock -%}
{%- block body_header -%}{{ super() }}{{ resources.gcp_top }}{%- endblock -%}
"""
)


class _Renderer(IPythonRenderer):
    """Turns formulas into MathML, which browsers draw by themselves; what cannot be converted stays LaTeX."""

    def inline_math(self, text: str) -> str:
        return _mathml(text, "inline") or super().inline_math(text)

    def block_math(self, text: str) -> str:
        return _mathml(text, "block") or super().block_math(text)

    def latex_environment(self, name: str, body: str) -> str:
        text = rf"\begin{{{name}}}{body}\end{{{name}}}"
        return _mathml(text, "block") or super().latex_environment(name, body)


def _mathml(text: str, display: str) -> str:
    if to_mathml is None:
        return ""
    try:
        return to_mathml(text.strip(), display=display)
    except Exception:  # the converter raises many kinds; a formula in LaTeX is better than no page
        return ""


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=False, attachments=attachments, embed_images=True, path="", anchor_link_text="¶")
        return MarkdownWithMath(renderer=renderer).render(source)


def notebook_page(path: Path, failure: dict | None = None) -> str:
    """Return an executed notebook as HTML, with the failing cell marked if there is one."""
    document = nbformat.read(path, as_version=4)
    document.metadata.pop("widgets", None)  # they would need a script from the network; their text stays
    document.metadata["title"] = notebook_title(document) or path.stem
    # papermill's own notes on an error; ours come instead.
    document.cells = [c for c in document.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    exporter = _Exporter(extra_loaders=[DictLoader({"gcp.html.j2": TEMPLATE})], template_file="gcp.html.j2")
    exporter.mathjax_url = exporter.mathjax_url if to_mathml is None else ""
    top = '<div class="gcp-top"><a href="../index.html">← report</a></div>'
    if failure:
        cell = f'<a href="#{cell_anchor(failure)}">cell [{failure["number"]}]</a>'
        text = f"This notebook <b>failed</b> in {cell}: {escape(failure['error'])}"
        top = f'<div class="gcp-top failed"><a href="../index.html">← report</a> · {text}</div>'
        top += (
            f'<style>[id="{cell_anchor(failure)}"] {{ border-left: 6px solid #c62828; background: #fdecea; }}</style>'
        )
    html, _ = exporter.from_notebook_node(document, resources={"gcp_top": top})
    return html


def cell_anchor(cell: dict) -> str:
    """Return the anchor that nbconvert gives a cell."""
    return f"cell-id={cell['id']}"


def notebook_title(document: nbformat.NotebookNode) -> str:
    """Return the first heading of a notebook, or an empty text."""
    for cell in document.cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^#+\s+(.+)$", cell.source, re.MULTILINE)):
            return plain(match[1])
    return ""


@dataclass(frozen=True)
class Figure:
    """One image that a notebook drew."""

    name: str
    caption: str
    png: bytes
    anchor: str


def figures_of(path: Path) -> list[Figure]:
    """Return the images of an executed notebook, in order.

    A caption is the cell's metadata ``caption``, else the last heading or bold beginning of a paragraph above it. If
    any cell carries the tag ``headline``, only such cells count.
    """
    document, figures, caption = nbformat.read(path, as_version=4), [], path.stem
    chosen = [c for c in document.cells if "headline" in c.metadata.get("tags", [])]
    for cell in document.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^\s*(?:#+\s+(.+)|\*\*(.+?)\*\*.*)$", cell.source, re.MULTILINE)
            caption = plain(next(filter(None, found[-1]))) if found else caption
        elif cell.cell_type == "code" and (not chosen or cell in chosen):
            for output in cell.outputs:
                if data := output.get("data", {}).get("image/png"):
                    name = f"{path.name.split('.')[0]}-{len(figures) + 1:02d}"
                    text = cell.metadata.get("caption") or caption
                    figures.append(Figure(name, text, base64.b64decode(data), cell_anchor(cell)))
    return figures


def runs_fragment(counts: str, unfinished: list[dict]) -> Markup:
    """Return what became of the training runs as HTML: the counts, and a list of those that did not finish, and why."""
    if not unfinished:
        return Markup("{}").format(counts)
    item = Markup("<li><b>{outcome}</b> <code>{directory}</code> {reason}</li>")
    items = Markup("").join(item.format(**run) for run in unfinished)
    return Markup("<details><summary>{}</summary><ul>{}</ul></details>").format(counts, items)


def plain(markdown: str) -> str:
    """Return one line of Markdown as text."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"(\*\*|__|`|\$)", "", text).strip().rstrip("#:").strip()
