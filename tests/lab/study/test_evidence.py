import json

import pytest

from gcplib.lab.study import Evidence, record
from gcplib.lab.study.evidence import BEGIN, END, FIGURE, keep_evidence


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GCPLIB_STUDY", "1")
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nformer verdicts\n{END}\nafter\n")
    return tmp_path


def _measure(place, effect=2.0):
    record("C01", Evidence("gain", effect, effect - 1, effect + 1, 3), notebook="07_x", profile="tiny", data="Data")
    figure = place / "runs" / "tiny" / "report" / "figures" / FIGURE
    figure.parent.mkdir(parents=True, exist_ok=True)
    figure.write_bytes(b"png")


def test_verdicts_figure_and_readme_are_kept_and_renewed(place):
    for effect, verdict in ((2.0, "**holds**"), (0.5, "**undecided here**"), (-2.0, "**does not hold here**")):
        _measure(place, effect)
        keep_evidence("tiny")
        text = (place / "README.md").read_text()
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "former verdicts" not in text
        assert verdict in text
        assert f"gain: **{effect:+}** points".replace("-", "\N{MINUS SIGN}") in text
        assert "| C31" in text
        assert "| **not tested**: a test takes 12_look_from_coarse_to_fine |  |" in text
    assert (place / "data" / "evidence" / "accuracy.png").read_bytes() == b"png"
    (kept,) = json.loads((place / "data" / "evidence" / "tiny_verdicts.json").read_text())
    assert kept["machine"]["cores"] >= 1


def test_nothing_is_kept_of_a_study_that_has_not_run_or_ran_by_hand(place, monkeypatch):
    with pytest.raises(FileNotFoundError, match="run it first"):
        keep_evidence("tiny")
    monkeypatch.delenv("GCPLIB_STUDY")
    _measure(place)
    with pytest.raises(ValueError, match="ran by hand"):
        keep_evidence("tiny")


def test_verdicts_of_many_seeds_stand_beside_those_of_the_study(place):
    _measure(place, -2.0)
    record("C02", Evidence("more", 5.0, 4.0, 6.0, 9), notebook="07_x", profile="evidence", data="Data")
    (kept,) = keep_evidence("evidence")
    assert kept.name == "evidence_verdicts.json"
    assert "former verdicts" in (place / "README.md").read_text()
    keep_evidence("tiny")
    text = (place / "README.md").read_text()
    first, second = (line for line in text.splitlines() if line.startswith(("| C01", "| C02")))
    assert "**does not hold here**" in first
    assert first.endswith("|  |")
    assert "**not tested**" in second
    assert second.endswith("more: **+5.0** points [4.0, 6.0], n = 9<br>On Data</details> |")
    assert "Profile `tiny`: " in text
    assert "Profile `evidence`: " in text
