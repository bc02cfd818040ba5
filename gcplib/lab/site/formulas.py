"""Formulas as MathML, which browsers draw by themselves: in the pages of Sphinx, and in Markdown of slides."""

from __future__ import annotations

import functools
import html
from typing import Any

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

__all__ = ["markdown_as_html", "mathml", "setup"]


def mathml(text: str, display: str = "inline") -> str:
    """Return LaTeX as MathML, ``inline`` or ``block``; what cannot be converted stays LaTeX.

    >>> mathml("x")[:5], mathml(r"x_{")
    ('<math', '<code class="latex">x_{</code>')
    """
    try:
        return convert(text.strip(), display=display)
    except Exception:  # the converter raises many kinds; a formula in LaTeX is better than no page
        return f'<code class="latex">{html.escape(text.strip())}</code>'


def markdown_as_html(source: str) -> str:
    """Return Markdown as HTML, its formulas as MathML.

    >>> markdown_as_html("*a*").strip()
    '<p><em>a</em></p>'
    """
    return _parser().render(source)


@functools.cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table").use(amsmath_plugin, renderer=_block)
    return parser.use(dollarmath_plugin, renderer=_dollars, double_inline=True, allow_labels=False)


def _block(text: str) -> str:
    return mathml(text, "block")


def _dollars(text: str, options: dict[str, Any]) -> str:
    return mathml(text, "block" if options["display_mode"] else "inline")


def setup(app: Any) -> dict[str, bool]:
    """Let Sphinx write formulas so."""
    app.add_html_math_renderer("mathml", inline_renderers=(_visit, None), block_renderers=(_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _visit(translator: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    translator.body.append(mathml(node.astext()))
    raise SkipNode


def _visit_block(translator: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    # A long formula scrolls within the page, also by keys.
    translator.body.append(f'<div class="formula" tabindex="0">{mathml(node.astext(), "block")}</div>\n')
    raise SkipNode
