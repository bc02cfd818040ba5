"""What docs/colab.md tells people to run where there is no checkout, and the dev container."""

import json
import os
import re
import subprocess
import sys

import pytest
from requirements_of import EXTRAS, ROOT, declared

from tests.test_wheel import _environment

PAGE = (ROOT / "docs" / "colab.md").read_text()
(CELL,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(INSTALLED,) = re.findall(r'"\.\[([\w,]+)\]"', CELL)
NAMES = re.findall(r"\(\.\./notebooks/(\w+)\.ipynb\)", PAGE)


def test_the_cell_installs_from_the_checkout_that_it_makes():
    clone, place, install = CELL.splitlines()[1:]
    assert clone.endswith("$REPOSITORY gcplib")
    assert place == "%cd gcplib"
    assert set(INSTALLED.split(",")) <= set(EXTRAS)
    for path in re.findall(r"--requirement (\S+)", install):
        assert (ROOT / path).is_file()
    assert [name[:2] for name in NAMES] == ["00", "01", "02", "03"]


def test_the_dev_container_runs_a_target_that_there_is():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    (target,) = re.fullmatch(r"make (\w+)", container["postCreateCommand"]).groups()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert re.search(r":3\.1[1-9]$", container["image"])


RUN = """
import json, os, sys
os.chdir(sys.argv[1])
cells = json.load(open(f"notebooks/{sys.argv[2]}.ipynb"))["cells"]
import gcplib
assert gcplib.__file__.startswith(sys.argv[1]), gcplib.__file__  # as in a kernel, which looks in its folder first
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in cells:
    if cell["cell_type"] == "code":
        shell.run_cell("".join(cell["source"])).raise_error()
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebooks_run_from_a_clone_and_what_the_cell_installs(tmp_path):
    # As the cell does, without a network: packages are linked from here, and the clone's own is built.
    clone, wheels = tmp_path / "gcplib", tmp_path / "wheels"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(clone)], check=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=clone, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    fonts = [line.split()[0] for line in (ROOT / "data" / "typefaces.txt").read_text().splitlines() if "==" in line]
    python = _environment(tmp_path / "colab", wheel, [*declared(*INSTALLED.split(",")), *fonts])
    # No variable of these tests; Colab draws into the page.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GCPLIB_", "PYTHON"))}
    kept |= {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "GCPLIB_CACHE": str(ROOT / "data" / "cache")}
    for name in NAMES:
        done = subprocess.run([python, "-c", RUN, str(clone), name], text=True, capture_output=True, env=kept)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
