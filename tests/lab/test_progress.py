"""What progress bars leave behind."""

import sys
import types

from gcplib.lab.progress import track


def test_in_a_notebook_bars_within_a_bar_go_when_they_are_done(monkeypatch):
    kept = {}

    class Bar(list):
        def __init__(self, items, desc, leave, **options):
            super().__init__(items)
            kept[desc] = leave

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    assert [list(track("ab", f"inner {i}")) for i in track(range(2), "outer")] == [["a", "b"]] * 2
    assert kept == {"outer": True, "inner 0": False, "inner 1": False}
