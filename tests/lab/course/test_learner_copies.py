"""A learner's copy asks for what the notebook solves, is the notebook otherwise, and is never written over."""

import __future__

import ast
import functools
import re

import nbformat
import pytest
from notebook_code import NOTEBOOKS

from gcplib.lab.course import Unsolved, copies, use_solutions
from gcplib.lab.course.checking import tasks_of
from gcplib.lab.course.copies import STUB, finished_values, make_copy, write_copies

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
LEARNER = NOTEBOOKS.parent / "learner"
each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


@functools.cache
def copy_of(path):
    return make_copy(read(path), LEARNER)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@each
def test_a_copy_has_no_solution_of_a_task_and_folds_those_of_exercises(path):
    source, copy = read(path), copy_of(path)
    nbformat.validate(copy)
    assert not any("SOLUTION" in cell.source for cell in copy.cells)
    assert len(tagged(copy, "task")) == len(tagged(source, "task"))
    for cell, solved in zip(tagged(copy, "task"), tagged(source, "task"), strict=True):
        assert cell.source.endswith(f"    {STUB}")
        (body,) = re.findall(r"### BEGIN SOLUTION\n(.*)\n *### END SOLUTION", solved.source, flags=re.DOTALL)
        assert body.strip() not in "\n".join(one.source for one in copy.cells if one.cell_type == "code")
    for cell in tagged(copy, "solution"):
        assert cell.cell_type == "markdown"
        assert cell.source.startswith("<details><summary>Solution</summary>\n\n```python\n")
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in copy.cells)


@each
def test_a_copy_with_its_solutions_put_back_is_the_notebook(path):
    source, copy = read(path), copy_of(path)
    back = [cell for cell in copy.cells if "guess" not in cell.metadata.get("tags", [])]
    assert [cell.id for cell in back] == [cell.id for cell in source.cells]
    for cell, own in zip(back, source.cells, strict=True):
        tags = own.metadata.get("tags", [])
        if "parameters" in tags:
            assert cell.source == own.source.replace('"smoke"', '"learner"')
        elif "solution" in tags:
            assert cell.source == f"<details><summary>Solution</summary>\n\n```python\n{own.source}\n```\n\n</details>"
        elif "task" not in tags:
            assert (cell.cell_type, cell.source, cell.metadata) == (own.cell_type, own.source, own.metadata)


@each
def test_links_of_a_copy_lead_somewhere(path):
    for cell in copy_of(path).cells:
        for target in re.findall(r"\]\(([^)\s#]+)", cell.source) if cell.cell_type == "markdown" else ():
            if not re.match("[a-z]+:", target):
                assert (NOTEBOOKS if target.endswith(".ipynb") else LEARNER).joinpath(target).resolve().exists()


def test_links_are_led_from_where_a_copy_is():
    lines = "[a](00_start_here.ipynb) [b](../docs/claims.md#c01) [c](profiles/study.yaml) [d](https://x.org)"
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(lines)])
    there = lines.replace("profiles/", "../notebooks/profiles/")
    assert make_copy(source, LEARNER).cells[0].source == there
    assert make_copy(source, LEARNER / "own").cells[0].source == there.replace("../", "../../")


def first_task(copy):
    """The task and its check, and the imports above them: what has to run before the task is asked for."""
    place = next(place for place, cell in enumerate(copy.cells) if "task" in cell.metadata.get("tags", []))
    above = [ast.parse(cell.source).body for cell in copy.cells[:place] if cell.cell_type == "code"]
    imports = [line for body in above for line in body if isinstance(line, ast.Import | ast.ImportFrom)]
    space = {}
    for code in (ast.Module(imports, []), ast.parse(copy.cells[place].source)):
        # Names in annotations need not be there.
        exec(compile(code, "copy", "exec", __future__.annotations.compiler_flag), space)
    return space, copy.cells[place + 1].source


WITH_TASKS = [path for path in PATHS if tagged(read(path), "task")]


@pytest.fixture
def solutions():
    use_solutions()
    yield
    use_solutions(False)


@pytest.mark.parametrize("path", WITH_TASKS, ids=lambda path: path.stem)
def test_a_copy_stops_at_its_first_task_and_says_how_to_go_on(path):
    space, check = first_task(copy_of(path))
    name = re.search(r'check\("(\w+)"', check)[1]
    ask = tasks_of(name[:2])[name].ask
    with pytest.raises(Unsolved, match=rf"^task {name}: not solved yet\. {re.escape(ask)} To read on without it, run"):
        exec(check, space)


@pytest.mark.usefixtures("solutions")
@pytest.mark.parametrize("path", WITH_TASKS, ids=lambda path: path.stem)
def test_with_solutions_a_copy_goes_on(path):
    space, check = first_task(copy_of(path))
    exec(check, space)
    name, task = re.match(r'(\w+) = check\("(\w+)"', check).groups()
    assert space[name] is tasks_of(task[:2])[task].answer


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_copy_runs_with_solutions_and_stops_without(monkeypatch):
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    where = {"timeout": 600, "kernel_name": "python3", "resources": {"metadata": {"path": str(NOTEBOOKS)}}}
    copy = make_copy(read(PATHS[0]), LEARNER)
    with pytest.raises(CellExecutionError, match="task 00_average: not solved yet"):
        NotebookClient(copy, **where).execute()
    asked = "from gcplib.lab.course import use_solutions; use_solutions()"
    copy.cells.insert(1, nbformat.v4.new_code_cell(asked))
    NotebookClient(copy, **where).execute()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", WITH_TASKS, ids=lambda path: path.stem)
def test_a_copy_runs_with_answers_that_are_written_otherwise(path):
    """What a check accepts on its inputs has to do for every later cell."""
    from nbclient import NotebookClient

    copy = make_copy(read(path), LEARNER)
    for cell in tagged(copy, "check-task"):
        name, task = re.match(r'(\w+) = check\("(\w+)"', cell.source).groups()
        other = f'tasks_of("{task[:2]}")["{task}"].alternatives[0]'
        cell.source = f"from gcplib.lab.course.checking import tasks_of\n{name} = check({task!r}, {other})"
    where = {"timeout": 900, "kernel_name": "python3", "resources": {"metadata": {"path": str(NOTEBOOKS)}}}
    NotebookClient(copy, **where).execute()


def cells_of(*tasks):
    md, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [md("# A title"), code("profile: str = 'smoke'\nseeds: int = 2  # of each")]
    cells[1].metadata["tags"] = ["parameters"]
    for number, cell in enumerate([*cells, *(code(task, outputs=[]) for task in tasks)]):
        cell.id = f"cell-{number}"
        yield cell


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one notebook, which can be written anew, and a study that has finished or not."""
    finished = {}
    monkeypatch.setenv("GCPLIB_NOTEBOOKS", str(tmp_path))
    monkeypatch.setattr(copies, "finished_values", lambda profile: finished)

    def write(*tasks):
        nbformat.write(nbformat.v4.new_notebook(cells=list(cells_of(*tasks))), tmp_path / "00_first.ipynb")

    def make(**how):
        (copy,) = write_copies(["00"], tmp_path / "mine", **how)
        return copy

    write("print(1)")
    return write, make, finished


def test_what_a_learner_has_changed_is_left_alone(course):
    write, make, finished = course
    copy = make()
    assert (copy.state, copy.has_runs) == ("written", False)
    assert str(copy) == "00_first: written; its numbers are those of the notebook itself"
    assert make().state == "up to date"
    mine = nbformat.read(copy.path, as_version=4)
    mine.cells[2].outputs = [nbformat.v4.new_output("stream", text="1")]
    mine.metadata["language_info"] = {"name": "python"}
    nbformat.write(mine, copy.path)
    assert make().state == "up to date"  # it was only run
    mine.cells[2].source = "print(2)"
    nbformat.write(mine, copy.path)
    assert str(make()) == "00_first: yours, left alone"
    write("print(3)")
    assert make().state == "yours, left alone, though the course has changed; --force replaces it"
    assert "print(2)" in copy.path.read_text()
    assert make(force=True).state == "written over yours"
    assert "print(3)" in copy.path.read_text()
    finished["00_first"] = {"profile": "study", "seeds": 5}
    assert str(make()) == "00_first: renewed; its numbers are those of a finished study, whose runs are there"
    assert "seeds: int = 5  # of each" in copy.path.read_text()
    assert 'profile: str = \\"learner\\"' in copy.path.read_text()
    copy.path.write_text("{")
    assert "cannot be read" in make().state
    assert copy.path.read_text() == "{"


def test_sources_for_nbgrader_keep_their_solutions_and_have_a_folder_each(course, tmp_path):
    write, make, _ = course
    write("def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION")
    with pytest.raises(RuntimeError, match="non-solution cell"):
        make()
    copy = make(graded=True)
    assert copy.path == tmp_path / "mine" / "00_first" / "00_first.ipynb"
    assert "BEGIN SOLUTION" in copy.path.read_text()


def test_a_notebook_that_is_not_there_is_refused(course):
    with pytest.raises(ValueError, match="unknown notebook '01'"):
        write_copies(["01"])


def test_values_are_those_of_notebooks_that_a_study_has_finished(tmp_path, monkeypatch):
    from gcplib.lab.study.profiles import make_plan

    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path))
    assert finished_values("study") == {}
    plan = make_plan("study")
    plan.finish(plan.jobs["notebooks/00_start_here"])
    assert finished_values("study") == {"00_start_here": plan.jobs["notebooks/00_start_here"].values}
