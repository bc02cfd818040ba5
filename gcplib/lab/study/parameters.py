"""The parameters cell of a notebook: its names and types, and whether a value fits.

papermill warns about an unknown parameter and goes on, and passes text where a number is meant. Here the cell is read
as Python, so that a profile can be checked by name and type before anything runs. (papermill's own inspection does not
understand ``device: str | None = None``.)
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Parameter", "convert", "fit_problem", "options_of", "read_parameters", "suggest"]

SCALARS = {"int": int, "float": float, "str": str, "bool": bool}


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name, its default, and its type written as Python writes it (``"Any"`` if none is stated)."""

    name: str
    default: Any
    type: str


def read_parameters(notebook: str | Path) -> dict[str, Parameter]:
    """Return the parameters that a notebook declares, by name.

    The one cell tagged ``parameters`` holds assignments of literals. A type is taken from the annotation, else from a
    ``# type: ...`` comment, else from the default.

    Raises:
        ValueError: the file is not a notebook; there is no such cell, or more than one; or the cell holds anything
            but literals.
    """
    path = Path(notebook)
    try:
        # As plain JSON: nbformat would do, but takes more than a second to import.
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in document["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name}: not a readable notebook ({error})") from error
    if len(cells) != 1:
        raise ValueError(f"{path.name}: expected exactly one cell tagged 'parameters', found {len(cells)}")
    return _parse_cell("".join(cells[0]["source"]), path.name)


def _parse_cell(source: str, where: str) -> dict[str, Parameter]:
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{where}: the parameters cell is not valid Python: {error}") from error
    comments = _type_comments(source)
    parameters: dict[str, Parameter] = {}
    for statement in statements:
        code = ast.unparse(statement)
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=node):
                stated = comments.get(statement.end_lineno)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as node):
                stated = annotation.value if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
            case _:
                raise ValueError(f"{where}: the parameters cell may only assign literals to names, found: {code}")
        try:
            default = ast.literal_eval(node)
        except ValueError:
            # papermill sets parameters after this cell: a value derived here would keep the default's result.
            raise ValueError(f"{where}: parameter {name!r} must be a literal, found: {code}") from None
        parameter = Parameter(name, default, stated or _type_of(default))
        if problem := fit_problem(parameter, default):
            raise ValueError(f"{where}: the default of parameter {name!r} does not fit its own type: {problem}")
        parameters[name] = parameter
    return parameters


def _type_comments(source: str) -> dict[int, str]:
    """The text after ``# type:`` by line, up to a second ``#``."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            head, _, text = token.string.lstrip("# ").partition(":")
            if head.strip() == "type":
                found[token.start[0]] = text.split("#")[0].strip()
    return found


def _type_of(default: Any) -> str:
    """The type that a default implies: a list of one kind of thing stays a list of that kind."""
    match default:
        case None:
            return "Any"
        case list() | tuple():
            kinds = {_type_of(item) for item in default}
            if kinds == {"int", "float"}:
                kinds = {"float"}
            return f"list[{kinds.pop()}]" if len(kinds) == 1 else "list"
        case _:
            return type(default).__name__


def fit_problem(parameter: Parameter, value: Any) -> str | None:
    """Return what is wrong with a value for a parameter, and what to write instead; None if it fits."""
    try:
        convert(parameter, value)
    except TypeError:
        hint = _hint(value, parameter.type)
        got = f"{value!r} ({'null' if value is None else type(value).__name__})"
        return f"expected {parameter.type}, got {got}" + (f"; {hint}" if hint else "")
    except ValueError as error:
        return str(error)
    return None


def convert(parameter: Parameter, value: Any) -> Any:
    """Return the value as the notebook should receive it (an integer given for a float becomes a float).

    Raises:
        TypeError: the value does not fit.
        ValueError: the stated type cannot be read.
    """
    try:
        node = ast.parse(parameter.type, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"parameter {parameter.name!r} has an unreadable type {parameter.type!r}") from error
    return _convert(value, node)


def _convert(value: Any, node: ast.expr) -> Any:
    match node:
        case ast.Name(id="Any"):
            return value
        case ast.Name(id=name) if name in SCALARS:
            if type(value) is SCALARS[name]:  # exactly: True is an int to isinstance
                return value
            if name == "float" and type(value) is int:
                return float(value)
        case ast.Constant(value=None):
            if value is None:
                return value
        case ast.Name(id="list" | "tuple") if isinstance(value, list | tuple):
            return list(value)
        case ast.Name(id="dict") | ast.Subscript(value=ast.Name(id="dict")) if isinstance(value, dict):
            return value
        case ast.Subscript(value=ast.Name(id="list"), slice=inner) if isinstance(value, list | tuple):
            return [_convert(item, inner) for item in value]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=options):
            if value in ast.literal_eval(options if isinstance(options, ast.Tuple) else ast.Tuple([options])):
                return value
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            try:
                return _convert(value, left)
            except TypeError:
                return _convert(value, right)
        case ast.Name(id="list" | "tuple" | "dict") | ast.Subscript(value=ast.Name(id="list" | "dict")):
            pass
        case _:
            usable = "int, float, str, bool, None, list[...], dict, Literal[...] or a union of these"
            raise ValueError(f"a profile cannot set a value of type {ast.unparse(node)!r}; use {usable}")
    raise TypeError(f"{value!r} is not {ast.unparse(node)}")


def _hint(value: Any, kind: str) -> str:
    if isinstance(value, str) and kind.split(" | ")[0] in ("int", "float", "bool"):
        text = value.strip().lower()
        if text in ("true", "false", "none", "null"):
            return f"write {text.replace('none', 'null')} without quotes"
        try:
            number = float(text)
        except ValueError:
            return ""
        if "float" in kind and "e" in text:
            # YAML 1.1 reads 1e-3 as text: it wants a dot in the mantissa and a sign in the exponent.
            mantissa, _, exponent = text.partition("e")
            mantissa += "" if "." in mantissa else ".0"
            exponent = exponent if exponent[:1] in "+-" else "+" + exponent
            return f"YAML reads {value} as text: write {mantissa}e{exponent}"
        return f"write {int(number) if kind == 'int' and number == int(number) else text} without quotes"
    if isinstance(value, bool):
        return "yes, no, on, off, true and false are booleans in YAML; quote a word that is meant as text"
    if kind.startswith("list") and not isinstance(value, list):
        return f"write a list: [{value}]"
    return ""


def suggest(name: str, known: list[str], what: str = "") -> str:
    """Return ``"did you mean 'x'?"`` for a near match, else the list of what exists."""
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f"did you mean {near[0]!r}?"
    return f"{what or 'known'}: {', '.join(known) or 'none'}"


def options_of(name: str, given: Mapping[str, Any], needed: Iterable[str] = (), **defaults: Any) -> dict[str, Any]:
    """Return a parameter that is a dict of options, with the defaults of those it leaves out.

    The type ``dict`` says nothing of the keys, so a notebook checks them with this, before it computes anything.

    Args:
        name: of the parameter, for messages. needed: keys without a default.

    Raises:
        ValueError: a key that does not exist, or one that is needed and not there.

    >>> options_of("looks", {"pairs": 8}, ["pairs"], share=0.25)
    {'share': 0.25, 'pairs': 8}
    """
    needed = list(needed)
    known = [*needed, *defaults]
    for key in given:
        if key not in known:
            raise ValueError(f"parameter {name!r} has no option {key!r}; {suggest(str(key), known)}")
    if missing := [key for key in needed if key not in given]:
        raise ValueError(f"parameter {name!r} lacks {', '.join(map(repr, missing))}; it has {[*given]}")
    return defaults | dict(given)
