"""Run somebody's function with a time limit, so that a loop without an end costs seconds and not a kernel."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["TooLong", "within"]


class TooLong(BaseException):
    """Raised inside a function whose time is over; not an ``Exception``, so that a bare ``except`` lets it through."""


def within(seconds: float, function: Callable[..., Any], *args: Any) -> Any:
    """Return ``function(*args)``, run in a thread of its own.

    A loop in Python is ended. A single call that never comes back, such as a very large product, is left behind: its
    thread cannot be ended, and dies with the process.

    Raises:
        TimeoutError: it took longer than ``seconds``.
        BaseException: whatever the function raises.

    >>> within(1.0, sum, [1, 2])
    3
    """
    found: list[Any] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            found.append(function(*args))
        except BaseException as error:  # handed on to the caller
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TooLong))
        thread.join(1.0)
        raise TimeoutError(f"no answer within {seconds:g} s")
    if raised:
        raise raised[0]
    return found[0]
