"""Running a notebook: papermill puts its parameters in, nbclient runs it, and what became of it is written down."""

from __future__ import annotations

import datetime
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from gcplib.lab.files import read_json, write_atomic, write_json
from gcplib.lab.machine import describe_machine
from gcplib.lab.study.claims import forget_claims

__all__ = ["execute"]

KERNEL_STARTS = 3


class _Client(NotebookClient):
    def create_kernel_manager(self) -> AsyncKernelManager:
        """Make a kernel of this Python, whatever kernels Jupyter knows of: those may lack our packages."""
        self.km = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
        return self.km

    def output(self, outs: list, msg: dict, *arguments: Any) -> Any:
        """Print what a cell prints, as it prints it."""
        if msg["msg_type"] == "stream":
            print(msg["content"]["text"], end="", flush=True)
        return super().output(outs, msg, *arguments)


def execute(
    notebook: Path,
    profile: str,
    parameters: Mapping[str, Any],
    output: Path,
    timeout: int = 3600,
    tell: Callable[..., None] = lambda where: None,
) -> Path:
    """Run a notebook; the executed copy appears at ``output`` whole, or not at all.

    Beside it, ``<name>.json`` tells status, seconds, date, parameters and machine. What this notebook recorded before
    under the profile is removed first, and so is the copy of an earlier success; one that fails is kept as
    ``<name>.failed.ipynb``. A cell may take ``timeout`` seconds, and ``tell`` is called when one begins.

    Raises:
        RuntimeError: a cell raised an error, took too long, or its kernel died.
    """
    failed, facts = output.with_suffix(".failed.ipynb"), output.with_suffix(".json")
    started, date = time.monotonic(), datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    forget_claims(profile, notebook.stem)
    output.unlink(missing_ok=True)
    failed.unlink(missing_ok=True)
    options = {"kernel_name": NATIVE_KERNEL_NAME, "language": "python"}  # a notebook without its metadata does not say
    document = parameterize_notebook(load_notebook_node(str(notebook)), dict(parameters), **options)
    failure = _run(document, notebook.parent, timeout, tell)
    seconds = round(time.monotonic() - started, 1)
    with write_atomic(failed if failure else output) as temporary:
        nbformat.write(document, temporary)
    # Half-way, it says nothing about how long the next run takes.
    entry = {"usual_seconds": read_json(facts).get("usual_seconds") if failure else seconds, "seconds": seconds}
    entry |= {"status": "failed" if failure else "ok", "failure": failure, "date": date}
    write_json(facts, entry | {"parameters": dict(parameters), "machine": describe_machine()})
    if failure:
        where = f"{output.stem} failed in cell [{failure['number']}]"
        raise RuntimeError(f"{where}: {failure['error']}\n{failure['traceback']}")
    return output


def _run(document: Any, folder: Path, timeout: int, tell: Callable[..., None]) -> dict[str, Any] | None:
    """Run the cells in place; return what went wrong, and number, id and source of the cell where it did."""
    cells, begun = document.cells, []

    def begin(cell: nbformat.NotebookNode, cell_index: int) -> None:
        begun.append(cell_index)
        tell(where=f"cell {cell_index + 1} of {len(cells)}")

    options = {"timeout": timeout, "startup_timeout": 120, "resources": {"metadata": {"path": str(folder)}}}
    for start in range(KERNEL_STARTS):
        try:
            _Client(document, on_cell_execute=begin, **options).execute()
            return None
        except Exception as caught:
            error = caught
            # Kernels that start at the same moment may choose the same port, and one of them then ends at once.
            if begun or not isinstance(error, RuntimeError) or start == KERNEL_STARTS - 1:
                break
            print(f"{error}; starting another kernel", file=sys.stderr, flush=True)
    found = {"error": f"{type(error).__name__}: {error}", "traceback": str(error)}
    if isinstance(error, CellExecutionError):
        found = {"error": f"{error.ename}: {error.evalue}", "traceback": error.traceback}
    elif isinstance(error, CellTimeoutError):
        found["error"] = f"the cell took longer than the {timeout} s that the profile allows"
    found = {key: re.sub(r"\x1b\[[0-9;]*m", "", text).strip() for key, text in found.items()}
    number = sum(cell.cell_type == "code" for cell in cells[: begun[-1] + 1]) if begun else 0
    cell = cells[begun[-1]] if begun else {"id": None, "source": ""}
    where = {"number": number, "id": cell["id"], "source": cell["source"]}
    return found | where | {"error": found["error"].split("\n")[0]}
