"""Editing a file makes those notebooks stale whose results depend on it, and no others."""

import importlib
import json
import re
import shutil
from pathlib import Path

import pytest

import gcplib
from gcplib.lab.study import sources
from gcplib.lab.study.profiles import make_plan

ROOT = Path(gcplib.__file__).parents[1]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the checkout that may be edited, and a way to ask which notebooks an edit has made stale."""
    ignored = shutil.ignore_patterns("__pycache__", "cache", "tests")
    for name in ("gcplib", "notebooks", "data"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("GCPLIB_NOTEBOOKS", raising=False)
    monkeypatch.setattr(sources, "PACKAGE", tmp_path / "gcplib")

    def keys():
        return {job.label[:2]: job.key for job in make_plan("study").of("notebooks")}

    before = keys()

    def stale(path, old, new):
        """Edit a file, and return the notebooks whose keys change by it."""
        text = (tmp_path / path).read_text()
        assert old in text, path
        (tmp_path / path).write_text(text.replace(old, new, 1))
        after = keys()
        (tmp_path / path).write_text(text)
        return [name for name, key in after.items() if key != before[name]]

    yield stale
    assert keys() == before  # and back again


EVERY = [f"{number:02d}" for number in range(13)]


def using(*names):
    """Notebooks whose code has a name."""
    cells = {path.stem[:2]: json.loads(path.read_text())["cells"] for path in (ROOT / "notebooks").glob("*.ipynb")}
    code = {
        name: "".join(s for c in found if c["cell_type"] == "code" for s in c["source"])
        for name, found in cells.items()
    }
    return sorted(name for name, text in code.items() if any(re.search(rf"\b{word}\b", text) for word in names))


def test_a_module_makes_those_stale_that_use_it(checkout):
    assert checkout("gcplib/lab/data/corruptions.py", "\nimport numpy", "\nX = 1\nimport numpy") == ["08"]
    # Every notebook trains or compares pools; the second only differentiates.
    assert checkout("gcplib/lab/training/recipe.py", "\n__all__", "\nX = 1\n__all__") == [n for n in EVERY if n != "02"]
    assert checkout("gcplib/linalg/spectral.py", "\nimport torch", "\nX = 1\nimport torch") == EVERY
    recorded = [name for name in EVERY if name in using("record", "Evidence", "finding")]
    assert checkout("gcplib/lab/study/verdicts.py", "LEAST_N", "LEAST_M") == recorded


@pytest.mark.slow
def test_what_no_notebook_uses_makes_none_stale(checkout):
    assert checkout("gcplib/lab/bench/methods.py", "\nfrom", "\nX = 1\nfrom") == []
    assert checkout("gcplib/lab/study/watch.py", "HEARTBEAT = 20", "HEARTBEAT = 21") == []
    # A package's list of names is no part of what they say.
    assert checkout("gcplib/lab/analysis/__init__.py", "\n__all__", "\nX = 1\n__all__") == []


def test_comments_docstrings_and_layout_make_none_stale(checkout):
    path = "gcplib/lab/training/recipe.py"
    assert checkout(path, "\n__all__", "\n# A comment.\n\n__all__") == []
    assert checkout(path, '"""How to train', '"""In which way to train') == []


@pytest.mark.slow
def test_data_make_those_stale_that_read_them(checkout):
    assert checkout("data/evidence/amplification@typefaces.csv", "\n", "\n\n") == ["06"]
    assert checkout("data/published.csv", "\n", "\n\n") == ["07"]
    assert checkout("data/typefaces.txt", "\n", "\n# x\n") == [name for name in EVERY if name != "02"]
    recorded = [name for name in EVERY if name in using("record", "Evidence", "finding")]
    assert checkout("gcplib/lab/study/claims.yaml", "C01:", "\nC01:") == recorded


@pytest.mark.slow
def test_text_and_parameters_make_the_one_notebook_stale(checkout):
    name = "notebooks/02_differentiate_the_square_root.ipynb"
    cells = json.loads((ROOT / name).read_text())["cells"]
    line = json.dumps(next(cell for cell in cells if cell["cell_type"] == "markdown")["source"][0])
    assert checkout(name, line, line.replace(" ", "  ", 1)) == ["02"]
    assert checkout(name, '"execution_count": null', '"execution_count": 7') == []
    assert checkout("notebooks/profiles/study.yaml", "gaps: 17", "gaps: 18") == ["02"]
    shared = [name for name in using("families") if name not in ("10", "12")]  # these have their own
    assert checkout("notebooks/profiles/study.yaml", "families: 50", "families: 49") == shared


@pytest.mark.parametrize("package", ["gcplib", *(f"gcplib.{n}" for n in ("linalg", "nn", "lab.analysis", "lab.study"))])
def test_every_public_name_of_a_package_leads_to_its_module(package):
    library = sources.Library()
    for name in importlib.import_module(package).__all__:
        assert library._place(package, name).name != "__init__.py", name


def test_imports_within_functions_and_by_name_count(tmp_path):
    package = tmp_path / "gcplib"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from gcplib.b import g\n    return g")
    (package / "b.py").write_text("import importlib\ng = importlib.import_module('gcplib.c')\nTABLE = 'table.csv'")
    (package / "c.py").write_text("if TYPE_CHECKING:\n    from gcplib.d import h")
    (package / "d.py").write_text("h = 1")
    (package / "table.csv").write_text("1")
    found = sources.Library(package, tmp_path / "data").files_of("%matplotlib inline\nfrom gcplib.a import f")
    assert [path.name for path in found] == ["a.py", "b.py", "c.py", "table.csv"]
