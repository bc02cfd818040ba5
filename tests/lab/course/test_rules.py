"""What every notebook of the course keeps to, as far as a machine can tell."""

import ast
import functools
import itertools
import re

import nbformat
import pytest
from notebook_code import NOTEBOOKS

from gcplib.lab.course.checking import tasks_of

PATHS = {path.stem[:2]: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
TASK = re.compile(r"\*\*Task (\d+)\*\* \*\((easy|medium|hard), (\d+) minutes\)\*")
LINES_BEFORE_A_FIGURE = 25


@functools.cache
def cells_of(number):
    return nbformat.read(PATHS[number], as_version=4).cells


def code_of(number):
    return [cell for cell in cells_of(number) if cell.cell_type == "code"]


def tags_of(cell):
    return cell.metadata.get("tags", [])


def text_of(number):
    return "\n\n".join(cell.source for cell in cells_of(number) if cell.cell_type == "markdown")


def section(number, heading):
    """The text of a section, or None."""
    found = re.search(rf"^## {heading}[^\n]*\n(.*?)(?=^## |\Z)", text_of(number), flags=re.DOTALL | re.MULTILINE)
    return found and found[1]


def tasks(number):
    """At least one task, and all that is known of it in its place."""
    cells = cells_of(number)
    places = [place for place, cell in enumerate(cells) if "task" in tags_of(cell)]
    assert places, "no task"
    for place in places:
        about, cell, check = cells[place - 1 : place + 2]
        name = cell.metadata["nbgrader"]["grade_id"]
        *imports, definition = ast.parse(cell.source).body  # a function or class, and it is never called here
        assert isinstance(definition, ast.FunctionDef | ast.ClassDef), name
        assert all(isinstance(line, ast.Import | ast.ImportFrom) for line in imports), name
        assert ast.get_docstring(definition), name
        assert cell.source.count("### BEGIN SOLUTION") == cell.source.count("### END SOLUTION") == 1, name
        assert check.source == f'{definition.name} = check("{name}", {definition.name})', name
        assert tags_of(check) == ["check-task"], name
        assert check.metadata["nbgrader"]["grade_id"] == f"{name}-check"
        assert TASK.search(about.source), f"{name}: no difficulty and minutes in the text above"
        assert "<details><summary>Hint</summary>\n\n" in about.source, f"{name}: no hint"
        before = [one.source for one in cells[: place + 1] if one.cell_type == "code"]
        if "Tensor" in cell.source:
            assert re.search("^import torch$", "\n".join(before), flags=re.MULTILINE), f"{name}: no torch"
    names = [cells[place].metadata["nbgrader"]["grade_id"] for place in places]
    assert sorted(names) == sorted(tasks_of(number))
    numbers = [int(found[0]) for found in TASK.findall(text_of(number))]
    assert numbers == [*range(1, len(places) + 1)]


def figure(number):
    """Few lines of code before the first figure; parameters are not counted."""
    lines = 0
    for cell in code_of(number):
        if "parameters" in tags_of(cell):
            continue
        if "caption" in cell.metadata or re.search(r"\bplay\(|\.show\(", cell.source):
            break
        lines += sum(bool(line.strip()) for line in cell.source.splitlines())
    assert lines <= LINES_BEFORE_A_FIGURE, f"{lines} lines"


def found(number):
    """What was found stands before the exercises."""
    headings = re.findall(r"^## (.*)$", text_of(number), flags=re.MULTILINE)
    assert (what := "What we found, and what would change our mind") in headings, headings[-3:]
    exercises = [place for place, heading in enumerate(headings) if heading.startswith("Exercise")]
    assert all(headings.index(what) < place for place in exercises)
    assert section(number, "What we found").strip()


def next_(number):
    """The end leads on, with links."""
    text = section(number, "Where next")
    assert text, "no section"
    for target in re.findall(r"\b(\d\d)\b", text):
        assert re.search(rf"\]\({target}_\w+\.ipynb\)", text), f"{target} is named without a link"
    assert ".ipynb)" in text


def functions_of(number):
    """Functions and classes that a notebook defines, but for those that a learner writes."""
    return {
        node.name
        for cell in code_of(number)
        if "task" not in tags_of(cell)
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def twice(number):
    """No helper is defined in another notebook as well."""
    others = {name for other in PATHS if other != number for name in functions_of(other)}
    assert not functions_of(number) & others


RULES = {"tasks": tasks, "figure": figure, "found": found, "next": next_, "twice": twice}


@pytest.mark.parametrize("number", PATHS)
@pytest.mark.parametrize("rule", RULES)
def test_the_rules_are_kept(rule, number):
    RULES[rule](number)


@pytest.mark.parametrize("number", PATHS)
def test_code_fits_a_screen(number):
    for cell in code_of(number):
        lines = cell.source.splitlines()
        assert max(map(len, lines)) <= 88, cell.source
        assert "parameters" in tags_of(cell) or len(lines) <= 20, cell.source


@pytest.mark.parametrize("number", PATHS)
def test_panels_with_limits_of_their_own_do_not_share_them(number):
    for cell in code_of(number):
        # The last panel's would hide the rows of the others.
        has_limits = re.search(r"\.draw(_means)?\(|interval_plot\(", cell.source)
        assert not (has_limits and "sharex" in cell.source), cell.source


@pytest.mark.parametrize("number", PATHS)
def test_solutions_stand_behind_the_exercises(number):
    headings = ""
    for cell in cells_of(number):
        if cell.cell_type == "markdown":
            headings = re.findall(r"^## (.*)$", cell.source, flags=re.MULTILINE)[-1:] or headings
        elif "solution" in tags_of(cell):
            assert headings[0].startswith("Exercise"), cell.source


def test_the_page_for_teachers_has_every_notebook_and_time_for_its_tasks():
    text = (NOTEBOOKS.parent / "docs" / "teaching.md").read_text(encoding="utf-8")
    minutes = dict(re.findall(r"^\| (\d\d) \| .* \| (\d+) \| \d+, \d+ \|$", text, flags=re.MULTILINE))
    assert sorted(minutes) == sorted(PATHS)
    for number in PATHS:
        tasks_take = sum(int(found[2]) for found in TASK.findall(text_of(number)))
        assert tasks_take < int(minutes[number]), number
    graph = re.search(r"```mermaid\n(.*?)```", text, flags=re.DOTALL)[1]
    assert set(re.findall(r"\b\d\d\b", graph.partition("subgraph")[0])) == set(PATHS)
    edges = {
        edge for line in re.findall(r"\d\d(?: --> \d\d)+", graph) for edge in itertools.pairwise(line.split(" --> "))
    }
    for before, after in edges:  # a notebook says itself what it needs, or needs what needs it
        needs = re.search(r"\*\*Need\*\*(.*?)\n\n", text_of(after), flags=re.DOTALL)[1]
        assert before in needs or re.search(r"(\d\d) to (\d\d)", needs), (before, after)


@pytest.mark.parametrize("number", PATHS)
def test_a_prediction_ends_its_cell(number):
    """A learner's copy has the place for a guess behind the cell, and what follows may give the answer away."""
    for cell in cells_of(number):
        if cell.cell_type == "markdown" and "**Predict**" in cell.source:
            assert "**Predict**" in cell.source.rpartition("\n\n")[2], cell.source


@pytest.mark.parametrize("number", PATHS)
def test_names_of_code_are_set_as_code(number):
    """A name that stands bare in the text is often one that a change of all names has put there."""
    text = re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)", "", text_of(number), flags=re.DOTALL)
    assert re.findall(r"\w*[a-z]_[a-z]\w*", text) == []


def test_every_letter_is_explained_once():
    text = (NOTEBOOKS / "NOTATION.md").read_text(encoding="utf-8")
    everywhere = text.partition("## Letters of single")[0]
    letters = [one for row in re.findall(r"^\| (\$.*?) \|", everywhere, flags=re.MULTILINE) for one in row.split(", ")]
    assert len(letters) == len(set(letters)) > 15
    terms = re.findall(r"^\*\*(.+?)\*\*", text.partition("## Glossary")[2], flags=re.MULTILINE)
    assert terms == sorted(set(terms), key=str.lower)
