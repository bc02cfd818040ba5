import pandas as pd
import pytest

from gcplib.lab.study import evidence_table, save_table
from gcplib.lab.study.tables import keep_tables

FRAME = pd.DataFrame({"seed": [0, 1], "accuracy": [71.5, None], "keep": ["top(16)", "band(16, 32)"]})


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path


def test_a_kept_table_is_read_back_with_its_origin(place, capsys):
    assert evidence_table("truncation") is None
    assert "No evidence kept yet" in capsys.readouterr().out
    saved = save_table(FRAME, "truncation", profile="tiny")
    assert saved == place / "runs" / "tiny" / "tables" / "truncation.csv"
    assert keep_tables("tiny") == [place / "data" / "evidence" / "truncation.csv"]
    table = evidence_table("truncation")
    pd.testing.assert_frame_equal(table[list(FRAME)], FRAME)
    assert set(table["profile"]) == {"tiny"}
    assert table["machine"].str.contains("cores").all()
    out = capsys.readouterr().out
    assert out.count("Evidence: truncation.csv, profile tiny") == 1


def test_what_cannot_be_kept_is_refused(place):
    with pytest.raises(ValueError, match="plain name"):
        save_table(FRAME, "../x", profile="tiny")
    with pytest.raises(ValueError, match="no rows"):
        save_table(FRAME[:0], "x", profile="tiny")
    with pytest.raises(ValueError, match=r"has columns \['machine'\]"):
        save_table(FRAME.assign(machine="mine"), "x", profile="tiny")
    with pytest.raises(FileNotFoundError, match="has no tables"):
        keep_tables("tiny")
    assert not (place / "data").exists()
