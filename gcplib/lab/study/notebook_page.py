"""An executed notebook as a page of HTML that needs no network: figures inside, formulas as MathML."""

from __future__ import annotations

import functools
import re
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import DictLoader, pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

try:
    from latex2mathml.converter import convert as to_mathml
except ImportError:  # formulas then stay LaTeX, and MathJax is asked of the network
    to_mathml = None

__all__ = ["Page"]

STYLE = """
<style>
 body.jp-Notebook { max-width: 62rem; margin: 0 auto; padding: 1rem 1rem 4rem; overflow: auto; }
 .jp-Cell:target { outline: 3px solid #c62828; outline-offset: 4px; }
 .gcp-top { font: 14px system-ui, sans-serif; padding: .6rem .8rem; border: 1px solid #ddd; margin-bottom: 1rem; }
 .gcp-top.failed { border-color: #c62828; background: #fdecea; color: #5f1412; }
 math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", "DejaVu Math TeX Gyre", math; }
 math[display=block] { margin: .6em 0; overflow: auto hidden; padding-bottom: .3em; }
</style>
"""
# The lab template without its scripts: nothing is fetched, and nothing needs to be.
TEMPLATE = f"""
{{%- extends 'lab/index.html.j2' -%}}
{{%- block html_head_js -%}}{{%- endblock -%}}
{{%- block html_head_js_mathjax -%}}{{% if resources.mathjax_url %}}{{{{ super() }}}}{{% endif %}}{{%- endblock -%}}
{{%- block html_head_js_mermaidjs -%}}{{%- endblock -%}}
{{%- block html_head_css -%}}{STYLE}{{%- endblock -%}}
{{%- block body_header -%}}{{{{ super() }}}}{{{{ resources.gcp_top }}}}{{%- endblock -%}}
"""


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
        return to_mathml(text.strip(), display=display) if to_mathml else ""
    except Exception:  # the converter raises many kinds; a formula in LaTeX is better than no page
        return ""


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=False, attachments=attachments, embed_images=True, path="", anchor_link_text="¶")
        return MarkdownWithMath(renderer=renderer).render(source)


class Page:
    """An executed notebook, with the failing cell marked if there is one."""

    def __init__(self, path: Path, failure: dict[str, Any] | None = None) -> None:
        self.name, self.failure = path.name.split(".")[0], failure
        self.document = nbformat.read(path, as_version=4)
        self.document.metadata.pop("widgets", None)  # they would need a script from the network; their text stays
        self.document.metadata["title"] = self.title

    @functools.cached_property
    def title(self) -> str:
        """The first heading, or the name."""
        sources = [cell.source for cell in self.document.cells if cell.cell_type == "markdown"]
        found = re.search(r"^#+\s+(.+)$", "\n".join(sources), re.MULTILINE)
        return _plain(found[1]) if found else self.name

    @property
    def html(self) -> str:
        """The whole page."""
        exporter = _Exporter(extra_loaders=[DictLoader({"gcp.html.j2": TEMPLATE})], template_file="gcp.html.j2")
        exporter.mathjax_url = "" if to_mathml else exporter.mathjax_url
        top = '<div class="gcp-top"><a href="../index.html">← report</a></div>'
        if self.failure:
            anchor = _anchor(self.failure)
            cell = f'<a href="#{anchor}">cell [{self.failure["number"]}]</a>'
            text = f"This notebook <b>failed</b> in {cell}: {escape(self.failure['error'])}"
            top = f'<div class="gcp-top failed"><a href="../index.html">← report</a> · {text}</div>'
            top += f'<style>[id="{anchor}"] {{ border-left: 6px solid #c62828; background: #fdecea; }}</style>'
        return exporter.from_notebook_node(self.document, resources={"gcp_top": top})[0]

    @functools.cached_property
    def figures(self) -> list[dict[str, str]]:
        """The images that it drew, in order: name, caption, png (base64) and link.

        A caption is the cell's metadata ``caption``, else the last heading or bold beginning of a paragraph above it.
        If any cell carries the tag ``headline``, only such cells count.
        """
        found, caption, cells = [], self.name, self.document.cells
        chosen = [cell for cell in cells if "headline" in cell.metadata.get("tags", [])]
        for cell in cells:
            if cell.cell_type == "markdown":
                heads = re.findall(r"^\s*(?:#+\s+(.+)|\*\*(.+?)\*\*.*)$", cell.source, re.MULTILINE)
                caption = _plain(next(filter(None, heads[-1]))) if heads else caption
            for output in cell.outputs if cell.cell_type == "code" and (not chosen or cell in chosen) else ():
                if png := output.get("data", {}).get("image/png"):
                    text = {
                        "name": f"{self.name}-{len(found) + 1:02d}",
                        "caption": cell.metadata.get("caption", caption),
                    }
                    found.append(text | {"png": png.strip(), "link": f"notebooks/{self.name}.html#{_anchor(cell)}"})
        return found


def _anchor(cell: dict[str, Any]) -> str:
    """Return the anchor that nbconvert gives a cell."""
    return f"cell-id={cell['id']}"


def _plain(markdown: str) -> str:
    """Return one line of Markdown as text."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"(\*\*|__|`|\$)", "", text).strip().rstrip("#:").strip()
