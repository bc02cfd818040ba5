"""A cell that is run again, after any other, does what it did: names have one meaning in a notebook."""

import ast
import symtable

import nbformat
import pytest
from notebook_code import NOTEBOOKS

from gcplib.lab.course.session import SHARED

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def bound_by(statement):
    """The names that a statement binds at the top level, and those that are definitions or imports."""
    names, firm = set(), set()

    def visit(node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            firm.add(node.name)
            return
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            return  # scopes of their own; a walrus in one is not used here
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            names.update(found)
            firm.update(found)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names.add(node.id)
        if isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(statement)
    return names, firm


def read_by(statement):
    """The names that a statement reads from the top level: at once, and whenever a function of its is called."""
    at_once, later = set(), set()

    def visit(table, deferred):
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
                (later if deferred else at_once).add(symbol.get_name())
        for child in table.get_children():
            # Comprehensions and lambdas are functions to Python, but here they run where they stand.
            visit(child, deferred or child.get_name() in named)

    named = {node.name for node in ast.walk(statement) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    visit(symtable.symtable(ast.unparse(statement), "cell", "exec"), False)
    return at_once, later


def needed_by(cell):
    """The names that a cell takes from others: it reads them before it has bound them, or in a function later on."""
    needed, own = set(), set()
    for statement in ast.parse(cell.source).body:
        bound, _ = bound_by(statement)
        at_once, later = read_by(statement)
        if isinstance(statement, ast.For | ast.While | ast.If | ast.With | ast.Try):
            # What a block binds may be read in it, but for the head of a loop.
            at_once = (at_once - bound) | (
                read_by(ast.Expr(statement.iter))[0] if hasattr(statement, "iter") else set()
            )
        needed |= later | (at_once - own)
        own |= bound
    return needed


def faults_of(cells):
    """The names of a notebook that have two meanings, with the cells that bind and need them, counted from 0."""
    binders, firm, needs = {}, {}, {}
    for place, cell in enumerate(cells):
        parameters = "parameters" in cell.metadata.get("tags", [])
        if "check-task" in cell.metadata.get("tags", []):
            continue  # an answer becomes the checked answer, which does the same
        for statement in ast.parse(cell.source).body:
            names, fixed = bound_by(statement)
            for name in names:
                binders.setdefault(name, set()).add(place)
            for name in names if parameters else fixed:
                firm.setdefault(name, set()).add(place)
        for name in needed_by(cell):
            needs.setdefault(name, set()).add(place)
    faults = []
    for name, places in sorted(binders.items()):
        if len(places) > 1 and (name in firm or needs.get(name)):
            faults.append(f"{name}: bound in code cells {sorted(places)}, needed by {sorted(needs.get(name, ()))}")
    return faults


def notebook_of(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    return cells


def test_the_rule_finds_what_it_is_for():
    def found(*sources):
        return [fault.partition(":")[0] for fault in faults_of(notebook_of("root = ''", *sources))]

    assert found("p = 1", "print(p)", "p = 2") == ["p"]  # the second cell run again would print 2
    assert found("root = 'here'") == ["root"]  # a parameter
    assert found("from math import pi", "pi = 3") == ["pi"]
    assert found("def f():\n    return 1", "def f():\n    return 2") == ["f"]
    assert found("a = 1", "a = a + 1") == ["a"]
    assert found("a = 1\ndef f():\n    return a", "a = 2\nprint(a)") == ["a"]
    assert found("for x in range(2):\n    print(x)", "x = 1\nprint(x)", "sum(x for x in [1])") == []
    assert found("fig = 1\nfig", "fig = 2\nfig", "def f(fig):\n    return fig") == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_the_setting_is_made_of_is_bound_by_the_parameters_alone(path):
    taken = {*SHARED, "epochs", "recipe"}
    for cell in code_cells(path):
        if "parameters" not in cell.metadata.get("tags", []):
            bound = {name for statement in ast.parse(cell.source).body for name in bound_by(statement)[0]}
            assert not bound & taken, cell.source


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_names_have_one_meaning(path):
    assert faults_of(code_cells(path)) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_cells_run_again_after_the_whole_notebook(path):
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    with client.setup_kernel():
        places = [place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
        # Backwards, so that every cell meets what the cells after it have left behind.
        for place in [*places, *reversed(places)]:
            client.execute_cell(notebook.cells[place], place)
