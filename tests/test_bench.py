import pytest

from gcplib.bench import METHODS, measure


def test_every_method_is_measured_side_by_side():
    rows = measure((2, 6, 9), rounds=3)
    assert [row["method"] for row in rows] == list(METHODS)
    for row in rows:
        assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
        assert row["rounds"] == 3


def test_slow_methods_are_timed_once():
    assert {row["rounds"] for row in measure((2, 6, 9), rounds=3, slow=0.0)} == {1}


def test_help_runs(capsys, monkeypatch):
    import gcplib.bench

    monkeypatch.setattr("sys.argv", ["bench", "--rounds", "0"])
    with pytest.raises(SystemExit):
        gcplib.bench.main()
    assert "must be at least 1" in capsys.readouterr().err
