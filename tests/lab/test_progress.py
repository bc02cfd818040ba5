"""What progress bars show, and leave behind."""

import sys
import types

import nbformat
import pytest
from nbclient import NotebookClient

from gcplib.lab import progress
from gcplib.lab.progress import track


@pytest.fixture
def bars(monkeypatch):
    """Every bar by name: whether it is shown, and whether it stays."""
    found = {}

    class Bar(list):
        def __init__(self, items, desc, disable, leave, **options):
            super().__init__(items)
            found[desc] = not disable, leave

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.delenv("GCPLIB_PROGRESS", raising=False)
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    monkeypatch.setattr(progress, "_depth", 0)  # whatever other tests have left open
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    return found


@pytest.mark.parametrize("notebook", [True, False])
def test_a_notebook_has_one_bar_at_a_time_and_keeps_none(notebook, bars, monkeypatch):
    shell = types.SimpleNamespace(kernel="ours") if notebook else None
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert [list(track("ab", f"inner {i}")) for i in track(range(2), "outer")] == [["a", "b"]] * 2
    assert bars == {"outer": (True, not notebook), "inner 0": (not notebook, False), "inner 1": (not notebook, False)}


def test_a_kernel_leaves_no_widget_of_a_bar_that_is_done(monkeypatch):
    monkeypatch.delenv("GCPLIB_PROGRESS", raising=False)
    cells = ["from gcplib.lab.progress import track", "print(list(track(range(3), 'bar')))"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120).execute()
    bar, printed = notebook.cells[1].outputs
    assert bar["output_type"] == "display_data", "the bar was shown"
    assert bar["data"] == {"text/plain": ""}
    assert printed["text"] == "[0, 1, 2]\n"


def test_a_bar_that_an_error_keeps_open_hides_none_of_the_next_cell(bars, monkeypatch):
    shell = types.SimpleNamespace(kernel="ours", execution_count=1)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    interrupted = track("ab", "interrupted")
    next(interrupted)
    shell.execution_count = 2
    assert list(track("ab", "next")) == ["a", "b"]
    interrupted.close()
    assert list(track("ab", "last")) == ["a", "b"]
    assert bars["next"] == bars["last"] == (True, False)


def test_a_bar_of_one_item_is_left_out(bars):
    assert [list(track("ab", "inner")) for _ in track(iter([0]), "outer", total=1)] == [["a", "b"]]
    assert list(track([3], "another")) == [3]
    assert list(bars) == ["inner"]
