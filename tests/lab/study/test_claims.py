import json
import math
import re

import pytest

from gcplib.lab.files import project_root
from gcplib.lab.study import Evidence, claims_table, record, verdict
from gcplib.lab.study.claims import claims, forget_claims


def evidence(low, high, **options):
    return Evidence("an effect", effect=(low + high) / 2, low=low, high=high, n=3, **options)


def test_there_are_31_claims_in_order():
    assert list(claims()) == [f"C{number:02d}" for number in range(1, 32)]
    assert all(claim.source and claim.text for claim in claims().values())


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(1, 2)], "holds"),
        ([(1, 2), (0.1, 3)], "holds"),
        ([(1, 2), (-1, 3)], "holds in part"),
        ([(0, 2)], "undecided here"),
        ([(-25, 35), (-2, 0)], "undecided here"),
        ([(-1, 3), (-2, -1)], "does not hold here"),
    ],
)
def test_the_verdict_follows_from_the_intervals(intervals, expected):
    assert verdict([evidence(*interval) for interval in intervals]) == expected


@pytest.mark.parametrize("change", [{"effect": math.nan}, {"low": 5}, {"high": 0}, {"n": 0}, {"n": 1.5}])
def test_impossible_evidence_is_refused(change):
    with pytest.raises(ValueError, match="evidence 'x'"):
        Evidence(**({"name": "x", "effect": 1, "low": 0.5, "high": 2, "n": 3} | change))


def test_numbers_are_shown_as_precisely_as_their_interval():
    assert str(Evidence("gain", 19.23, 17.41, 21.04, n=5)) == "gain: +19.2 points [17.4, 21.0], n = 5"
    assert str(Evidence("gain", -0.01, -0.02, 0.003, n=5, unit="s")) == "gain: −0.010 s [−0.020, 0.003], n = 5"


def test_a_record_is_written_with_its_provenance(world):
    table = record("C02", [evidence(1, 2), evidence(-1, 3)], notebook="01_x", profile="smoke", data="toy", note="why")
    assert list(table["verdict"]) == ["holds in part"] * 2
    document = json.loads(world.runs("smoke", "claims", "C02-01_x.json").read_text())
    assert (document["data"], document["note"], document["by"]) == ("toy", "why", "hand")
    assert document["machine"]["cores"] >= 1
    assert "python" in document["machine"]["versions"]


def test_the_table_has_every_claim_and_merges_notebooks(world):
    record("C01", evidence(1, 2), notebook="a", profile="smoke", data="toy")
    record("C01", Evidence("b", 0, -1, 1, n=7), notebook="b", profile="smoke", data="toy")
    table = claims_table("smoke").set_index("id")
    assert len(table) == 31
    row = table.loc["C01"]
    assert (row["verdict"], row["seeds"], row["data"], row["notebooks"]) == ("holds in part", "3 to 7", "toy", "a, b")
    assert row["evidence"].splitlines()[1] == "b: +0.0 points [−1.0, 1.0], n = 7"
    assert table.loc["C31", "verdict"] == "not tested"
    forget_claims("smoke", "b")
    assert claims_table("smoke").set_index("id").loc["C01", "verdict"] == "holds"


def test_an_unknown_claim_or_no_evidence_is_refused(world):
    with pytest.raises(ValueError, match=r"no claim 'C99'; the claims are C01, .*C31"):
        record("C99", evidence(1, 2), notebook="a", profile="smoke", data="toy")
    with pytest.raises(ValueError, match="at least one Evidence"):
        record("C01", [], notebook="a", profile="smoke", data="toy")
    with pytest.raises(ValueError, match="plain name"):
        record("C01", evidence(1, 2), notebook="../a", profile="smoke", data="toy")
    assert not world.runs().exists()


def test_what_a_claim_takes_are_the_notebooks_that_record_it():
    """Of the real notebooks: each claim is recorded by some, and the list names all of them."""
    sources = {path.stem: path.read_text() for path in (project_root() / "notebooks").glob("*.ipynb")}
    for claim in claims().values():
        recording = {name for name, text in sources.items() if f'\\"{claim.id}\\"' in text}
        assert recording
        assert set(re.findall(r"\d\d_\w+", claim.takes)) == recording, claim.id
