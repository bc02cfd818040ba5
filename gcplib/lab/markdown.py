"""Markdown of the generated pages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table.

    >>> print(table(["a", "b"], [[1, "|x|"]]))
    | a | b |
    |---|---|
    | 1 | \\|x\\| |
    """
    lines = [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]])


def page(title: str, *parts: str) -> str:
    """Return a page that says by which command it is written."""
    head = "<!-- Written by `python -m gcplib docs`; changes by hand are lost. -->"
    return "\n\n".join([head, f"# {title}", *filter(None, parts)]) + "\n"


def docstring(thing: object) -> str:
    """Return a docstring as Markdown: headings and lists for its sections, its example as code."""
    text, example, code = (inspect.getdoc(thing) or "").replace("``", "`").partition("\n>>> ")
    text = re.sub(r"^(Args|Attributes|Returns|Raises):\n", r"**\1**\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^ {4}(\w[\w, ]*): ", r"* `\1`: ", text, flags=re.MULTILINE)
    text = re.sub(r"^ {4,}", "  ", text, flags=re.MULTILINE)
    return text.strip() + (f"\n\n```python\n>>> {code.strip()}\n```" if example else "")
