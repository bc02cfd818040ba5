"""Tasks of the course: compare what a learner wrote with a solution, and say what is wrong with it, in numbers."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

from gcplib.lab.course.comparing import Different, compare, described, flat, frozen
from gcplib.lab.course.limits import within

__all__ = ["Task", "Unsolved", "Wrong", "check", "tasks_of", "use_solutions"]

_GO_ON = "To read on without it, run `from gcplib.lab.course import use_solutions; use_solutions()` first."
_state = {"solutions": False}


@dataclass(frozen=True)
class Task:
    """Something to write, and how to tell whether it is right.

    Args:
        ask: what to write, in a line.
        answer: a solution, called as the learner's.
        cases: returns the arguments of each call that is compared; tensors are handed over as copies.
        run: ``run(answer, *case)`` gives what is compared: a number, tensor or array, or several of these;
            by default what the answer returns. Give one to look at gradients, or at what a class makes.
        mistakes: wrong answers by what is wrong with them, in words to the learner ("the mean is not removed").
            An answer that does the same is told so.
        alternatives: right answers that are written otherwise, for tests.
        tolerance: of the largest difference, over the largest entry of the solution.
        seconds: for all cases together.
    """

    ask: str
    answer: Callable[..., Any]
    cases: Callable[[], Iterable[tuple]]
    run: Callable[..., Any] = lambda answer, *case: answer(*case)
    mistakes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    alternatives: tuple[Callable[..., Any], ...] = ()
    tolerance: float = 1e-4
    seconds: float = 5.0


class _Told(Exception):
    """An error whose message is all that a notebook shows."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Wrong(_Told):
    """An answer that is not right; the message says why."""


class Unsolved(_Told):
    """A task whose answer is still to be written."""


def use_solutions(use: bool = True) -> None:
    """Let ``check`` put the solution in place of an answer that is missing or wrong, so that a notebook runs on.

    An assignment that is being graded takes no solutions.
    """
    _state["solutions"] = use and "NBGRADER_EXECUTION" not in os.environ
    if use:
        print("Tasks that are not solved take the solution." if _state["solutions"] else "Not while grading.")


def tasks_of(notebook: str) -> dict[str, Task]:
    """Return the tasks of a notebook, by name.

    Args:
        notebook: its number, such as ``01``.
    """
    try:
        return import_module(f"gcplib.lab.course.tasks.notebook_{notebook}").TASKS
    except ModuleNotFoundError:
        raise ValueError(f"no notebook {notebook!r} has tasks; give a number such as 01") from None


def check(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    """Return an answer that is right; say what is wrong with another.

    Args:
        name: the task, which begins with the number of its notebook, such as ``01_covariance``.
        answer: what the learner wrote, a function or class.

    Raises:
        Unsolved: it raises ``NotImplementedError``, as the unwritten one does.
        Wrong: it raises something else, takes too long, or what it returns is not right.
        ValueError: there is no such task.
    """
    tasks = tasks_of(name[:2])
    if name not in tasks:
        raise ValueError(f"there is no task {name!r}; notebook {name[:2]} has {', '.join(tasks)}")
    task, begin = tasks[name], time.perf_counter()
    try:
        compared = judge(task, answer)
    except (Unsolved, Wrong) as error:
        text = f"task {name}: {error}"
        if not _state["solutions"]:
            raise type(error)(f"{text} {_GO_ON}" if isinstance(error, Unsolved) else text) from None
        print(f"{text}\nThe solution is used from here on.")
        return task.answer
    seconds = time.perf_counter() - begin
    print(f"task {name}: right, on {compared} inputs, in {seconds:.1f} s")
    return answer


def judge(task: Task, answer: Callable[..., Any]) -> int:
    """Return on how many inputs an answer is right.

    Raises:
        Unsolved: as ``check``.
        Wrong: as ``check``.
    """
    if not callable(answer):
        raise Wrong(f"expected a function or class, got {type(answer).__name__}")
    cases = [tuple(case) for case in task.cases()]
    right = [flat(task.run(task.answer, *frozen(case))) for case in cases]
    with torch.random.fork_rng(devices=[]):  # what comes after a check must not depend on it
        found = _answers(task, answer, cases)
    for case, got, expected in zip(cases, found, right, strict=True):
        try:
            compare(got, expected, task.tolerance)
        except Different as difference:
            told = _known_mistake(task, cases, found) or str(difference)
            raise Wrong(f"{told} (for {described(case)})") from None
    return len(cases)


def _answers(task: Task, answer: Callable[..., Any], cases: list[tuple]) -> list[dict[str, Any]]:
    """Return what an answer gives for every case, in the time for all of them."""
    left, found = task.seconds, []
    for case in cases:
        given, begin = frozen(case), time.perf_counter()
        try:
            found.append(flat(within(left, task.run, answer, *given)))
        except NotImplementedError:
            raise Unsolved(f"not solved yet. {task.ask}") from None
        except TimeoutError:
            raise Wrong(f"no answer within {task.seconds:g} s (for {described(case)}); is there a loop?") from None
        except Exception as error:
            raise Wrong(f"{_where(error, answer)}{type(error).__name__}: {error} (for {described(case)})") from None
        left -= time.perf_counter() - begin
        for before, after in zip(frozen(case), given, strict=True):
            if isinstance(before, torch.Tensor) and not torch.equal(before.nan_to_num(), after.detach().nan_to_num()):
                raise Wrong(f"it changes the tensor that it is given (for {described(case)}); work on a new one")
    return found


def _known_mistake(task: Task, cases: list[tuple], found: list[dict[str, Any]]) -> str:
    """Return which of the mistakes gives the same in every case, if one does."""
    for words, wrong in task.mistakes.items():
        try:
            for case, got in zip(cases, found, strict=True):
                compare(got, flat(task.run(wrong, *frozen(case))), task.tolerance)
        except Exception:  # a mistake may fail where the answer does not
            continue
        return words
    return ""


def _where(error: Exception, answer: Callable[..., Any]) -> str:
    """Return the last line of the learner's own code that an error went through."""
    parts = vars(answer).values() if isinstance(answer, type) else [answer]
    codes = (getattr(getattr(part, "__func__", part), "__code__", None) for part in parts)
    code = next(filter(None, codes), None)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if code and frame.filename == code.co_filename]
    return f"in your line `{own[-1].line}`: " if own and own[-1].line else ""
