"""Names with settings, such as ``taylor(9)``, and functions with settings, both plain values.

One reader serves gradient rules, eigenvalue sets, spectral functions and losses. Wherever a name is taken, an object is
taken as well, and the other way round.
"""

import ast
import difflib
import functools
from collections.abc import Iterable, Mapping
from math import isfinite
from numbers import Integral, Real
from typing import Any, TypeGuard, TypeVar

__all__ = ["Partial", "check_count", "is_number", "read_call", "resolve", "unknown", "write_call"]

T = TypeVar("T")


class Partial(functools.partial):
    """``functools.partial`` that equals another of the same function and settings, also after copying or pickling.

    >>> Partial(pow, 2) == Partial(pow, 2), Partial(pow, 2)(3)
    (True, 8)
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Partial) and (self.func, self.args) == (other.func, other.args)

    def __hash__(self) -> int:
        return hash((self.func, self.args))


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Return a message about a name that does not exist: the nearest one, and all that are known.

    >>> unknown("pool", "mpn_cof", ["gap", "mpn_cov"])
    "unknown pool 'mpn_cof'; did you mean 'mpn_cov'? known: gap, mpn_cov"
    """
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    hint = f" did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r};{hint} known: {', '.join(known)}"


def read_call(text: str) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Split ``name``, ``name(1, 2)`` or ``name(degree=9)`` into the name and its literal settings.

    Raises:
        ValueError: the text is neither a name nor a name with literals in parentheses.

    >>> read_call("band(16, 32)")
    ('band', (16, 32), {})
    """
    if text.strip().isidentifier():
        return text.strip(), (), {}
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            settings = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
            if len(settings) == len(node.keywords):
                return node.func.id, tuple(map(ast.literal_eval, node.args)), settings
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f"cannot read {text!r}: write a name, or a name with its settings such as name(9) or name(a=1)")


def write_call(name: str, *settings: float, defaults: tuple[float, ...] | None = None) -> str:
    """Return the text that ``read_call`` reads back: the name alone if the settings are the defaults.

    >>> write_call("power", 0.25), write_call("clip", 1000.0)
    ('power(0.25)', 'clip(1000)')
    """
    if settings == (defaults or ()):
        return name
    whole = (int(s) if abs(s) < 1e15 and float(s).is_integer() else s for s in settings)
    return f"{name}({', '.join(repr(s if isinstance(s, int) else float(s)) for s in whole)})"


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a setting is a finite real number, of Python or NumPy: no text, truth value or NaN.

    >>> is_number(1), is_number("1"), is_number(float("nan"))
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def check_count(what: str, value: int, least: int = 1) -> int:
    """Return a setting that counts something, or raise a ValueError if it is no integer from ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{what} must be an integer from {least}, got {value!r}")
    return int(value)


def resolve(kind: type[T], what: str, value: str | T, table: Mapping[str, Any]) -> T:
    """Return ``value`` itself if it is of that kind, or what its text names in the table.

    Args:
        kind: the class of the objects.
        what: their name in messages, such as ``gradient rule``.
        value: an object, a name, or a name with settings.
        table: by name, an object (a name alone) or a factory (a name with settings, or alone with its defaults).

    Raises:
        ValueError: unknown name (the message has the nearest one), or settings that do not fit.
        TypeError: neither an object of that kind nor text.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        raise TypeError(f"a {what} is text or a {kind.__name__}, got {type(value).__name__}: {value!r}")
    name, arguments, settings = read_call(value)
    if name not in table:
        raise ValueError(unknown(what, name, table))
    entry = table[name]
    if isinstance(entry, kind):
        if arguments or settings:
            raise ValueError(f"{what} {name!r} has no settings, got {value!r}")
        return entry
    try:
        return entry(*arguments, **settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} {value!r}: {error}") from error
