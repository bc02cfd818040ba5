"""Running a notebook: papermill puts its parameters in, nbclient runs it, and what became of it is written down."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from gcplib.lab.files import write_atomic
from gcplib.lab.machine import describe_machine
from gcplib.lab.study.claims import forget_claims
from gcplib.lab.study.notebooks import KERNEL

__all__ = ["NotebookFailed", "execute"]

KERNEL_STARTS = 3


class NotebookFailed(RuntimeError):
    """A notebook stopped with an error; ``failure`` has number, id and source of the cell, error and traceback."""

    def __init__(self, name: str, failure: dict) -> None:
        super().__init__(f"{name} failed in cell [{failure['number']}]: {failure['error']}")
        self.failure = failure


class _Client(NotebookClient):
    """Prints what cells print, as they print it."""

    def output(self, *arguments: Any) -> Any:
        """Keep one output of a cell."""
        if (found := super().output(*arguments)) and found.output_type == "stream":
            print(arguments[1]["content"]["text"], end="", flush=True)
        return found


def execute(
    notebook: Path,
    profile: str,
    parameters: Mapping[str, Any],
    output: Path,
    *,
    timeout: int = 3600,
    tell: Callable[..., None] = lambda where: None,
) -> Path:
    """Run a notebook; the executed copy appears at ``output`` whole, or not at all.

    Beside it, ``<name>.json`` tells status, seconds, date, parameters and machine. A notebook that fails is kept as
    ``<name>.failed.ipynb``, and the copy of an earlier success is removed: nothing stale is shown as current.

    Args:
        notebook: the notebook's file.
        profile: name of the profile; the claims that this notebook recorded under it are removed first.
        parameters: values for the parameters cell, already checked.
        output: where the executed copy goes.
        timeout: seconds that one cell may take.
        tell: called with the position when a cell begins.

    Raises:
        NotebookFailed: a cell raised an error, took too long, or its kernel died.
    """
    failed, facts = output.with_suffix(".failed.ipynb"), output.with_suffix(".json")
    started, date = time.monotonic(), datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    forget_claims(profile, notebook.stem)
    output.unlink(missing_ok=True)
    failed.unlink(missing_ok=True)
    document = load_notebook_node(str(notebook))
    document = parameterize_notebook(document, dict(parameters), kernel_name=KERNEL, language="python")
    failure = _run(document, notebook.parent, timeout, tell)
    seconds = round(time.monotonic() - started, 1)
    with write_atomic(failed if failure else output) as temporary:
        nbformat.write(document, temporary)
    usual = seconds
    if failure:  # half-way, it says nothing about how long the next run takes
        with contextlib.suppress(OSError, ValueError):
            usual = json.loads(facts.read_text(encoding="utf-8")).get("usual_seconds")
    entry = {"status": "failed" if failure else "ok", "date": date, "seconds": seconds, "usual_seconds": usual}
    entry |= {"failure": failure, "parameters": dict(parameters), "machine": describe_machine()}
    with write_atomic(facts) as temporary:
        temporary.write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    if failure:
        raise NotebookFailed(output.stem, failure)
    return output


def _run(document: nbformat.NotebookNode, folder: Path, timeout: int, tell: Callable[..., None]) -> dict | None:
    """Run the cells in place, and return what went wrong, and where."""
    begun: list[int] = []

    def begin(cell: nbformat.NotebookNode, cell_index: int) -> None:
        begun.append(cell_index)
        tell(where=f"cell {cell_index + 1} of {len(document.cells)}")

    where = {"metadata": {"path": str(folder)}}
    for start in range(1, KERNEL_STARTS + 1):
        options = {"timeout": timeout, "startup_timeout": 120, "resources": where, "on_cell_execute": begin}
        try:
            _Client(document, kernel_name=KERNEL, **options).execute()
        except Exception as error:
            # Kernels that start at the same moment may choose the same port, and one of them then ends at once.
            if isinstance(error, RuntimeError) and not begun and start < KERNEL_STARTS:
                print(f"{error}; starting another kernel", file=sys.stderr, flush=True)
                continue
            cell = document.cells[begun[-1]] if begun else {"id": None, "source": ""}
            number = sum(c.cell_type == "code" for c in document.cells[: begun[-1] + 1]) if begun else 0
            return {"number": number, "id": cell["id"], "source": cell["source"]} | _told(error, timeout)
        return None
    raise AssertionError("the last start returns")


def _told(error: Exception, timeout: int) -> dict[str, str]:
    text = {"error": f"{type(error).__name__}: {error}", "traceback": str(error)}
    if isinstance(error, CellExecutionError):
        text = {"error": f"{error.ename}: {error.evalue}", "traceback": error.traceback}
    elif isinstance(error, CellTimeoutError):
        text["error"] = f"the cell took longer than the {timeout} s that the profile allows"
    plain = {key: re.sub(r"\x1b\[[0-9;]*m", "", value).strip() for key, value in text.items()}
    return plain | {"error": plain["error"].split("\n")[0]}
