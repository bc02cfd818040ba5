"""A small world of its own: tiny notebooks, and a copy of the study's sources that nothing else touches."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import gcplib.lab.study
from gcplib.lab.study.alive import kill_tree

STUDY = Path(gcplib.lab.study.__file__).parent
PACKAGE = STUDY.parents[1]
SNAKEFILE = PACKAGE.parent / "notebooks" / "Snakefile"


# What the study needs of the training, without torch: what a run does is in the name of its pool.
TRAINING = """
import json, os, time
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace

from gcplib.lab.data import TypefacesSpec
from gcplib.lab.files import runs_dir

@dataclass(frozen=True)
class RunSpec:
    pool: str = "good"
    seed: int = 0
    stage: str = "head"
    reduction: int = None
    options: dict = field(default_factory=dict)
    data: TypefacesSpec = TypefacesSpec()

    @classmethod
    def from_dict(cls, values):
        return cls(**{key: TypefacesSpec(**value) if key == "data" else value for key, value in values.items()})

    @property
    def name(self):
        return f"{self.pool}-{self.seed}"

def cache_features(dataset, backbone):
    pass

def ensure(spec):
    folder = runs_dir() / "train" / spec.name
    if not (folder / "result.json").exists():
        with open(runs_dir().parent / "trained", "a") as file:
            drawn = bool(list(runs_dir().glob("smoke/done/data.*")))
            file.write(f"{spec.name} {os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']} {drawn}\\n")
        mended = (runs_dir().parent / "mended").exists()
        if spec.pool == "bad" and not mended:
            raise RuntimeError(f"no luck with <{spec.name}>")
        if spec.pool == "deadly" and not mended:
            os._exit(9)
        while spec.pool == "slow" and not mended:
            time.sleep(0.1)
        while spec.pool == "pair" and len(list(open(runs_dir().parent / "trained"))) < 2:
            time.sleep(0.1)  # one waits for the other
        wild = spec.pool == "wild"
        folder.mkdir(parents=True)
        result = {"outcome": "diverged" if wild else "finished", "seconds": 1.5, "reason": "loss nan" * wild}
        (folder / "result.json").write_text(json.dumps(result))
    return SimpleNamespace(directory=folder, result=json.loads((folder / "result.json").read_text()))
"""


DATA = """
from dataclasses import dataclass
from types import SimpleNamespace

@dataclass(frozen=True)
class TypefacesSpec:
    families: int = 60

def load_typefaces(spec):
    return SimpleNamespace(path="here")
"""


@dataclass
class World:
    """Folders of one test, and ways to fill and use them."""

    root: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    def runs(self, *parts: str) -> Path:
        return self.root.joinpath("runs", *parts)

    def profile(self, text: str, name: str = "smoke") -> Path:
        path = self.notebooks / "profiles" / f"{name}.yaml"
        path.write_text(text)
        return path

    def notebook(
        self, name: str, *code: str, parameters: str = "profile = 'smoke'", heading: str = "# A title", check: str = ""
    ) -> Path:
        first = [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
        first += [new_code_cell(check, metadata={"tags": ["check"]})] if check else []
        document = new_notebook(cells=[new_markdown_cell(heading), *first, *map(new_code_cell, code)])
        # Fixed ids: a notebook written twice with the same text is the same notebook.
        for number, cell in enumerate(document.cells):
            cell["id"] = f"cell-{number}"
        path = self.notebooks / f"{name}.ipynb"
        nbformat.write(document, path)
        return path

    def training(self) -> None:
        """Put a training in the place of the library's that ends as the pool's name says."""
        package = self.root / "sources" / "gcplib"
        training = package / "lab" / "training"
        training.mkdir()
        (training / "__init__.py").write_text(TRAINING)
        (training / "systems.py").write_text("def build_head(*parts):\n    pass\n")
        (package / "lab" / "data.py").write_text(DATA)
        (package / "nn.py").write_text("def create_pool(*sizes, **options):\n    pass\n")

    def trained(self, column: int = 0) -> list[str]:
        """The names of the runs that were trained, in order (or processes, 1; GPUs, 2; whether there were data, 3)."""
        path = self.root / "trained"
        return [line.split(" ")[column] for line in path.read_text().splitlines()] if path.exists() else []

    def environment(self) -> dict[str, str]:
        own = {"GCPLIB_NOTEBOOKS": self.notebooks, "GCPLIB_RUNS": self.runs(), "GCPLIB_CACHE": self.root / "cache"}
        own |= {"GCPLIB_ROOT": self.root, "PYTHONPATH": self.root / "sources"}
        return os.environ | {name: str(value) for name, value in own.items()}

    def start(self, *arguments: str, background: bool = False) -> subprocess.Popen:
        """Start a command; ``background`` as a script's shell does behind ``&``, with Ctrl-C ignored."""
        command = [sys.executable, "-m", "gcplib", *arguments]
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if background else None,
        )
        self.started.append(process)
        return process

    def study(self, *arguments: str) -> tuple[int, str]:
        process = self.start("study", *arguments)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    @staticmethod
    def wait_for(condition, seconds: float = 60.0):
        """Wait until something is true, and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(0.05)
        raise AssertionError(f"waited {seconds} s in vain")

    def facts(self, name: str, profile: str = "smoke") -> dict:
        return json.loads(self.runs(profile, "notebooks", f"{name}.json").read_text())


@pytest.fixture
def world(tmp_path, monkeypatch):
    """An empty folder of notebooks, with environment variables that point the library at it."""
    world = World(tmp_path)
    (world.notebooks / "profiles").mkdir(parents=True)
    shutil.copy(SNAKEFILE, world.notebooks)
    package = tmp_path / "sources" / "gcplib"
    ignored = shutil.ignore_patterns("__pycache__", "data", "training", "analysis", "bench")
    shutil.copytree(PACKAGE / "lab", package / "lab", ignore=ignored)
    # Without the layers there is no torch to import: the tests of the runner are quick, and about the runner.
    (package / "linalg").mkdir()
    for name in ("__init__.py", "__main__.py", "linalg/calls.py"):
        shutil.copy(PACKAGE / name, package / name)
    (package / "linalg" / "__init__.py").write_text("")
    for name in ("GCPLIB_NOTEBOOKS", "GCPLIB_RUNS", "GCPLIB_CACHE", "GCPLIB_ROOT"):
        monkeypatch.setenv(name, world.environment()[name])
    yield world
    for process in world.started:
        if process.poll() is None:
            kill_tree(process.pid)
        process.stdout.close()
