from pathlib import Path

import pytest
from PIL import Image

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


def test_a_recipe_has_names_that_recipes_have(world):
    world.notebook("a", parameters="recipe: dict = {}")
    world.profile("notebooks: {a: {parameters: {recipe: {learning_rate: [0.1, 0.2], learning_rat: 1}}}}")
    with pytest.raises(SpecError, match="a: recipe: unknown key 'learning_rat'; did you mean 'learning_rate'"):
        make_plan("smoke")


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
        ("notebooks: {a: {parameters: {profil: {1: 2}}}}", "unknown parameter 'profil'"),
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


@pytest.mark.parametrize("name", ["smoke", "study", "paper", "photographs"])
def test_the_profiles_of_the_repository_are_in_form(name):
    plan = make_plan(PROFILES / f"{name}.yaml")
    assert len(plan.of("notebooks")) >= 3
    assert bool(plan.of("sweeps")) == (name == "paper")


def test_a_profile_has_a_name_for_a_folder(world):
    world.notebook("a")
    with pytest.raises(SpecError, match="a profile's name may have letters"):
        make_plan(world.profile("notebooks: {a: }", "my {x}#"))


@pytest.fixture
def birds(world, tmp_path):
    """A folder of images, and notebooks that take one and that do not."""
    root = tmp_path / "my birds"
    for split in ("train", "test"):
        for name in ("tit", "wren"):
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(root / split / name / f"{number}.png")
    sees = "profile = 'smoke'\ndataset = 'typefaces'\nroot = ''\nfamilies = 8\nseeds = 2"
    world.notebook("a", parameters=sees)
    world.notebook("b", parameters="seeds = 2")
    world.profile("shared: {families: 60}\nnotebooks: {a: {parameters: {seeds: 3}}, b: }", "photographs")
    return root


def test_a_profile_runs_on_a_folder_of_images(world, birds):
    plan = make_plan("photographs", ("birds", str(birds)))
    assert (plan.profile, plan.folder) == ("photographs-birds", world.runs("photographs-birds"))
    assert "data" not in plan.jobs
    seen = {"profile": "photographs-birds", "dataset": "folder", "root": str(birds), "families": 60, "seeds": 3}
    assert plan.jobs["notebooks/a"].values == seen
    assert plan.jobs["notebooks/b"].values == {}


def test_parameters_are_changed_from_outside_for_every_notebook_that_has_them(world, birds):
    plan = make_plan("photographs", ("birds", str(birds)), ["seeds=5"])
    assert {job.values["seeds"] for job in plan.of("notebooks")} == {5}
    with pytest.raises(SpecError, match="unknown parameter 'seed'; did you mean 'seeds'"):
        make_plan("photographs", changes=["seed=5"])
    with pytest.raises(SpecError, match="expected int, got 'many'"):
        make_plan("photographs", changes=["seeds=many"])


def test_a_parameter_is_changed_from_outside_for_one_notebook(world):
    world.notebook("07_a", parameters="seeds = 2\nfull = {}")
    world.notebook("09_b", parameters="seeds = 2\nfull = {}")
    world.profile("shared: {seeds: 4}\nnotebooks: {07_a: , 09_b: {parameters: {full: {x: 1}}}}", "two")
    changes = ["07.full={methods: [average], rate: 0.1}", "07.seeds=8", "seeds=5"]
    values = {job.label: job.values for job in make_plan("two", changes=changes).of("notebooks")}
    assert values["07_a"] == {"seeds": 8, "full": {"methods": ["average"], "rate": 0.1}}
    assert values["09_b"] == {"seeds": 5, "full": {"x": 1}}
    keys = [make_plan("two", changes=some).jobs["notebooks/09_b"].key for some in (changes[:2], [])]
    assert keys[0] == keys[1], "what does not change stays up to date"
    with pytest.raises(SpecError, match="no notebook of the profile has the number 08"):
        make_plan("two", changes=["08.seeds=3"])
    with pytest.raises(SpecError, match=r"07_a: .*'seed'.*did you mean 'seeds'"):
        make_plan("two", changes=["07.seed=3"])


def test_other_images_make_stale_what_has_seen_them(world, birds):
    before = make_plan("photographs", ("birds", str(birds))).jobs
    (birds / "train" / "tit" / "2.png").unlink()
    after = make_plan("photographs", ("birds", str(birds))).jobs
    assert before["notebooks/a"].key != after["notebooks/a"].key
    assert before["notebooks/b"].key == after["notebooks/b"].key


def test_a_folder_that_is_not_there_is_refused_before_anything_runs(world, birds):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        make_plan("photographs", ("birds", "nowhere"))
    with pytest.raises(SpecError, match="a profile's name may have letters"):
        make_plan("photographs", ("../birds", str(birds)))
