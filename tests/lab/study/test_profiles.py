import re
from pathlib import Path

import pytest

from gcplib.lab.study.profiles import load_plan, load_profile

PROFILES = Path(__file__).parents[3] / "notebooks" / "profiles"
PARAMETERS = "profile = 'smoke'\nfamilies = 8\nseeds = 2\nrate = 0.1\nfast = False"


def test_parameters_are_resolved_in_order(world):
    world.notebook("a", parameters=PARAMETERS)
    world.notebook("b", parameters="profile = 'smoke'\nother = 1")
    world.profile(
        "description: words\nshared: {families: 60, seeds: 3}\n"
        "notebooks:\n  a: {threads: 2, parameters: {seeds: 5}}\n  b:",
        "study",
    )
    plan = load_plan("study")
    assert plan.jobs["a"].parameters == {"families": 60, "seeds": 5, "profile": "study"}
    assert plan.jobs["b"].parameters == {"profile": "study"}
    assert (plan.jobs["a"].threads, plan.jobs["b"].threads) == (2, 1)
    assert plan.data == {"families": 60}
    assert (plan.jobs["a"].needs_data, plan.jobs["b"].needs_data) == (True, False)
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
    with pytest.raises(ValueError, match=r"profile 'smoke' has 10 problems") as caught:
        load_plan("smoke")
    expected = [
        "unknown key 'extra'", "unknown key 'color'", "threads must be an integer of at least 1, got 0",
        "first must be true or false, got 1",
        "no notebook 'aa'", "a: no parameter 'seed' (value 5); did you mean 'seeds'?", "write 1.0e-3",
        "a: 'profile' is set by the runner", "'seeds': expected int, got True (bool)",
    ]  # fmt: skip
    for text in expected:
        assert text in str(caught.value)


def test_a_shared_name_must_be_declared_somewhere_and_fit_everywhere(world):
    world.notebook("a", parameters=PARAMETERS)
    world.notebook("b", parameters="fast = 'no'")
    world.profile("shared: {familys: 60, fast: true}\nnotebooks: {a: , b: }")
    with pytest.raises(
        ValueError, match=re.escape("b: parameter 'fast' (shared): expected str, got True (bool)")
    ) as caught:
        load_plan("smoke")
    assert "no notebook declares 'familys'; did you mean 'families'?" in str(caught.value)
    assert "2 problems" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("notebooks: {}", "at least one notebook"),
        ("- a", "expected a mapping"),
        ("notebooks: [a]", "'notebooks' must be a mapping"),
        ("notebooks: {a: 3}", "'a' must be a mapping"),
        ("notebooks: {a: {parameters: {seeds: 1, seeds: 2}}}", "given twice: seeds"),
        ("notebooks: {", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(world, text, message):
    world.profile(text)
    with pytest.raises(ValueError, match=message):
        load_profile("smoke")


def test_a_missing_profile_names_those_that_exist(world):
    world.profile("notebooks: {a: }", "evidence")
    with pytest.raises(FileNotFoundError, match=r"no profile 'evidense' .*did you mean 'evidence'"):
        load_plan("evidense")


def test_the_key_follows_text_parameters_and_library_but_not_outputs(world):
    path = world.notebook("a", "1 + 1", parameters=PARAMETERS)
    world.profile("notebooks: {a: }")
    key = load_plan("smoke").jobs["a"].key
    path.write_text(path.read_text().replace('"execution_count": null', '"execution_count": 7'))
    path.touch()
    assert load_plan("smoke").jobs["a"].key == key
    world.profile("notebooks: {a: {parameters: {seeds: 9}}}")
    changed = load_plan("smoke").jobs["a"].key
    world.profile("notebooks: {a: }")
    world.notebook("a", "1 + 2", parameters=PARAMETERS)
    assert len({key, changed, load_plan("smoke").jobs["a"].key}) == 3


@pytest.mark.parametrize("name", ["smoke", "study", "evidence", "paper"])
def test_the_profiles_of_the_repository_are_in_form(name):
    assert load_profile(PROFILES / f"{name}.yaml").notebooks
