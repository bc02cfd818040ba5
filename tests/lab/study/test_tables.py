import pandas as pd
import pytest

from gcplib.lab.study import (
    Evidence,
    effects_table,
    evidence_by_images,
    evidence_table,
    kept_effects,
    record,
    save_table,
)
from gcplib.lab.study.keep import BEGIN, END, keep_evidence
from gcplib.lab.study.tables import keep_tables
from gcplib.lab.study.verdicts import claims

FRAME = pd.DataFrame({"seed": [0, 1], "accuracy": [71.5, None], "keep": ["top(16)", "band(16, 32)"]})


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path


def test_a_kept_table_is_read_back_with_its_origin(place, capsys):
    assert evidence_table("truncation") is None
    assert "No evidence kept yet" in capsys.readouterr().out
    saved = save_table(FRAME, "truncation", profile="photographs")
    assert saved == place / "runs" / "photographs" / "tables" / "truncation.csv"
    assert keep_tables("photographs") == [place / "data" / "evidence" / "truncation@typefaces.csv"]
    table = evidence_table("truncation")
    pd.testing.assert_frame_equal(table[list(FRAME)], FRAME)
    assert set(table["profile"]) == {"photographs"}
    assert table["machine"].str.contains("cores").all()
    out = capsys.readouterr().out
    assert out.count("Evidence: truncation@typefaces.csv, profile photographs") == 1


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


def test_kept_effects_are_the_primary_ones_with_their_verdict():
    table = kept_effects("C16", "C19").data
    assert set(table.claim) == {"C16", "C19"}
    for row in table.itertuples():
        assert claims()[row.claim].is_primary(row[3])
    assert set(table[table.claim == "C19"].verdict) == {"does not hold here"}
    assert "claim" in kept_effects("C16").to_html()


def test_claims_without_kept_effects_have_no_rows():
    assert len(kept_effects("C32").data) == 0
    with pytest.raises(ValueError, match="unknown claim 'C99'"):
        kept_effects("C99")


def test_effects_are_rounded_to_what_the_interval_tells(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path))
    items = [Evidence("accuracy: orthogonal minus kaiming, with the path", 1.776357e-15, -1.23456, 1.23456, 4)]
    items.append(Evidence("something else with quite a long name that no table may cut in its middle", 2, 1, 3, 4))
    table = effects_table([record("C31", items, notebook="12_look", profile="smoke", data="none")]).data
    assert table["mean"].tolist() == ["+0.0", "+2.0"]
    assert table["95 % interval"].tolist() == ["[−1.2, 1.2]", "[1.0, 3.0]"]
    assert table.role.tolist() == ["primary", "secondary"]
    assert table.effect[1] == items[1].name


def test_tables_of_the_protocol_are_told_apart_by_their_images(place, capsys):
    assert evidence_by_images("stages") is None
    for number, profile in enumerate(("photographs", "photographs-birds")):
        save_table(FRAME.assign(number=number), "stages", profile=profile)
        keep_tables(profile)
    kept = place / "data" / "evidence"
    assert sorted(path.name for path in kept.iterdir()) == ["stages@birds.csv", "stages@typefaces.csv"]
    table = evidence_by_images("stages")
    assert dict(zip(table.images, table.number, strict=True)) == {"birds": 1, "typefaces": 0}
    assert "Evidence: stages@birds.csv, profile photographs-birds" in capsys.readouterr().out
    # What is of one set of images does not stand for another.
    assert set(evidence_table("stages").number) == {0}
    (kept / "stages@typefaces.csv").unlink()
    assert evidence_table("stages") is None


def test_kept_effects_are_those_of_the_protocol(place, monkeypatch):
    monkeypatch.setenv("GCPLIB_STUDY", "1")
    (place / "README.md").write_text(f"{BEGIN}\n{END}\n")
    found = [Evidence("accuracy: orthogonal minus kaiming, with the path", 5.0, 4.5, 5.5, 4)]
    for profile, images in (("paper", []), ("photographs-birds", ["birds"])):
        record("C31", found, notebook="12_look", profile=profile, data="none")
        keep_evidence(profile)
        table = kept_effects("C31").data
        assert table.images.tolist() == images
        assert table["mean"].tolist() == ["+5.0"] * len(images)
