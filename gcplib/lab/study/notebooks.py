"""Notebooks as a study sees them: their text, the values that they take, and the kernel that runs them.

papermill warns about an unknown parameter and goes on, and passes text where a number is meant. Here the cell tagged
``parameters`` is read as Python, so that values can be checked before anything runs.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gcplib.lab.files import project_root
from gcplib.lab.study.options import options_of
from gcplib.lab.study.sources import parse_cell
from gcplib.lab.validation import unknown

__all__ = ["KERNEL", "Notebook", "check_kernel", "discover", "notebooks_dir"]

KERNEL = "python3"
INSTALL_KERNEL = "python -m ipykernel install --sys-prefix --name python3"
TYPES = {"Any": Any, "Literal": Literal} | {kind.__name__: kind for kind in (bool, dict, float, int, list, str)}
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
# What a notebook may call on its way from parameters to the first thing that has to be imported.
PURE = (
    abs,
    all,
    any,
    dict,
    float,
    int,
    isinstance,
    len,
    list,
    max,
    min,
    range,
    round,
    set,
    sorted,
    str,
    sum,
    tuple,
    zip,
)


def notebooks_dir() -> Path:
    """Return the folder of notebooks, profiles and Snakefile (override: ``GCPLIB_NOTEBOOKS``)."""
    return Path(os.environ.get("GCPLIB_NOTEBOOKS") or project_root() / "notebooks").expanduser().resolve()


def discover() -> dict[str, Path]:
    """Return every notebook, by name without ``.ipynb``."""
    return {path.stem: path for path in sorted(notebooks_dir().glob("*.ipynb"))}


def check_kernel() -> None:
    """Check that the kernel ``python3`` exists and is this Python.

    Raises:
        ValueError: it does not exist, or starts another Python; the message holds the command that installs it.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec(KERNEL)
    except NoSuchKernel:
        raise ValueError(f"Jupyter has no kernel {KERNEL!r}; install it with: {INSTALL_KERNEL}") from None
    program, here = (os.path.realpath(os.path.dirname(path)) for path in (spec.argv[0], sys.executable))
    # A bare "python" is replaced by this very interpreter; a full path to another one runs without our packages.
    if os.path.isabs(spec.argv[0]) and program != here:
        raise ValueError(
            f"the Jupyter kernel {KERNEL!r} ({spec.resource_dir}) starts {spec.argv[0]}, but this is "
            f"{sys.executable}; install this one with: {INSTALL_KERNEL}"
        )


class Notebook:
    """A notebook's cells, and the parameters that it declares: name, default and type of each.

    The one cell tagged ``parameters`` holds assignments of literals, with annotations. What follows from the parameters
    alone is computed before a study begins: calls of ``options_of``, assertions, and whole cells tagged ``check``, which
    may import. A ValueError or a failed assertion there refuses the values.

    Raises:
        ValueError: it is no notebook, there is not exactly one such cell, or it holds anything but literals.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.parameters = path, {}
        try:
            # As plain JSON: nbformat would do, but takes more than a second to import.
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            self.text = [[c["cell_type"], c["metadata"].get("tags", []), "".join(c["source"])] for c in cells]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name}: not a readable notebook ({error})") from error
        found = [source for _, tags, source in self.text if "parameters" in tags]
        if len(found) != 1:
            raise ValueError(f"{path.name}: expected exactly one cell tagged 'parameters', found {len(found)}")
        try:
            for statement in ast.parse(found[0]).body:
                self._declare(statement)
        except SyntaxError as error:
            raise ValueError(f"{path.name}: the parameters cell is not valid Python: {error}") from error

    @property
    def code(self) -> list[str]:
        """The text of its code cells."""
        return [source for kind, _, source in self.text if kind == "code"]

    def _declare(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=node):
                kind = ""
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as node):
                kind = ast.unparse(annotation)
            case _:
                text = f"the parameters cell may only assign literals to names, found: {ast.unparse(statement)}"
                raise ValueError(f"{self.path.name}: {text}")
        try:
            default = ast.literal_eval(node)
            self.parameters[name] = (default, kind or ("Any" if default is None else type(default).__name__))
        except ValueError:
            # Parameters are set after this cell: a value derived here would keep the default's result.
            text = f"parameter {name!r} must be a literal, found: {ast.unparse(statement)}"
            raise ValueError(f"{self.path.name}: {text}") from None
        try:
            self.convert(name, default)
        except ValueError as error:
            raise ValueError(f"{self.path.name}: the default of parameter {name!r}: {error}") from None

    def convert(self, name: str, value: Any) -> Any:
        """Return a value as the notebook should receive it: an integer given for a float becomes one."""
        kind = self.parameters[name][1]
        try:
            return TypeAdapter(eval(kind, {"__builtins__": {}}, TYPES), config=STRICT).validate_python(value)
        except ValidationError:
            got = "null" if value is None else f"{value!r} ({type(value).__name__})"
            raise ValueError(f"expected {kind}, got {got}") from None
        except (SyntaxError, NameError, TypeError) as error:
            usable = "int, float, str, bool, None, list[...], dict, Literal[...] or a union of these"
            raise ValueError(f"a profile cannot set a value of type {kind!r} ({error}); use {usable}") from None

    def take(self, given: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
        """Return values as the notebook should receive them, and add what is wrong with them to the problems."""
        values, before = {}, len(problems)
        for name, value in given.items():
            if name not in self.parameters:
                problems.append(f"{self.path.stem}: {unknown('parameter', name, self.parameters)}")
                continue
            try:
                values[name] = self.convert(name, value)
            except ValueError as error:
                problems.append(f"{self.path.stem}: parameter {name!r}: {error}")
        if len(problems) == before:
            known = {name: default for name, (default, _) in self.parameters.items()} | values
            problems += [f"{self.path.stem}: {problem}" for problem in self._refusals(known)]
        return values

    def _refusals(self, values: dict[str, Any]) -> Iterator[str]:
        pure = {"__builtins__": {kind.__name__: kind for kind in PURE}}
        values |= {"options_of": options_of}
        for kind, tags, source in self.text:
            if "check" in tags:
                try:
                    exec(compile(parse_cell(source), f"{self.path.name} (cell tagged check)", "exec"), values)
                except Exception as error:  # whatever a notebook raises here, it refuses these values
                    yield str(error) or repr(error)
            elif kind == "code" and "parameters" not in tags:
                yield from _follow(parse_cell(source).body, pure, values)


def _follow(body: list[ast.stmt], pure: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    """Run statements as far as they follow from the values, and yield what they refuse."""
    for statement in body:
        try:
            if isinstance(statement, ast.If):
                test = eval(compile(ast.Expression(statement.test), "<if>", "eval"), pure, values)
                yield from _follow(statement.body if test else statement.orelse, pure, values)
            elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.Assert):
                exec(compile(ast.Module([statement], []), "<cell>", "exec"), pure, values)
            else:
                raise NameError("it may do anything")
        except (ValueError, AssertionError) as error:
            yield str(error) or ast.unparse(statement)
        except Exception:  # it needs more than the parameters, so what it sets is not known
            for node in ast.walk(statement):
                match node:
                    case ast.Name(id=name, ctx=ast.Store()) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                        values.pop(name, None)
