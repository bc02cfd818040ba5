"""What all constructors share: parts by name, class or object, and errors about options and values."""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from numbers import Integral
from typing import Any, get_type_hints

from torch import nn

from gcplib.linalg.calls import unknown


class UnknownOptionError(TypeError, ValueError):
    """An option that a part does not have; the message has the nearest one, and all that it has."""


def known_options(make: Callable[..., Any]) -> list[str]:
    """Return the keyword-only options of a class or factory, those that it hands on in ``**`` included.

    A class hands on to its base, a factory to the class that it returns; ``fixed`` names what a class decides itself.

    >>> known_options(nn.Flatten), known_options(partial(nn.Linear, bias=False))
    ([], [])
    """
    while isinstance(make, partial):
        make = make.func
    parameters = inspect.signature(make).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        onward = make.__base__ if isinstance(make, type) else get_type_hints(make).get("return")
        if onward is None:
            raise TypeError(f"{make.__name__} hands options on in **, and needs the class that it returns: `-> Class`")
        names += known_options(onward)
    return [name for name in dict.fromkeys(names) if name not in getattr(make, "fixed", ())]


def check_options(what: str, make: Callable[..., Any], options: Collection[str]) -> None:
    """Raise ``UnknownOptionError`` for options that ``make`` does not take."""
    known = known_options(make)
    if problems := [unknown("option", name, known) for name in options if name not in known]:
        raise UnknownOptionError(f"{what}: {'; '.join(problems)}")


def make_module(
    what: str, table: Mapping[str, Callable[..., nn.Module]], value: Any, channels: int, options: Mapping[str, Any]
) -> nn.Module:
    """Return the module of that name or class for features of so many channels; a module that is made stays itself.

    Raises:
        ValueError: an unknown name, options for a module that is made, or one made for another number of channels.
        UnknownOptionError: an option that the named one does not have. TypeError: neither name, class nor module.
    """
    if isinstance(value, nn.Module):
        own = next((getattr(value, n) for n in ("in_channels", "channels") if hasattr(value, n)), channels)
        if own != channels:
            name = type(value).__name__
            raise ValueError(f"the {what} {name} was made for {own} channels, the features have {channels}")
        if others := sorted(set(options) - {"device", "dtype"}):
            raise ValueError(f"{', '.join(others)}: options of a {what} by name or class; this one is already made")
        return value.to(**options) if options else value
    if isinstance(value, str):
        if value not in table:
            raise ValueError(unknown(what, value, table))
        check_options(f"{what} {value!r}", table[value], options)
        return table[value](channels, **options)
    if not callable(value):
        raise TypeError(f"a {what} is a name, a class or a module, got {type(value).__name__}: {value!r}")
    return value(channels, **options)


def check_positive(name: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a positive integer, of Python or NumPy."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_parts(name: str, count: int, channels: int) -> None:
    """Raise ``ValueError`` unless the channels can be cut into ``count`` equal parts."""
    check_positive(name, count)
    if channels % count:
        raise ValueError(f"{name} must divide the channels, but {channels} channels make no {count} equal parts")


def check_known(what: str, value: object, known: Collection[Any]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of those that are known."""
    if value not in known:
        raise ValueError(unknown(what, value, [name for name in known if isinstance(name, str)]))
