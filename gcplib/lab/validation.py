"""One validator for everything that people write: specifications, profiles, sweeps, parameters and ``--set``.

pydantic checks names, types and ranges, strictly and all at once; here is how its errors are told.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import pydantic.dataclasses
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from gcplib.lab.plain import SpecError, plain, read_yaml

T = TypeVar("T")

# A tuple, which YAML writes as a list.
Items = Annotated[tuple[T, ...], Field(strict=False)]


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return the message of ``gcplib.linalg.calls.unknown``, whose package takes seconds to import."""
    from gcplib.linalg.calls import unknown

    return unknown(what, name, known)


def one_of(what: str, known: Callable[[], Iterable[str]]) -> Any:
    """Return the type of a text that is one of some names; they are asked for when a text is checked."""

    def check(value: str) -> str:
        if value not in (names := list(known())):
            raise ValueError(unknown(what, value, names))
        return value

    return Annotated[str, AfterValidator(check)]


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def specification(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose fields are checked, whether it is made by hand or by ``validated``.

    Numbers of NumPy become Python's, and paths text. Whatever does not fit is a ``SpecError``: text is not coerced, and
    there are no unknown keys and no infinite numbers.
    """

    def takes_mappings(kind: type, source: Any, handler: Any) -> Any:
        # Strictness is about the fields; pydantic would refuse a mapping for the whole as well.
        schema = inner = handler(source)
        inner = handler.resolve_ref_schema(inner)
        while inner["type"] != "dataclass":
            inner = inner["schema"]
        inner["strict"] = False
        return schema

    made: Any = cls
    made.__get_pydantic_core_schema__ = classmethod(takes_mappings)
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    made = pydantic.dataclasses.dataclass(frozen=True, config=config)(made)
    check, names = made.__init__, [field.name for field in dataclasses.fields(made)]

    @functools.wraps(check)
    def __init__(self: Any, *args: Any, **fields: Any) -> None:
        if len(args) > len(names) or fields.keys() & set(names[: len(args)]):
            raise TypeError(f"{made.__name__} takes each of these once: {', '.join(names)}")
        try:
            check(self, **plain(dict(zip(names, args, strict=False)) | fields))
        except ValidationError as error:
            raise SpecError(made.__name__, _problems(error, made)) from None

    made.__init__ = __init__
    return made


def validated(kind: type[T], values: Any, where: str) -> T:
    """Return an object of a pydantic type made of plain values, with every problem in one error.

    Raises:
        SpecError: anything does not fit.
    """
    try:
        return TypeAdapter(kind).validate_python(plain(values))
    except ValidationError as error:
        raise SpecError(where, _problems(error, kind)) from None


def _problems(error: ValidationError, kind: Any) -> list[str]:
    """Return one sentence per problem with a value of that type: its path, what is wrong, and what was given."""
    found: list[str] = []
    wrong: dict[tuple[str, str], list[str]] = {}
    for item in error.errors(include_url=False):
        is_key = item["type"] in ("extra_forbidden", "unexpected_keyword_argument")
        path, here = _place(kind, item["loc"][:-1] if is_key else item["loc"])
        names = [name for branch in here for name in getattr(branch, "__pydantic_fields__", ())]
        texts = [text for branch in here if typing.get_origin(branch) is Literal for text in typing.get_args(branch)]
        told: Sequence[str] = ()
        if is_key:
            key = item["loc"][-1]
            told = [unknown("key", key, names) if names else f"unknown key {key!r}"]
        elif cause := item.get("ctx", {}).get("error"):
            told = cause.problems if isinstance(cause, SpecError) else [str(cause)]
        elif item["type"] == "missing":
            told = ["is missing"]
        elif item["type"] == "literal_error" and isinstance(item["input"], str) and texts:
            told = [unknown("name", item["input"], texts)]
        else:
            message = item["msg"].removeprefix("Input ")
            if item["type"] == "string_type" and isinstance(item["input"], bool | int | float):
                message += " (in YAML, put it in quotes)"
            wrong.setdefault((path or "value", repr(item["input"])), []).append(message)
        found += [f"{path}: {text}" if path else text for text in told]
    return found + [f"{path}: {', or '.join(texts)}; got {given}" for (path, given), texts in wrong.items()]


def _place(kind: Any, loc: Sequence[str | int]) -> tuple[str, list[Any]]:
    """Return a problem's path, without pydantic's marks for branches of a union, and the types there."""
    path, here = "", _branches(kind)
    for part in loc:
        if inside := _inside(here, part):
            path, here = f"{path}[{part}]" if isinstance(part, int) else f"{path}.{part}", inside
        elif len(here) > 1:
            here = [branch for branch in here if getattr(branch, "__name__", "") == part] or here
        else:
            path += f".{part}"
    return path.removeprefix("."), here


def _branches(kind: Any) -> list[Any]:
    if typing.get_origin(kind) is Annotated:
        return _branches(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [branch for one in typing.get_args(kind) for branch in _branches(one)]
    return [kind]


def _inside(here: Iterable[Any], part: str | int) -> list[Any]:
    """Return the types of a field, a value or an item of what is here."""
    for kind in here:
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if part in (fields := getattr(kind, "__pydantic_fields__", {})):
            return _branches(fields[part].annotation)
        if inner and (origin in (tuple, list) if isinstance(part, int) else origin in (dict, Mapping)):
            return _branches(inner[0 if isinstance(part, int) else -1])
    return []


def apply_changes(values: Mapping[str, Any], changes: Sequence[str], kind: Any = None) -> dict[str, Any]:
    """Return nested values changed by texts ``KEY=VALUE`` with dots in the key.

    Text stays text: only what reads as a number, truth value, null, list or mapping becomes one, and nothing does
    where a field takes text alone.

    Args:
        values: nested mappings; not changed.
        changes: the texts.
        kind: the specification whose fields the values are.

    Raises:
        SpecError: a text without ``=``, a key given twice, or a path through a value.
    """
    changed, problems, seen = copy.deepcopy(dict(values)), [], set()
    for change in changes:
        key, equals, text = change.partition("=")
        if not (key and equals):
            problems.append(f"wanted KEY=VALUE, got {change!r}")
            continue
        if key in seen:
            problems.append(f"{key} is given twice")
        seen.add(key)
        *parts, last = key.split(".")
        target = changed
        for part in parts:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                problems.append(f"{change}: {part!r} is a value, not a group of fields")
                break
        else:
            here = functools.reduce(_inside, key.split("."), _branches(kind))
            is_text = here and all(one is str or typing.get_origin(one) is Literal for one in here)
            target[last] = text if is_text else _meaning(text)
    if problems:
        raise SpecError("--set", problems)
    return changed


def _meaning(text: str) -> Any:
    """Return the number, truth value, null, list or mapping that a text stands for, else the text."""
    try:
        value = read_yaml(text)
    except SpecError:
        return text
    # "C: x" is a mapping to YAML, and " #" begins a comment; on a command line both can only be meant as text.
    return text if isinstance(value, str) or (isinstance(value, dict | list) and text.strip()[0] not in "[{") else value
