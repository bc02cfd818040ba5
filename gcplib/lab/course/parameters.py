"""The parameters of a notebook, for people: name, type, default and meaning; and its cell with other values in it."""

from __future__ import annotations

import ast
import io
import json
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcplib.lab.study.notebooks import Notebook, discover
from gcplib.lab.study.options import options_of
from gcplib.lab.study.sources import parse_cell
from gcplib.lab.validation import unknown

__all__ = ["Parameter", "as_code", "chosen", "comments_of", "list_parameters", "parameters_text", "with_values"]

WIDTH = 88  # columns that JupyterLab shows of a cell


@dataclass(frozen=True)
class Parameter:
    """One parameter, or one option of a parameter that is a dict of options."""

    name: str
    kind: str
    default: str
    meaning: str


def chosen(names: Sequence[str]) -> dict[str, Any]:
    """Return the files of notebooks by name; all of them where none is named.

    Args:
        names: of notebooks, or how they begin, such as ``06``.

    Raises:
        ValueError: no notebook begins so, or several do.
    """
    known, found = discover(), {}
    for text in names:
        fitting = [name for name in known if name.startswith(text.removesuffix(".ipynb"))]
        if len(fitting) != 1:
            raise ValueError(unknown("notebook", text, known))
        found[fitting[0]] = known[fitting[0]]
    return found or known


def as_code(value: Any) -> str:
    """Return a plain value as Python writes it, with double quotes.

    >>> as_code({"a": [1, None, "b"]})
    '{"a": [1, None, "b"]}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_code(key)}: {as_code(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_code, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def comments_of(cell: str) -> dict[str, str]:
    """Return what the comments of a parameters cell say about each name: beside it, or in lines of their own above.

    >>> comments_of("seeds: int = 2  # runs of each")
    {'seeds': 'runs of each'}
    """
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(cell).readline)
        if token.type == tokenize.COMMENT
    }
    alone = {line for line in comments if cell.splitlines()[line - 1].lstrip().startswith("#")}
    found = {}
    for name, statement in _statements(cell):
        first = statement.lineno
        while first - 1 in alone:
            first -= 1
        lines = range(first, (statement.end_lineno or first) + 1)
        found[name] = " ".join(comments[line] for line in lines if line in comments)
    return found


def with_values(cell: str, values: Mapping[str, Any]) -> str:
    """Return a parameters cell with other defaults; types and comments stay.

    >>> with_values("seeds: int = 2  # runs of each", {"seeds": 5})
    'seeds: int = 5  # runs of each'
    """
    lines, meanings = cell.splitlines(), comments_of(cell)
    for name, statement in reversed(list(_statements(cell))):
        if name not in values or values[name] == ast.literal_eval(statement.value):
            continue
        kind = f": {ast.unparse(statement.annotation)}" if isinstance(statement, ast.AnnAssign) else ""
        above = statement.lineno > 1 and lines[statement.lineno - 2].lstrip().startswith("#")
        comment = f"  # {meanings[name]}" if meanings[name] and not above else ""
        lines[statement.lineno - 1 : statement.end_lineno] = _assigned(f"{name}{kind} = ", values[name], comment)
    return "\n".join(lines)


def _assigned(head: str, value: Any, comment: str) -> list[str]:
    """Return an assignment on one line, or where it is too long for one, with a line for each entry."""
    line = head + as_code(value) + comment
    if len(line) <= WIDTH or not isinstance(value, Mapping | list) or not value:
        return [line]
    opening, closing = "{}" if isinstance(value, Mapping) else "[]"
    entries = [f"{as_code(k)}: {as_code(v)}" for k, v in value.items()] if opening == "{" else map(as_code, value)
    return [f"{head}{opening}{comment}", *(f"    {entry}," for entry in entries), closing]


def _statements(cell: str) -> Iterator[tuple[str, Any]]:
    for statement in ast.parse(cell).body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield name, statement


def list_parameters(notebook: Notebook) -> list[Parameter]:
    """Return the parameters of a notebook, each followed by its options, where its check names some."""
    (cell,) = (source for _, tags, source in notebook.text if "parameters" in tags)
    meanings, options, found = comments_of(cell), _options(notebook), []
    for name, (default, kind) in notebook.parameters.items():
        found.append(Parameter(name, kind, as_code(default), meanings[name]))
        for option, value in options.get(name, {}).items():
            needed = option not in default and value is None
            shown = "" if needed else as_code(default.get(option, value))
            found.append(Parameter(f"  {option}", "", shown, "an option of it" if needed else ""))
    return found


def _options(notebook: Notebook) -> dict[str, dict[str, Any]]:
    """Return the options of each parameter that is a dict of them, as the check of the notebook asks for them."""
    seen: dict[str, dict[str, Any]] = {}

    def told(name: str, given: Mapping[str, Any], needed: Sequence[str] = (), **defaults: Any) -> dict[str, Any]:
        seen.setdefault(name, dict.fromkeys(needed) | defaults)
        return options_of(name, given, needed, **defaults)

    values = {name: default for name, (default, _) in notebook.parameters.items()}
    for _, tags, source in notebook.text:
        if "check" in tags:
            tree = parse_cell(source)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    node.names = [alias for alias in node.names if alias.name != "options_of"]
            tree.body = [node for node in tree.body if not (isinstance(node, ast.ImportFrom) and not node.names)]
            exec(compile(tree, notebook.path.name, "exec"), values | {"options_of": told})
    return seen


def parameters_text(notebook: Notebook) -> str:
    """Return the parameters of a notebook as a table to read in a terminal."""
    rows = [("name", "type", "default", "meaning")]
    rows += [(p.name, p.kind, p.default, p.meaning) for p in list_parameters(notebook)]
    # A long default stands beside others of usual length, and its meaning in the line below.
    widths = [max(len(row[column]) for row in rows if len(row[column]) <= 28) for column in range(3)]
    lines = [notebook.path.stem]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
        if len(row[2]) > widths[2] and row[3]:
            lines += [line.rstrip(), " " * (sum(widths) + 6) + row[3]]
        else:
            lines.append(f"{line}  {row[3]}".rstrip())
    return "\n".join(lines)
