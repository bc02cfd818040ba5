from pathlib import Path

import pytest

from gcplib.lab.study.profiles import make_plan
from gcplib.lab.validation import SpecError

PROFILES = Path(__file__).parents[3] / "notebooks" / "profiles"
PARAMETERS = "profile = 'smoke'\nfamilies = 8\nseeds = 2\nrate = 0.1\nfast = False"


def test_parameters_are_resolved_in_order(world, monkeypatch):
    monkeypatch.delenv("GCPLIB_ROOT")  # the list of the typefaces is there
    world.notebook("a", parameters=PARAMETERS)
    world.notebook("b", parameters="profile = 'smoke'\nother = 1")
    world.profile(
        "description: words\nshared: {families: 60, seeds: 3}\n"
        "notebooks:\n  a: {threads: 2, parameters: {seeds: 5}}\n  b:",
        "study",
    )
    plan = make_plan("study")
    a, b = plan.of("notebooks")
    assert a.values == {"families": 60, "seeds": 5, "profile": "study"}
    assert b.values == {"profile": "study"}
    assert (a.threads, b.threads) == (2, 1)
    assert plan.jobs["data"].values == {"families": 60}
    assert (a.needs, b.needs) == (("data",), ())
    assert plan.folder == world.runs("study")


def test_every_problem_is_listed_at_once(world):
    world.notebook("a", parameters=PARAMETERS)
    world.profile("""
shared: {familys: 60, fast: 'true'}
notebooks:
  a: {threads: 0, parameters: {seed: 5, rate: 1e-3, profile: x, seeds: true}, color: red, first: 1}
  aa:
extra: 1
""")
    with pytest.raises(SpecError, match=r"profile 'smoke' \(.* has 9 problems") as caught:
        make_plan("smoke")
    expected = [
        "unknown key 'extra'", "notebooks: a: unknown key 'color'", "notebooks: a: threads", "notebooks: a: first",
        "unknown notebook 'aa'", "a: unknown parameter 'seed'; did you mean 'seeds'?",
        "a: 'profile' is set by the study", "'seeds': expected int, got True (bool)",
        "'fast': expected bool, got 'true'",
    ]  # fmt: skip
    for text in expected:
        assert sum(text in problem for problem in caught.value.problems) == 1, text


def test_a_shared_name_must_be_declared_somewhere_and_fit_everywhere(world):
    world.notebook("a", parameters=PARAMETERS)
    world.notebook("b", parameters="fast = 'no'")
    world.profile("shared: {familys: 60, fast: true}\nnotebooks: {a: , b: }")
    with pytest.raises(SpecError) as caught:
        make_plan("smoke")
    shared, own = caught.value.problems
    assert shared.startswith("shared: unknown parameter 'familys'; did you mean 'families'?")
    assert own == "b: parameter 'fast': expected str, got True (bool)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("notebooks: {}", "at least one notebook"),
        ("- a", "expected a mapping"),
        ("notebooks: [a]", "notebooks: .*valid dict"),
        ("notebooks: {a: 3}", "notebooks: a: "),
        ("runs: {two words: {base: {seed: 1}}}", "two words"),
        ("notebooks: {a: {parameters: {seeds: 1, seeds: 2}}}", "given twice: seeds"),
        ("notebooks: {", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(world, text, message):
    world.notebook("a")
    world.profile(text)
    with pytest.raises(SpecError, match=message):
        make_plan("smoke")


def test_a_missing_profile_names_those_that_exist(world):
    world.profile("notebooks: {a: }", "evidence")
    with pytest.raises(FileNotFoundError, match=r"unknown profile 'evidense'; did you mean 'evidence'"):
        make_plan("evidense")


@pytest.mark.parametrize("name", ["smoke", "study", "evidence", "paper"])
def test_the_profiles_of_the_repository_are_in_form(name):
    plan = make_plan(PROFILES / f"{name}.yaml")
    assert len(plan.of("notebooks")) >= 3
    assert bool(plan.of("sweeps")) == (name == "evidence")
