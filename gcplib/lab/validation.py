"""One validator for everything that people write: specifications, profiles, sweeps, parameters and ``--set``.

pydantic checks names, types and ranges, strictly and all at once; here is how its files are read and its errors told.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

__all__ = ["CONFIG", "SpecError", "apply_changes", "checked", "problems_of", "read_yaml", "unknown", "validated"]

T = TypeVar("T")

# For every specification: no coercion of text, no unknown keys, no infinite numbers.
CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return the message of `gcplib.linalg.calls.unknown`; torch comes with it, so it is imported when it is needed."""
    from gcplib.linalg import calls

    return calls.unknown(what, name, known)


class SpecError(ValueError):
    """What somebody wrote does not fit; the message lists every problem."""

    def __init__(self, where: str, problems: Sequence[str]):
        self.problems = tuple(dict.fromkeys(problems))
        count = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        super().__init__(f"{where} has {count}:\n  - " + "\n  - ".join(self.problems))


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: a key given twice is refused, and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            raise yaml.constructor.ConstructorError(None, None, f"given twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


# PyYAML follows YAML 1.1, which wants a dot in the mantissa and a sign in the exponent.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(source: Path | str) -> Any:
    """Return what a YAML file holds, or a text.

    Raises:
        FileNotFoundError: there is no such file. SpecError: it is not valid YAML, or gives a key twice.
    """
    text, where = (
        (source.read_text(encoding="utf-8-sig"), str(source)) if isinstance(source, Path) else (source, "text")
    )
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SpecError(where, [f"not valid YAML: {error}"]) from error


def problems_of(error: ValidationError, known: Sequence[str] = ()) -> list[str]:
    """Return one sentence per problem of a pydantic error: its path, what is wrong, and what was given."""
    found = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            found.append(unknown("key", path, known) if known else f"unknown key {path!r}")
        elif item["type"] in ("value_error", "assertion_error"):
            found.append(": ".join(filter(None, (path, str(item["ctx"]["error"])))))
        else:
            found.append(f"{path or 'value'}: {item['msg']}, got {item['input']!r}")
    return found


def validated(kind: type[T], values: Any, where: str) -> T:
    """Return an object of a pydantic type made of plain values, with every problem in one error.

    Raises:
        SpecError: anything does not fit.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise SpecError(where, problems_of(error)) from None


def checked(kind: type[T], values: Any, where: str, problems: list[str]) -> T | None:
    """Return a pydantic dataclass made of a mapping, or None after adding what is wrong to the problems."""
    if not isinstance(values, dict | None):
        problems.append(f"{where}: must be a mapping, got {values!r}")
        return None
    try:
        return kind(**{str(key): value for key, value in (values or {}).items()})
    except ValidationError as error:
        known = [field.name for field in dataclasses.fields(kind)]
        problems += [f"{where}: {problem}" for problem in problems_of(error, known)]
        return None


def apply_changes(values: dict[str, Any], changes: Sequence[str], is_text: Any = lambda path: False) -> dict[str, Any]:
    """Return nested values changed by texts ``KEY=VALUE`` with dots in the key.

    Text stays text: only what reads as a number, truth value, null, list or mapping becomes one.

    Args:
        values: nested mappings; not changed.
        changes: the texts.
        is_text: says of a path such as ``data.root`` whether its field takes text, which is then kept as it is.

    Raises:
        SpecError: a text without ``=``, a key given twice, or a path through a value.
    """
    values, problems, seen = copy.deepcopy(values), [], set()
    for change in changes:
        key, equals, text = change.partition("=")
        if not (key and equals):
            problems.append(f"wanted KEY=VALUE, got {change!r}")
            continue
        if key in seen:
            problems.append(f"{key} is given twice")
        seen.add(key)
        *parts, last = key.split(".")
        target = values
        for part in parts:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                problems.append(f"{change}: {part!r} is a value, not a group of fields")
                break
        else:
            target[last] = text if is_text(key) else _meaning(text)
    if problems:
        raise SpecError("--set", problems)
    return values


def _meaning(text: str) -> Any:
    """Return the number, truth value, null, list or mapping that a text stands for, else the text."""
    try:
        value = read_yaml(text)
    except SpecError:
        return text
    # "C: x" is a mapping to YAML, and " #" begins a comment; on a command line both can only be meant as text.
    return text if isinstance(value, str) or (isinstance(value, dict | list) and text.strip()[0] not in "[{") else value
