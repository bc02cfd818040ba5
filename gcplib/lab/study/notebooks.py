"""Notebooks as programs: where they are, whether they can run, and running one with papermill."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gcplib.lab.files import project_root, write_atomic
from gcplib.lab.machine import describe_machine
from gcplib.lab.study.claims import forget_claims

__all__ = ["NotebookFailed", "check_kernel", "discover", "execute", "failing_cell", "notebook_text", "notebooks_dir"]

KERNEL = "python3"
KERNEL_STARTS = 3
INSTALL_KERNEL = "python -m ipykernel install --sys-prefix --name python3"


class NotebookFailed(RuntimeError):
    """A notebook stopped with an error; ``failure`` says in which cell (see :func:`failing_cell`)."""

    def __init__(self, name: str, failure: dict) -> None:
        super().__init__(f"{name} failed in cell [{failure['number']}]: {failure['error']}")
        self.failure = failure


def notebooks_dir() -> Path:
    """Return the folder of notebooks, profiles and Snakefile (override: ``GCPLIB_NOTEBOOKS``)."""
    return Path(os.environ.get("GCPLIB_NOTEBOOKS") or project_root() / "notebooks").expanduser().resolve()


def discover() -> dict[str, Path]:
    """Return every notebook, by name without ``.ipynb``."""
    return {path.stem: path for path in sorted(notebooks_dir().glob("*.ipynb"))}


def notebook_text(path: Path) -> list:
    """Return what matters in a notebook: type, tags and text of its cells, without outputs and execution counts."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [[cell["cell_type"], cell["metadata"].get("tags", []), "".join(cell["source"])] for cell in cells]


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
    program = spec.argv[0]
    # A bare "python" is replaced by this very interpreter; a full path to another one runs without our packages.
    if os.path.isabs(program) and _folder(program) != _folder(sys.executable):
        raise ValueError(
            f"the Jupyter kernel {KERNEL!r} ({spec.resource_dir}) starts {program}, but this is {sys.executable}; "
            f"install this one with: {INSTALL_KERNEL}"
        )


def _folder(program: str) -> str:
    return os.path.realpath(os.path.dirname(program))


def execute(
    notebook: str | Path,
    profile: str,
    parameters: Mapping[str, Any],
    output: str | Path,
    *,
    timeout: int = 3600,
    progress_bar: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Run a notebook headlessly with papermill; the executed copy appears at ``output`` whole, or not at all.

    Beside it, ``<name>.json`` tells status, seconds, date, parameters and machine. A notebook that fails is kept as
    ``<name>.failed.ipynb``, and the copy of an earlier success is removed: nothing stale is shown as current.

    Args:
        notebook: the notebook's file.
        profile: name of the profile; the claims that this notebook recorded under it are removed first.
        parameters: values for the parameters cell, already checked.
        output: where the executed copy goes.
        timeout: seconds that one cell may take.
        progress_bar: show papermill's own bar.
        extra: further entries for the ``.json``.

    Raises:
        NotebookFailed: a cell raised an error, took too long, or its kernel died.
    """
    notebook, output = Path(notebook), Path(output)
    failed, facts = output.with_suffix(".failed.ipynb"), output.with_suffix(".json")
    started, before = time.monotonic(), _read_json(facts)
    entry = {
        "name": output.stem,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "parameters": dict(parameters),
        "machine": describe_machine(),
        **(extra or {}),
    }
    forget_claims(profile, notebook.stem)
    output.unlink(missing_ok=True)
    failed.unlink(missing_ok=True)
    failure = None
    with contextlib.suppress(_Kept), write_atomic(output) as temporary:
        try:
            _execute(
                notebook,
                temporary,
                parameters=dict(parameters),
                kernel_name=KERNEL,
                language="python",  # a notebook stripped of its metadata does not say
                progress_bar=progress_bar,
                log_output=True,
                start_timeout=120,
                execution_timeout=timeout,
                cwd=str(notebook.parent),
            )
        except Exception as error:
            failure = failing_cell(temporary, error)
            if failure["error"].startswith("KeyboardInterrupt"):  # how nbclient ends a cell that takes too long
                failure["error"] = f"the cell took longer than the {timeout} s that the profile allows"
            if temporary.stat().st_size:
                os.replace(temporary, failed)
            raise _Kept from error
    seconds = round(time.monotonic() - started, 1)
    entry |= {"status": "failed" if failure else "ok", "seconds": seconds, "failure": failure}
    # The next run's estimate; a failure half-way must not make it too short.
    entry["usual_seconds"] = (before or {}).get("usual_seconds") if failure else seconds
    with write_atomic(facts) as temporary:
        temporary.write_text(json.dumps(entry, indent=1, default=str) + "\n", encoding="utf-8")
    if failure:
        raise NotebookFailed(output.stem, failure)
    return output


def _execute(*arguments: Any, **options: Any) -> None:
    """Run papermill; a kernel that dies before it has begun is started again.

    Kernels that start at the same moment may choose the same port, and one of them then ends at once.
    """
    import papermill

    for start in range(1, KERNEL_STARTS + 1):
        try:
            papermill.execute_notebook(*arguments, **options)
            return
        except RuntimeError as error:
            if "before replying to kernel_info" not in str(error) or start == KERNEL_STARTS:
                raise
            print(f"{error}; starting another one", file=sys.stderr, flush=True)


class _Kept(Exception):
    """Leaves the block of write_atomic after the unfinished copy was moved away."""


def failing_cell(path: Path, error: BaseException) -> dict:
    """Return number, id, source and error of the cell at which an executed notebook stopped (0 if none had begun)."""
    found = {"number": 0, "id": None, "source": "", "error": _last_line(str(error)) or type(error).__name__}
    found["traceback"] = str(error)
    for number, cell in enumerate(_code_cells(path), start=1):
        if not cell["metadata"].get("papermill", {}).get("start_time"):  # papermill calls these completed, too
            break
        # If no cell shows an error, as when the kernel died, it is the last one that was begun.
        found |= {"number": number, "id": cell.get("id"), "source": "".join(cell["source"])}
        if errors := [output for output in cell["outputs"] if output["output_type"] == "error"]:
            found["error"] = f"{errors[0]['ename']}: {errors[0]['evalue']}".strip().splitlines()[0]
            found["traceback"] = _plain("\n".join(errors[0]["traceback"]))
            break
    return found


def _code_cells(path: Path) -> Iterator[dict]:
    document = _read_json(path) or {"cells": []}
    yield from (cell for cell in document["cells"] if cell["cell_type"] == "code")


def _last_line(text: str) -> str:
    lines = [line for line in _plain(text).splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _read_json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
