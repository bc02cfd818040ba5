"""Tables of effects to read: nothing cut, no more decimals than the interval can tell apart."""

import pytest

from gcplib.lab.study import Evidence, effects_table, kept_effects, record
from gcplib.lab.study.verdicts import claims


def test_kept_effects_are_the_primary_ones_with_their_verdict():
    table = kept_effects("C24", "C31").data
    assert set(table.claim) == {"C24", "C31"}
    for row in table.itertuples():
        assert claims()[row.claim].is_primary(row[2])
    assert set(table[table.claim == "C31"].verdict) == {"does not hold here"}
    assert "claim" in kept_effects("C24").to_html()


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
