"""Sentences from the kept evidence, and sliders that are figures where nobody is there."""

import pandas as pd
import pytest

from gcplib.lab.course import finding, play, playing
from gcplib.lab.study.verdicts import claims


@pytest.mark.parametrize("claim", claims())
def test_every_claim_has_a_finding(claim):
    text = str(finding(claim))
    assert text.startswith(f"{claim}, {claims()[claim].text}: ")
    assert text.endswith(".")


def test_ones_own_run_is_told_apart_from_the_kept_evidence():
    for verdict, words in {
        "something else": "something else, unlike the kept evidence.",
        "too few seeds": "too few seeds.",
        "not tested: none of these is a primary effect": "not tested: none of these is a primary effect.",
    }.items():
        own = pd.DataFrame({"verdict": [verdict]})
        assert str(finding("C02", own)).endswith(f"With the numbers of this run: {words}")
    with pytest.raises(ValueError, match="unknown claim"):
        finding("C99")


def test_without_a_browser_there_is_one_figure(capsys):
    play(lambda a, b: print(a, b), a=[1, 2, 3], b="xy", still={"b": "x"})
    assert capsys.readouterr().out == "2 x\n"


def test_in_a_browser_there_are_sliders(monkeypatch):
    shown = []
    monkeypatch.setenv("JPY_SESSION_NAME", "learner.ipynb")
    monkeypatch.setattr("IPython.display.display", shown.append)
    play(lambda power: None, power=[0, 0.5, 1])
    (slider,) = [child for child in shown[0].children if hasattr(child, "options")]
    assert playing.someone_is_there()
    assert (slider.description, slider.value, list(slider.options)) == ("power", 0.5, [0, 0.5, 1])


def test_sliders_refuse_values_that_they_do_not_have():
    with pytest.raises(ValueError, match="is none of"):
        play(print, a=[1, 2], still={"a": 3})
    with pytest.raises(ValueError, match="at least one value"):
        play(print, a=[])
    with pytest.raises(ValueError, match="at least one value"):
        play(print)


def test_a_claim_that_the_protocol_does_not_test_has_what_a_study_says(monkeypatch):
    monkeypatch.setattr("gcplib.lab.course.findings.records_by_images", dict)
    assert "**holds in part** on typefaces, few seeds" in finding("C10").text
