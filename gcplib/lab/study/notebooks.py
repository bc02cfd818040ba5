"""Notebooks as a study sees them: their text, and the values that they take.

papermill warns about an unknown parameter and goes on, and passes text where a number is meant. Here the cell tagged
``parameters`` is read as Python, so that values can be checked before anything runs.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from gcplib.lab.files import project_root
from gcplib.lab.study.sources import parse_cell
from gcplib.lab.validation import unknown

__all__ = ["Notebook", "discover", "notebooks_dir"]

TYPES = {"Any": Any, "Literal": Literal} | {kind.__name__: kind for kind in (bool, dict, float, int, list, str)}
STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def notebooks_dir() -> Path:
    """Return the folder of notebooks, profiles and Snakefile (override: ``GCPLIB_NOTEBOOKS``)."""
    return Path(os.environ.get("GCPLIB_NOTEBOOKS") or project_root() / "notebooks").expanduser().resolve()


def discover() -> dict[str, Path]:
    """Return every notebook, by name without ``.ipynb``."""
    return {path.stem: path for path in sorted(notebooks_dir().glob("*.ipynb"))}


class Notebook:
    """A notebook's cells, and the parameters that it declares: name, default and type of each.

    The one cell tagged ``parameters`` holds assignments of literals, with annotations. Cells tagged ``check`` need
    nothing else: they run before a study begins, and an error there, of ``options_of`` perhaps, refuses the values.

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
        self.code = [source for kind, _, source in self.text if kind == "code"]
        found = [source for _, tags, source in self.text if "parameters" in tags]
        if len(found) != 1:
            raise ValueError(f"{path.name}: expected exactly one cell tagged 'parameters', found {len(found)}")
        try:
            for statement in ast.parse(found[0]).body:
                self._declare(statement)
        except SyntaxError as error:
            raise ValueError(f"{path.name}: the parameters cell is not valid Python: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error

    def _declare(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=node):
                kind = None
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as node):
                kind = ast.unparse(annotation)
            case _:
                text = ast.unparse(statement)
                raise ValueError(f"the parameters cell may only assign literals to names, found: {text}")
        try:
            default = ast.literal_eval(node)
        except ValueError:
            # Parameters are set after this cell: a value derived here would keep the default's result.
            raise ValueError(f"parameter {name!r} must be a literal, found: {ast.unparse(statement)}") from None
        self.parameters[name] = (default, kind or ("Any" if default is None else type(default).__name__))
        try:
            self.convert(name, default)
        except ValueError as error:
            raise ValueError(f"the default of parameter {name!r}: {error}") from None

    def convert(self, name: str, value: Any) -> Any:
        """Return a value as the notebook should receive it: an integer given for a float becomes one."""
        kind = self.parameters[name][1]
        try:
            found = TypeAdapter(eval(kind, {"__builtins__": {}}, TYPES), config=STRICT).validate_python(value)
            if json.loads(json.dumps(found)) != found:
                raise ValueError(f"keys of a mapping must be text, put them in quotes; got {value!r}")
            return found
        except ValidationError:
            got = "null" if value is None else f"{value!r} ({type(value).__name__})"
            raise ValueError(f"expected {kind}, got {got}") from None
        except (SyntaxError, NameError, TypeError) as error:
            usable = "int, float, str, bool, None, list[...], dict, Literal[...] or a union of these"
            raise ValueError(f"a profile cannot set a value of type {kind!r} ({error}); use {usable}") from None

    def take(self, given: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
        """Return values as the notebook should receive them, and add what is wrong with them to the problems."""
        values, found = {}, []
        for name, value in given.items():
            try:
                values[name] = self.convert(name, value)
            except KeyError:
                found.append(unknown("parameter", name, self.parameters))
            except ValueError as error:
                found.append(f"parameter {name!r}: {error}")
        defaults = {name: default for name, (default, _) in self.parameters.items()}
        problems += [f"{self.path.stem}: {problem}" for problem in found or self._refusals(defaults | values)]
        return values

    def _refusals(self, values: dict[str, Any]) -> Iterator[str]:
        for _, tags, source in self.text:
            if "check" in tags:
                try:
                    exec(compile(parse_cell(source), f"{self.path.name} (cell tagged check)", "exec"), values)
                except Exception as error:  # whatever a notebook raises here, it refuses these values
                    yield str(error) or repr(error)
