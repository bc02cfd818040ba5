import json

import pytest

from gcplib.lab.study import Evidence, record
from gcplib.lab.study.accuracies import accuracies
from gcplib.lab.study.evidence import kept_records
from gcplib.lab.study.evidence_pages import HEADLINES, readme_lines, verdicts_page
from gcplib.lab.study.keep import BEGIN, END, FIGURE, keep_evidence

NAME = "dropcov minus exact root plus one point, fine labels"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GCPLIB_STUDY", "1")
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nformer verdicts\n{END}\nafter\n")
    return tmp_path


def _measure(place, effect=2.0, profile="study", notebook="01_x"):
    found = [Evidence(NAME, effect, effect - 1, effect + 1, 3), Evidence("something else", 9.0, 8.0, 10.0, 3)]
    record("C34", found, notebook=notebook, profile=profile, data="Data", note="a note")
    figure = place / "runs" / profile / "report" / "_images" / FIGURE
    figure.parent.mkdir(parents=True, exist_ok=True)
    figure.write_bytes(b"png")


def test_verdicts_figure_page_and_three_lines_are_kept_and_renewed(place):
    for effect, verdict in ((5.0, "holds"), (0.5, "undecided here"), (-5.0, "does not hold here")):
        _measure(place, effect)
        written = keep_evidence("study")
        names = ["study_verdicts.json", "accuracy.png", "verdicts.md", "README.md"]
        assert [path.name for path in written] == names
        text = (place / "README.md").read_text()
        assert text == f"before\n{BEGIN}\n{readme_lines()}\n{END}\nafter\n"
        assert readme_lines().splitlines()[0].startswith("* `study`: of 36 claims, 1 ")
        page = (place / "docs" / "verdicts.md").read_text()
        assert page == verdicts_page()
        assert f"`study`: **{verdict}**, on Data." in page
        amount = f"{effect:+}".replace("-", "\N{MINUS SIGN}")
        assert f"| {NAME} | **primary** | {amount} points |" in page
        assert "| something else |  | +9.0 points | [8.0, 10.0] | 3 |  |" in page
        assert "* 01_x: a note." in page
        assert "| [C34](#c34) |" in page
        assert "| [C31](claims.md#c31) |" in page
    assert (place / "data" / "evidence" / "accuracy.png").read_bytes() == b"png"
    (kept,) = kept_records("study")
    assert kept["machine"]["cores"] >= 1


def test_nothing_is_kept_of_a_study_that_has_not_run_or_ran_by_hand(place, monkeypatch):
    with pytest.raises(FileNotFoundError, match="run it first"):
        keep_evidence("study")
    monkeypatch.delenv("GCPLIB_STUDY")
    _measure(place)
    with pytest.raises(ValueError, match="ran by hand"):
        keep_evidence("study")
    assert not (place / "data").exists()


def test_nothing_is_kept_where_it_cannot_be_shown(place):
    _measure(place)
    (place / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match="must hold the lines"):
        keep_evidence("study")
    assert not (place / "data").exists()


def test_what_other_notebooks_have_found_before_stays(place):
    _measure(place, notebook="02_y")
    _measure(place)
    keep_evidence("study")
    for path in (place / "runs" / "study" / "claims").iterdir():
        path.unlink()
    _measure(place, 7.0)  # alone, as in a new checkout
    keep_evidence("study")
    found = {entry["notebook"]: entry["evidence"][0]["effect"] for entry in kept_records("study")}
    assert found == {"01_x": 7.0, "02_y": 2.0}


def test_other_profiles_have_a_column_of_their_own_and_no_figure(place):
    _measure(place, -5.0)
    keep_evidence("study")
    _measure(place, 5.0, "paper")
    assert "accuracy.png" not in [path.name for path in keep_evidence("paper")]
    page = (place / "docs" / "verdicts.md").read_text()
    assert "| claim |  | `paper` | `study` |" in page
    _, line = (line for line in page.splitlines() if line.startswith("| [C34]"))
    assert line.endswith("| holds | does not hold here |")
    assert "* `study`: " in page
    assert "* `paper`: " in page
    assert json.loads((place / "data" / "evidence" / "paper_verdicts.json").read_text())
    assert len(readme_lines().splitlines()) == 2


def test_the_protocol_has_a_column_for_each_set_of_images(place):
    for profile, effect in (("photographs-birds", 5.0), ("photographs", -5.0), ("photographs-plants", 5.0)):
        _measure(place, effect, profile)
        keep_evidence(profile)
    (place / "data" / "evidence" / "before_protocol.csv").write_text("claim,verdict\nC34,undecided here\n")
    page = verdicts_page()
    head = "| claim |  | typefaces | birds | cars | groceries | scenes | plants | holds on | before |"
    (line, *_) = (line for line in page.splitlines() if line.startswith("| [C34]"))
    assert head in page
    verdicts = ["does not hold here", "holds", "not run", "not run", "", "holds", "2 of 3", "undecided here"]
    assert line.split(" | ")[2:] == [*verdicts[:-1], f"{verdicts[-1]} |"]
    again = (
        "* cars: `python -m gcplib study --profile photographs --data cars=PATH --only 01_pool_second_order 04_watch_"
    )
    assert again in page
    assert "* plants: " not in page
    counts = "| of 36 claims: holds / holds in part / undecided here / does not hold here |"
    assert f"\n{counts} 0 / 0 / 0 / 1 | 1 / 0 / 0 / 0 | 1 / 0 / 0 / 0 |\n" in readme_lines()


def test_the_readme_shows_the_headline_effects_of_each_set_of_images(place):
    words, claim, name = HEADLINES[-1]
    found = [Evidence(name, -1.0, -2.0, -0.5, 5), Evidence("another", 9.0, 8.0, 10.0, 5)]
    record(claim, found, notebook="07_x", profile="photographs-birds", data="Data")
    keep_evidence("photographs-birds")
    assert f"\n| {words} | \N{MINUS SIGN}1.0 [\N{MINUS SIGN}2.0, \N{MINUS SIGN}0.5] |\n" in readme_lines()
    assert f"\n| {HEADLINES[0][0]} | not run |\n" in readme_lines()


def test_what_was_recorded_by_another_protocol_is_not_counted(place):
    _measure(place, 5.0, "photographs-birds")
    keep_evidence("photographs-birds")
    path = place / "data" / "evidence" / "photographs-birds_verdicts.json"
    path.write_text(path.read_text().replace('"protocol": 1', '"protocol": 0'))
    (line, *_) = (line for line in verdicts_page().splitlines() if line.startswith("| [C34]"))
    assert "holds" not in line.replace("holds on", "")


def test_what_probes_read_stands_in_one_table(place):
    folder = place / "data" / "evidence"
    folder.mkdir(parents=True)
    head = "probe,what,width,features,accuracy,low,high,order"
    narrow = '"root, 8 channels",root,8,stride16,99,98,100,2'
    wide = '"root, 64 channels",root,64,stride16,86.21,83.2,89.2,2'
    (folder / "probes@cars.csv").write_text(f"{head}\n{wide}\n{narrow}\nown average,own average,0,own,72,68,76,1\n")
    gaussian = '"Gaussian, 64 channels",Gaussian,64,stride32,92,91,93,2'
    (folder / "probes@birds.csv").write_text(f"{head}\nown average,own average,0,own,90,89,91,1\n{gaussian}\n")
    lines = accuracies(folder, ["birds", "cars", "scenes"])[-1].splitlines()
    assert lines == [
        "| probe | of | birds | cars |",
        "|---|---|---|---|",
        "| own average | own | **90.0 [89.0, 91.0]** | **72.0 [68.0, 76.0]** |",
        "| Gaussian | stride 32 | **92.0 [91.0, 93.0]** |  |",
        "| root | stride 16 |  | **86.2 [83.2, 89.2]** |",
    ]
    assert accuracies(place, ["birds"]) == []
