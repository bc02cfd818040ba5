"""Grids of runs on paper: what they expand to, how they are put into jobs, and what is wrong with one."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gcplib.lab.data import ImagesSpec, TypefacesSpec
from gcplib.lab.setting import make_setting
from gcplib.lab.study.profiles import make_plan
from gcplib.lab.study.sweeps import Grid, checked, plan_sweeps
from gcplib.lab.study.sweeps import expand as expand_grid
from gcplib.lab.training import Recipe, RunSpec
from gcplib.lab.validation import SpecError

PROFILES = Path(__file__).parents[3] / "notebooks" / "profiles"


def grid(text):
    return yaml.safe_load(text)


def expand(name, values):
    problems = []
    found = checked(Grid, values, f"runs: {name}", problems)
    specs = expand_grid(found, f"runs: {name}", problems) if found else []
    if problems:
        raise SpecError("grid", problems)
    return [spec for spec, _ in specs]


def jobs(text, data=None):
    problems = []
    found = plan_sweeps(grid(text), data, problems)
    assert problems == []
    return found


def test_every_combination_in_order_the_last_line_fastest():
    specs = expand("x", grid("{base: {reduction: 32}, grid: {pool: [gap, cov], labels: [fine, coarse], seed: 3}}"))
    assert specs == [
        RunSpec(pool=pool, labels=labels, seed=seed, reduction=32)
        for pool in ("gap", "cov")
        for labels in ("fine", "coarse")
        for seed in (0, 1, 2)
    ]


def test_fields_are_merged_dots_go_into_them_and_the_grid_replaces():
    specs = expand(
        "x",
        grid("""
base: {pool: gap, data: {families: 8}, recipe: {epochs: 3, momentum: 0}, recipe.batch_size: 4}
grid:
  data: [{pixels: 64}, {pixels: 96}]
  how: [{pool: cov}, {pool: mpn_cov, options: {amplify: released}, recipe.epochs: 5}]
  seed: [7]
"""),
    )
    small, large = (TypefacesSpec(families=8, pixels=pixels) for pixels in (64, 96))
    short, long = (Recipe(epochs=epochs, momentum=0, batch_size=4) for epochs in (3, 5))
    cov = {"pool": "cov", "recipe": short, "seed": 7}
    root = {"pool": "mpn_cov", "options": {"amplify": "released"}, "recipe": long, "seed": 7}
    assert specs == [RunSpec(**how, data=data) for data in (small, large) for how in (cov, root)]


def test_a_base_alone_is_one_run_and_equal_combinations_are_too():
    assert expand("x", {"base": {"pool": "gap"}}) == [RunSpec(pool="gap")]
    # What is said and what is left out can be the same run.
    found = jobs("x: {grid: {how: [{pool: cov}, {pool: cov, reduction: 64}, {pool: gap}], seed: 2}}")
    names = [RunSpec(pool=pool, seed=seed).name for pool in ("cov", "gap") for seed in (0, 1)]
    assert [run for job in found.values() for run in job.values] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "give the fields of its runs as 'base' or 'grid'"),
        ("[1]", "dict"),
        ("{batch: 4}", "give the fields of its runs"),
        ("{bath: 4, base: {seed: 1}}", "unknown key 'bath'; did you mean 'batch'?"),
        ("{batch: 0, base: {seed: 1}}", "batch: should be greater than 0; got 0"),
        ("{threads: 1.5, base: {seed: 1}}", "threads: should be a valid integer; got 1.5"),
        ("{gpus: 2, base: {seed: 1}}", "gpus: should be less than or equal to 1; got 2"),
        ("{gpus: true, base: {seed: 1}}", "gpus: should be a valid integer; got True"),
        ("{base: [1]}", "base: should be a valid dictionary; got [1]"),
        ("{grid: [1]}", "grid: should be a valid dictionary; got [1]"),
        ("{base: {seeds: 1}}", "unknown field of a run 'seeds'; did you mean 'seed'?"),
        ("{base: {recipe: {epochs: 3}, recipe.epochs: 4}}", "recipe.epochs is given twice"),
        ("{base: {recipe: 3, recipe.epochs: 4}}", "recipe is a single value in one place, and recipe.epochs is given"),
        ("{base: {recipe: 3}, grid: {recipe.epochs: [4]}}", "recipe is a single value in one place, and recipe.epochs"),
        ("{grid: {seed: 0}}", "grid.seed: List should have at least 1 item"),
        ("{grid: {seed: []}}", "grid.seed: List should have at least 1 item"),
        ("{grid: {pool: gap}}", "grid.pool: should be a valid list; got 'gap'"),
        ("{grid: {reduction: 8}}", "grid.reduction: should be a valid list; got 8"),
        ("{grid: {pools: [gap]}}", "unknown field of a run 'pools'; did you mean 'pool'?"),
        ("{grid: {how: [{pool: gap}, {seeds: 1}]}}", "unknown field of a run 'seeds'"),
        ("{grid: {pool: [gap], how: [{pool: cov}]}}", "pool is given twice; put what belongs together under one name"),
        ("{grid: {recipe: [{epochs: 1}], how: [{recipe.epochs: 1}]}}", "recipe.epochs is given twice"),
        ("{grid: {pool: [gap, conv], seed: 3}}", "pool: unknown pool 'conv'; did you mean 'cov'?"),
        ("{base: {data: {familys: 3}}}", "data: unknown key 'familys'; did you mean 'families'?"),
        ("{base: {data: {families: 1}}}", "data.families: should be greater than"),
        ("{base: {recipe.flip: true}}", "recipe.flip"),
        ("{base: {options: {exponen: 0.25}}}", "options {'exponen': 0.25}: pool 'mpn_cov'"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(text, message):
    with pytest.raises(SpecError) as caught:
        expand("mine", grid(text))
    (problem,) = caught.value.problems  # not once for every combination
    assert problem.startswith("runs: mine: ")
    assert message in problem


@pytest.fixture
def with_typefaces(world, monkeypatch):
    monkeypatch.delenv("GCPLIB_ROOT")  # the checkout, which has their list


def test_all_problems_of_all_grids_are_found_at_once(world, with_typefaces):
    world.notebook("a")
    world.profile("""
notebooks: {a: {threads: 0}}
runs:
  one: {base: {stage: half, labels: fin, recipe: {epochs: 0}}, grid: {seed: 2}}
  two: {batch: x, grid: {pool: [gap]}}
  three: {grid: {pools: [gap]}}
  two words: {base: {seed: 0}}
""")
    with pytest.raises(SpecError, match="has 7 problems") as caught:
        make_plan("smoke")
    for text in (
        "notebooks: a: threads", "runs: one: stage", "runs: one: labels", "runs: one: recipe.epochs",
        "runs: two: batch", "runs: three: unknown field of a run 'pools'", "two words",
    ):  # fmt: skip
        assert sum(text in problem for problem in caught.value.problems) == 1, text


def test_a_profile_needs_notebooks_or_runs(world, with_typefaces):
    world.profile("runs: {a: {base: {pool: gap}}}")
    assert list(make_plan("smoke").jobs) == ["sweeps/a-1"]
    world.profile("description: nothing")
    with pytest.raises(ValueError, match="name at least one notebook under 'notebooks', or a grid under 'runs'"):
        make_plan("smoke")
    world.profile("runs: [a]")
    with pytest.raises(SpecError, match="profile: runs: "):
        make_plan("smoke")


def test_jobs_have_a_batch_of_runs_each_and_runs_of_two_grids_are_trained_once():
    found = jobs("""
many: {batch: 2, threads: 3, gpus: 1, grid: {pool: [gap], seed: 21}}
more: {grid: {pool: [gap, cov], seed: [20, 30]}}
""")
    assert list(found) == [f"sweeps/many-{number:02d}" for number in range(1, 12)] + [
        f"sweeps/more-{number}" for number in (1, 2, 3)
    ]
    assert [len(job.values) for job in found.values()] == [2] * 10 + [1] + [1] * 3
    first, last = found["sweeps/many-01"], found["sweeps/more-3"]
    assert list(first.values) == [RunSpec(pool="gap", seed=seed).name for seed in (0, 1)]
    assert (first.threads, first.gpus, last.threads, last.gpus) == (3, 1, 1, 0)
    assert list(last.values.values()) == [{"pool": "cov", "seed": 30}]


def test_only_the_names_of_its_runs_make_a_job_stale():
    key = jobs("{a: {batch: 9, grid: {pool: [gap], seed: 4}}}")["sweeps/a-1"].key
    assert jobs("{b: {batch: 4, threads: 2, gpus: 1, grid: {seed: 4, pool: [gap]}}}")["sweeps/b-1"].key == key
    assert jobs("{a: {batch: 9, grid: {pool: [gap], seed: 5}}}")["sweeps/a-1"].key != key
    assert jobs("{a: {batch: 9, base: {recipe.epochs: 3}, grid: {pool: [gap], seed: 4}}}")["sweeps/a-1"].key != key


def test_jobs_on_the_images_of_the_profile_wait_for_these():
    text = "{a: {grid: {data: [{families: 8, seed: 1}, {families: 8}, {families: 9}]}}}"
    needs = [job.needs for job in jobs(text, TypefacesSpec(families=8)).values()]
    assert needs == [(), ("data",), ()]
    assert [job.needs for job in jobs(text).values()] == [()] * 3


def test_a_data_set_that_is_not_there_is_left_to_its_runs(tmp_path):
    text = f"a: {{grid: {{data: [{{dataset: folder, root: {tmp_path / 'no'}}}, {{families: 8}}], seed: 2}}}}"
    away, _, drawn, _ = jobs(text).values()
    ((name, fields),) = away.values.items()
    assert RunSpec.from_dict(fields).data == ImagesSpec("folder", str(tmp_path / "no"))
    assert name.startswith("mpn_cov-fine-head-0-")
    assert list(drawn.values) == [RunSpec.from_dict(fields).name for fields in drawn.values.values()]


def test_the_runs_of_the_paper_are_those_of_its_notebooks():
    section = yaml.safe_load((PROFILES / "paper.yaml").read_text())
    specs, shared = expand("full", section["runs"]["full"]), section["shared"]
    counts = dict.fromkeys(("families", "train", "validation", "test"), 8)  # of typefaces
    data = ImagesSpec(shared.pop("dataset"), shared.pop("root"), pixels=shared["pixels"])
    recipe = Recipe(**shared.pop("recipe"), epochs=shared.pop("epochs"))
    assert {spec.seed for spec in specs} == set(range(shared.pop("seeds")))
    base = make_setting(**shared, **counts, recipe=recipe).base
    own = {name: getattr(base, name) for name in ("pool", "options", "labels", "seed", "data")}
    assert all(replace(spec, **own) == base for spec in specs)
    assert all(spec.data == data for spec in specs)
    assert len(specs) == len({str(spec) for spec in specs}) == 2 * 4 * 3
