"""What progress bars leave behind."""

import sys
import types

import pytest

from gcplib.lab.progress import track


@pytest.mark.parametrize("notebook", [True, False])
def test_a_bar_goes_when_it_is_done_but_for_the_outermost_of_a_terminal(notebook, monkeypatch):
    kept = {}

    class Bar(list):
        def __init__(self, items, desc, leave, **options):
            super().__init__(items)
            kept[desc] = leave

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    assert [list(track("ab", f"inner {i}")) for i in track(range(2), "outer")] == [["a", "b"]] * 2
    assert kept == {"outer": not notebook, "inner 0": False, "inner 1": False}
