import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gcplib.lab.analysis import mean_interval
from gcplib.lab.files import project_root
from gcplib.lab.study import Evidence, record, verdict
from gcplib.lab.study.claims import assess_records, forget_claims, read_records
from gcplib.lab.study.evidence import IMAGES
from gcplib.lab.study.verdicts import assess, claims

# A claim with one primary effect, and one with two.
ALONE = "dropcov minus exact root plus one point, fine labels"
FIRST, SECOND = "accuracy: path minus no path", "attention: path minus no path"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("GCPLIB_STUDY", raising=False)
    return tmp_path / "runs"


def evidence(low, high, name=ALONE, n=3):
    return Evidence(name, effect=(low + high) / 2, low=low, high=high, n=n)


def test_the_claims_are_in_order_and_say_what_decides_them():
    assert list(claims()) == [f"C{number:02d}" for number in range(1, 37)]
    for claim in claims().values():
        assert all([claim.source, claim.text, claim.takes, claim.why, claim.primary]), claim.id


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(9, 11), (9, 11)], "holds"),
        ([(9, 11), (-1, 3)], "holds in part"),
        ([(9, 11), (-11, -9)], "holds in part"),
        ([(0, 2), (-25, 35)], "undecided here"),
        ([(-1, 3), (-11, -9)], "does not hold here"),
        # Above zero by itself, and not after correction for two.
        ([(0.01, 3), (-1, 3)], "undecided here"),
        ([(0.01, 3), (0.01, 3)], "undecided here"),
        ([(-3, -0.01), (-1, 3)], "undecided here"),
        # An effect that was not measured was not shown.
        ([(9, 11)], "holds in part"),
        ([(-11, -9)], "does not hold here"),
        ([(-1, 3)], "undecided here"),
        ([], "not tested"),
    ],
)
def test_the_verdict_follows_from_the_corrected_primary_effects(intervals, expected):
    names = (FIRST, SECOND)
    primary = [evidence(*interval, name) for name, interval in zip(names, intervals, strict=False)]
    for secondary in ([], [evidence(9, 11, "else")], [evidence(-11, -9, "else")]):
        assert verdict("C30", primary + secondary) == expected
        assert verdict("C30", secondary + primary) == expected


def test_an_assessment_says_what_decides_and_what_is_missing():
    found = assess("C30", [evidence(5, 7, "else"), evidence(1, 3, FIRST, n=5)])
    (first, other) = found.effects
    assert first[:2] == (evidence(1, 3, FIRST, n=5), True)
    assert first.p == pytest.approx(2 * first.evidence.p_value)
    assert other == (evidence(5, 7, "else"), False, None)
    assert found.missing == (SECOND,)


def test_a_claim_against_averages_is_judged_twice_and_says_which(monkeypatch):
    twice = replace(claims()["C30"], primary=(FIRST,), strongest=(SECOND, "another"))
    monkeypatch.setitem(claims(), "C30", twice)
    found = assess("C30", [evidence(9, 11, FIRST), evidence(-11, -9, SECOND), evidence(9, 11, "else")])
    assert (found.verdict, found.against) == ("holds", "does not hold here")
    assert found.words == "holds at equal stage; does not hold here against the strongest average"
    assert found.missing == ("another",)
    assert [primary for _, primary, _ in found.effects] == [True, True, False]
    # Each is corrected for its own effects alone: one, and two of which one was not measured.
    alone = evidence(9, 11, FIRST).p_value
    assert [p for _, _, p in found.effects[:2]] == pytest.approx([alone, 2 * alone])
    assert assess("C30", [evidence(9, 11, SECOND)]).words == (
        "not tested at equal stage; holds in part against the strongest average"
    )


def test_verdicts_are_withheld_where_seeds_are_too_few():
    assert verdict("C34", evidence(9, 11, n=2)) == "too few seeds"
    assert verdict("C30", [evidence(9, 11, FIRST, n=9), evidence(9, 11, SECOND, n=1)]) == "too few seeds"
    assert verdict("C30", [evidence(9, 11, FIRST, n=9), evidence(9, 11, "else", n=1)]) == "holds in part"


def test_p_values_are_those_of_the_t_test_and_agree_with_any_interval():
    for seed in range(20):
        generator = np.random.default_rng(seed)
        values = generator.normal(0.5, 1, size=int(generator.integers(2, 12)))
        found = Evidence.of("x", mean_interval(values))
        assert found.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-9)
    skew = [((1, 0.1, 9), True), ((1, -0.1, 1.1), False), ((-1, -9, -0.1), True), ((-1, -1.1, 0.1), False)]
    for (effect, low, high), significant in skew:
        assert (Evidence("x", effect, low, high, n=8).p_value < 0.05) == significant
    assert Evidence("x", 1, 1, 1, n=3).p_value == 0
    assert Evidence("x", 0, 0, 0, n=3).p_value == 1
    assert math.isnan(Evidence("x", 1, 0, 2, n=1).p_value)


def test_what_rounding_leaves_of_no_difference_is_no_effect():
    found = Evidence.of("x", mean_interval([0.1 + 0.2 - 0.3] * 5))  # 6e-17, alike for every seed
    assert found.p_value == 1
    assert f"{found.amount} {found.interval}" == "+0.0 [0.0, 0.0]"
    narrow = Evidence("x", -0.004321373782, -0.004321373789, -0.004321373776, n=5)
    assert f"{narrow.amount} {narrow.interval}".replace("\N{MINUS SIGN}", "-") == "-0.0043 [-0.0043, -0.0043]"
    assert narrow.p_value < 1e-9


def test_the_protocol_asks_each_claim_on_the_images_that_its_table_names():
    text = (project_root() / "docs" / "protocol.md").read_text()
    rows = text.partition("| claims | images | how |\n|---|---|---|\n")[2].partition("\n\n")[0].splitlines()
    asked = {}
    for names, where, _ in (re.split(r" *\| *", row.strip("| "), maxsplit=2) for row in rows if "a GPU" not in row):
        first, _, last = names.partition(" to ")
        ids = [f"C{number:02}" for number in range(int(first[1:]), int(last[1:]) + 1)] if last else names.split(", ")
        assert not asked.keys() & set(ids)
        asked |= dict.fromkeys(ids, tuple(name for name in IMAGES if where == "all five" or name in where))
    assert asked | {"C06": ()} == {claim.id: claim.images for claim in claims().values()}


def test_luck_alone_gives_few_claims_a_verdict():
    """With six primary effects that are all zero, at most 5 % of claims hold in part: Holm keeps its promise."""
    generator = np.random.default_rng(0)
    names = claims()["C11"].primary
    found = []
    for _ in range(1000):
        values = generator.normal(size=(len(names), 5))
        items = [Evidence.of(name, mean_interval(row)) for name, row in zip(names, values, strict=True)]
        found.append(verdict("C11", items))
    assert 0.5 * 25 <= found.count("holds in part") <= 35  # of 1000; positive ones are half of the 5 %
    assert found.count("holds") == 0


def test_every_primary_effect_has_a_name_that_was_recorded():
    """A name mistyped, or changed in a notebook, would leave a claim untested for ever."""
    kept = (project_root() / "data" / "evidence").glob("*_verdicts.json")
    records = [record for path in kept for record in json.loads(path.read_text(encoding="utf-8"))]
    for claim in claims().values():
        names = {item["name"] for entry in records if entry["claim"] == claim.id for item in entry["evidence"]}
        for pattern in claim.primary + claim.strongest:
            # What takes a GPU, and what takes a vision transformer's weights.
            assert claim.id in ("C06", "C32") or any(re.fullmatch(pattern, name) for name in names), (claim.id, pattern)


@pytest.mark.parametrize("change", [{"effect": math.nan}, {"low": 5}, {"high": 0}, {"n": 0}, {"n": 1.5}])
def test_impossible_evidence_is_refused(change):
    with pytest.raises(ValueError, match="evidence 'x'"):
        Evidence(**({"name": "x", "effect": 1, "low": 0.5, "high": 2, "n": 3} | change))


def test_numbers_are_shown_as_precisely_as_their_interval():
    assert str(Evidence("gain", 19.23, 17.41, 21.04, n=5)) == "gain: +19.2 points [17.4, 21.0], n = 5"
    assert str(Evidence("gain", -0.01, -0.02, 0.003, n=5, unit="s")) == "gain: −0.010 s [−0.020, 0.003], n = 5"


def test_a_record_is_written_with_its_provenance(runs):
    found = [evidence(-1, 3, "else"), evidence(9, 11)]
    table = record("C34", found, notebook="01_x", profile="smoke", data="toy", note="why")
    assert list(table["verdict"]) == ["holds"] * 2
    assert list(table["role"]) == ["primary", "secondary"]
    assert list(table["p"].isna()) == [False, True]
    document = json.loads((runs / "smoke" / "claims" / "C34-01_x.json").read_text())
    assert (document["data"], document["note"], document["by"]) == ("toy", "why", "hand")
    assert document["machine"]["cores"] >= 1
    assert "python" in document["machine"]["versions"]


def test_a_record_of_secondary_effects_says_that_they_decide_nothing(runs):
    table = record("C34", evidence(9, 11, "else"), notebook="01_x", profile="smoke", data="toy")
    assert list(table["verdict"]) == ["not tested: none of these is a primary effect"]


def test_an_assessment_of_records_merges_notebooks_until_one_is_forgotten(runs):
    record("C30", evidence(9, 11, FIRST), notebook="a", profile="smoke", data="toy")
    record("C30", evidence(-1, 1, SECOND, n=7), notebook="b", profile="smoke", data="toy")
    records = read_records("smoke")
    assert [entry["notebook"] for entry in records] == ["a", "b"]
    found = assess_records("C30", records)
    assert (found.verdict, [item.n for item, *_ in found.effects]) == ("holds in part", [3, 7])
    assert assess_records("C31", records).verdict == "not tested"
    forget_claims("smoke", "a")
    assert assess_records("C30", read_records("smoke")).verdict == "undecided here"


def test_an_unknown_claim_or_no_evidence_is_refused(runs):
    with pytest.raises(ValueError, match="unknown claim 'C99'"):
        record("C99", evidence(1, 2), notebook="a", profile="smoke", data="toy")
    with pytest.raises(ValueError, match="at least one Evidence"):
        record("C01", [], notebook="a", profile="smoke", data="toy")
    with pytest.raises(ValueError, match="plain name"):
        record("C01", evidence(1, 2), notebook="../a", profile="smoke", data="toy")
    assert not runs.exists()


def test_what_a_claim_takes_are_the_notebooks_that_record_it():
    """Of the real notebooks: each claim is recorded in the last cell of some, and the list names all of them."""
    notebooks = {path.stem: json.loads(path.read_text()) for path in (project_root() / "notebooks").glob("*.ipynb")}
    code = {name: [c["source"] for c in nb["cells"] if c["cell_type"] == "code"] for name, nb in notebooks.items()}
    last = {name: "".join(sources[-1]) for name, sources in code.items()}
    for claim in claims().values():
        recording = {name for name, text in last.items() if f'"{claim.id}"' in text}
        assert recording
        assert set(re.findall(r"\d\d_\w+", claim.takes)) == recording, claim.id
