"""The notebooks as they come: what their parameters refuse, and that the first one shows what it is about."""

import ast
import json
import subprocess
import sys

import pytest
from notebook_code import NOTEBOOKS

PARAMETERS, CHECK = "parameters", "check"


def cell_of(notebook, tag):
    (path,) = NOTEBOOKS.glob(f"{notebook}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [place for place, cell in enumerate(cells) if tag in cell["metadata"].get("tags", [])]
    assert len(found) == 1, (notebook, tag, found)
    return found[0], "".join(cells[found[0]]["source"])


def defaults_of(notebook):
    """The parameters by name, as the notebook has them."""
    body = ast.parse(cell_of(notebook, PARAMETERS)[1]).body
    return {statement.target.id: ast.literal_eval(statement.value) for statement in body}


def check(notebook, **changes):
    """Run the check of a notebook on its parameters, some of them changed."""
    space = defaults_of(notebook)
    assert set(changes) <= set(space)
    exec(compile(cell_of(notebook, CHECK)[1], notebook, "exec"), space | changes)


CHECKED = ["01", "03", "04", "05", "06"]


@pytest.mark.parametrize("notebook", CHECKED)
def test_defaults_pass_the_check_that_follows_them(notebook):
    check(notebook)
    assert cell_of(notebook, CHECK)[0] == cell_of(notebook, PARAMETERS)[0] + 1


@pytest.mark.parametrize("notebook", CHECKED)
def test_checks_need_no_torch(notebook):
    lines = [f"{name} = {value!r}" for name, value in defaults_of(notebook).items()]
    code = "\n".join([*lines, cell_of(notebook, CHECK)[1], "import sys; assert 'torch' not in sys.modules"])
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("notebook", "changes", "message"),
    [
        ("01", {"seeds": 1}, "at least 2 seeds"),
        ("01", {"powers": [0.5]}, "powers 0.5 and 1.0"),
        ("01", {"few_positions": 100}, "2 to 98, got 100"),
        ("01", {"stride": 32}, "2 to 24, got 32"),
        ("01", {"stride": -1}, "1 or more, got -1"),
        ("01", {"compress": {"32 channels": {"reduction": 32}}}, "progressive reduction or groups"),
        ("01", {"compress": {"mean": {"reduction": [96, 64]}}}, "names that are taken"),
        ("03", {"reduction": 196}, "6 to 195 channels for the 196 positions"),
        ("03", {"stride": 32, "reduction": 64}, "6 to 48 channels for the 49 positions"),
        ("03", {"stride": 0}, "1 or more, got 0"),
        ("03", {"lengths": [0.1, 0.0]}, "lengths are positive"),
        # At stride 32 a covariance of 49 positions has 48 eigenvalues, and the published cut keeps 52 of 64.
        ("04", {"stride": 32, "reduction": 64}, "at most 48 eigenvalues, and the largest cut keeps 52"),
        ("04", {"kept": [1.5]}, "from 0 to 1"),
        ("04", {"effort": {"step": 3}}, "unknown option of 'effort' 'step'"),
        ("04", {"recipe": {"epochs": 3}}, "leave it out of recipe"),
        ("05", {"looks": {"fraction": 0.9}, "stride": 32}, "sets of 1 to 48 eigenvalues"),
        ("05", {"perturb": {"window": 30}}, "windows of 30 by 32 do not fit"),
        ("05", {"perturb": {"curve": 1}}, "curve of 1 steps is too short"),
        ("06", {"forms": {"cov": "exp"}}, "look at mpn_cov"),
        ("06", {"more": {"coarse": ["recipes"]}}, "recipe and matched; got"),
        ("06", {"more": {"constants": []}}, "at least one control"),
        ("06", {"stride": 112}, "needs 4 eigenvalues; here are 3 at most"),
    ],
)
def test_what_a_notebook_cannot_take_is_refused_before_it_runs(notebook, changes, message):
    with pytest.raises(ValueError, match=message):
        check(notebook, **changes)


@pytest.mark.timeout(600)
def test_the_first_notebook_shows_what_it_is_about():
    from gcplib.lab.data import TypefacesSpec
    from gcplib.lab.training import Recipe, RunSpec, ensure_all

    given = defaults_of("00")
    sizes = {name: given[name] for name in ("families", "train", "validation", "test", "pixels")}
    recipe = Recipe(epochs=given["epochs"], learning_rate=given["rate"])
    found = {}
    for pool in ("gap", "mpn_cov"):
        fields = {"pool": pool, "reduction": 64, "data": TypefacesSpec(**sizes), "recipe": recipe}
        fields["stride"] = given["stride"]  # its own runs are two of these
        runs = ensure_all([RunSpec(**fields, seed=given["seed"] + more) for more in range(3)])
        found[pool] = [run.result["test_accuracy"] for run in runs]
    chance = 100 / given["families"]
    assert all(root > average for root, average in zip(found["mpn_cov"], found["gap"], strict=True)), found
    assert min(map(min, found.values())) > 2.5 * chance, found
