"""Parameters as people see them, and cells with other values in them."""

import ast

import pytest
from notebook_code import NOTEBOOKS

from gcplib.lab.cli import main
from gcplib.lab.course.parameters import as_code, chosen, comments_of, list_parameters, with_values
from gcplib.lab.study.notebooks import Notebook

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
CELL = """profile: str = "smoke"  # a folder
rates = [0.1]
# runs of each,
# and at least two
seeds: int | None = 2
compress: dict = {  # heads
    "a": {"reduction": 32},  # short
}"""


def test_comments_beside_above_and_within_are_meanings():
    assert comments_of(CELL) == {
        "profile": "a folder",
        "rates": "",
        "seeds": "runs of each, and at least two",
        "compress": "heads short",
    }


def test_values_are_put_in_and_nothing_else_changes():
    assert with_values(CELL, {}) == CELL
    assert with_values(CELL, {"rates": [0.1], "other": 3}) == CELL
    changed = with_values(CELL, {"profile": 'a "b"', "seeds": None, "compress": {"wide": {"reduction": None}}})
    assert changed.splitlines() == [
        'profile: str = "a \\"b\\""  # a folder',
        *CELL.splitlines()[1:4],
        "seeds: int | None = None",
        'compress: dict = {"wide": {"reduction": None}}  # heads short',
    ]
    long = with_values("powers: list = [1]  # to try", {"powers": [f"a long name {n}" for n in range(6)]})
    assert long.splitlines()[0] == "powers: list = [  # to try"
    assert max(map(len, long.splitlines())) <= 88


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_notebook_takes_values_of_the_studies_in_its_cell(path):
    notebook = Notebook(path)
    (cell,) = (source for _, tags, source in notebook.text if "parameters" in tags)
    values = {name: {"of": [default, True]} for name, (default, _) in notebook.parameters.items()}
    body = ast.parse(with_values(cell, values)).body
    assert {line.target.id: ast.literal_eval(line.value) for line in body} == values
    assert comments_of(with_values(cell, values)) == comments_of(cell)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_parameters_are_listed_with_their_options(path):
    listed = list_parameters(Notebook(path))
    assert [p.name for p in listed if p.kind] == [*Notebook(path).parameters]
    for parameter in listed:
        assert parameter.meaning or parameter.kind in ("dict", ""), parameter.name
        assert parameter.default or parameter.meaning


def test_the_command_prints_a_table_and_refuses_what_is_not_there(capsys):
    assert main(["params", "06"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "06_amplify_small_eigenvalues"
    assert lines[1].split() == ["name", "type", "default", "meaning"]
    assert any(line.split()[:3] == ["reduction", "int", "32"] for line in lines)
    assert any(line.startswith("  small") for line in lines)  # an option of `more`
    assert main(["params", "6"]) == 2
    assert "unknown notebook '6'" in capsys.readouterr().err
    assert [*chosen(["00", "12_look"])] == ["00_start_here", "12_look_from_coarse_to_fine"]


def test_code_is_read_back_as_the_value():
    value = {"a": [1, 2.5, None, True], "é": {"b": "c\n"}, "n": 1e-16}
    assert ast.literal_eval(as_code(value)) == value
