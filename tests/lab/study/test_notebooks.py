"""The parameters of notebooks, and what is refused before anything runs."""

import pytest

from gcplib.lab.study.notebooks import Notebook
from gcplib.lab.study.options import options_of

CELL = """
profile: str = "smoke"  # name of the profile
seeds: int = 3
rate = 1e-3
pools: list[str] = ["gap", "cov"]
device: str | None = None
sizes: list[float] = [1, 2.5]
anything = None
"""


def problems(world, *code, parameters=CELL, check=None, **values):
    path, found = world.notebook("a", *code, parameters=parameters, check=check), []
    Notebook(path).take(values, found)
    return found


def test_names_and_types_are_read_from_the_cell(world):
    found = Notebook(world.notebook("a", parameters=CELL)).parameters
    types = ["str", "int", "float", "list[str]", "str | None", "list[float]", "Any"]
    assert [kind for _, kind in found.values()] == types
    assert list(found) == ["profile", "seeds", "rate", "pools", "device", "sizes", "anything"]
    assert found["pools"][0] == ["gap", "cov"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a = 1\nb = a * 2", "parameter 'b' must be a literal"),
        ("import os", "may only assign literals"),
        ("a: int = 'x'", "the default of parameter 'a': expected int, got 'x'"),
        ("a: Path = 'x'", "cannot set a value of type 'Path'"),
        ("a = (", "not valid Python"),
    ],
)
def test_a_cell_that_is_no_list_of_literals_is_refused(world, cell, message):
    with pytest.raises(ValueError, match=message):
        Notebook(world.notebook("a", parameters=cell))


def test_exactly_one_parameters_cell_is_required(world):
    path = world.notebook("a")
    path.write_text(path.read_text().replace('"parameters"', '"other"'))
    with pytest.raises(ValueError, match=r"a.ipynb: expected exactly one cell tagged 'parameters', found 0"):
        Notebook(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not a readable notebook"):
        Notebook(path)


@pytest.mark.parametrize(
    ("kind", "default", "value"),
    [
        ("int", 0, 3), ("float", 0.0, 3), ("float", 0.0, 0.1), ("str", "", "a"), ("bool", False, True),
        ("Any", None, [1]), ("str | None", "a", None), ("list[float]", [], [1, 2.5]), ("list", [], [1, "a"]),
        ("dict", {}, {"a": 1}), ("Literal['a', 'b']", "a", "b"), ("list | str", [], "all"),
    ],
)  # fmt: skip
def test_values_that_fit(world, kind, default, value):
    assert problems(world, parameters=f"p: {kind} = {default!r}", p=value) == []


@pytest.mark.parametrize(
    ("kind", "default", "value"),
    [
        ("int", 0, True), ("float", 0.0, True), ("int", 0, 3.0), ("float", 0.0, "1e-3"), ("bool", True, "true"),
        ("bool", True, 1), ("str", "", False), ("str", "", None), ("list[int]", [], [1, "2"]), ("list[str]", [], "gap"),
        ("Literal['a', 'b']", "a", "c"), ("float", 0.0, float("inf")), ("dict[str, int]", {}, {"a": "b"}),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_named_with_what_is_expected(world, kind, default, value):
    got = "null" if value is None else f"{value!r} ({type(value).__name__})"
    (problem,) = problems(world, parameters=f"p: {kind} = {default!r}", p=value)
    assert problem == f"a: parameter 'p': expected {kind}, got {got}"


def test_keys_that_a_plan_would_change_are_refused(world):
    (problem,) = problems(world, parameters="p: dict = {}", p={"a": {1: 2}})
    assert problem.startswith("a: parameter 'p': keys of a mapping must be text")


def test_an_integer_given_for_a_float_becomes_one(world):
    notebook = Notebook(world.notebook("a", parameters=CELL))
    values = notebook.take({"rate": 3, "sizes": [1, 2]}, [])
    assert type(values["rate"]) is float
    assert list(map(type, values["sizes"])) == [float, float]


def test_options_are_checked_as_the_notebook_calls_for_them(world):
    parameters = "sizes: dict = {}\nlooks: dict = {'pairs': 8}\nsecond: dict = {}\nseeds: int = 2\nepochs: int = 3"
    check = (
        "from gcplib.lab.study import options_of\nusual = {'rate': 0.02} | sizes\n"
        "looks = options_of('looks', looks, ['pairs'], **usual, epochs=epochs)\n"
        "if second:\n    second = options_of('second', second, ['dataset'])\n"
        "assert seeds >= 2, f'at least 2 seeds, got {seeds}'"
    )
    cells = {"parameters": parameters, "check": check}
    later = "epochs = torch.ones(epochs).sum()\nassert epochs > 100"  # what no tag marks is not run
    assert problems(world, later, **cells) == []
    assert problems(world, later, **cells, looks={"pairs": 1, "rate": 1}) == []
    (problem,) = problems(world, **cells, looks={"pair": 1})
    assert problem.startswith("a: unknown option of 'looks' 'pair'; did you mean 'pairs'? known: pairs, rate, epochs")
    (problem,) = problems(world, **cells, second={"data": "x"})
    assert problem.startswith("a: unknown option of 'second' 'data'; did you mean 'dataset'?")
    assert problems(world, **cells, seeds=1) == ["a: at least 2 seeds, got 1"]


def test_a_cell_tagged_check_runs_with_the_values(world):
    check = "import math\nif math.gcd(a, b) > 1:\n    raise ValueError(f'{a} and {b} have a factor in common')"
    assert problems(world, parameters="a: int = 2\nb: int = 3", check=check, b=5) == []
    assert problems(world, parameters="a: int = 2\nb: int = 3", check=check, b=4) == [
        "a: 2 and 4 have a factor in common"
    ]


def test_options_take_defaults_for_what_is_left_out():
    assert options_of("more", {"k": 15}, ["k"], ks=[4], pairs=2) == {"k": 15, "ks": [4], "pairs": 2}
    assert options_of("more", {"k": 15, "pairs": 0}, ["k"], pairs=2) == {"k": 15, "pairs": 0}


def test_an_unknown_option_is_named_with_the_nearest_one_and_a_missing_one_too():
    with pytest.raises(ValueError, match=r"option of 'whole' 'pixel'; did you mean 'pixels'\?"):
        options_of("whole", {"pixel": 64}, ["pixels"], rate=0.02)
    with pytest.raises(ValueError, match="'whole' lacks 'pixels', 'batch'; it has \\['rate'\\]"):
        options_of("whole", {"rate": 1}, ["pixels", "batch"], rate=0.02)
    with pytest.raises(ValueError, match="'whole' is a dict, got 'text'; papermill takes"):
        options_of("whole", "text", rate=0.02)
