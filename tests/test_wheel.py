"""The wheel alone: the core works where there is torch, timm and numpy, and nothing else but what these require."""

import os
import re
import subprocess
import sys
import venv
import zipfile

import pytest
from requirements_of import ROOT, declared, required

MAKE_EVERYTHING = """
import sys

import torch

import gcplib
from gcplib import linalg, nn

def step(module, x):
    y = module.train()(x)
    y = y[0] if isinstance(y, tuple) else y
    y.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    return y.shape

torch.manual_seed(0)
x = torch.randn(4, 64, 9, 9, requires_grad=True)
for name in gcplib.list_pools():
    pool = gcplib.create_pool(name, in_channels=64, reduction=8)
    assert step(pool, x) == (4, pool.out_features), name
    backbone = gcplib.create_backbone("test_resnet", pretrained=False, stride=16)
    model = gcplib.create_model(backbone, name, num_classes=3, reduction=8)
    assert step(model, torch.randn(2, 3, 64, 64)) == (2, 3), name
for rule in linalg.list_rules():
    step(gcplib.CovariancePool(64, fn="sqrt", rule=rule, compute_dtype="float64"), x)
for gate in nn.list_gates():
    nn.create_gate(64, gate)(x).sum().backward()
strangers = [name for name in sys.modules if name.startswith("gcplib.lab")]
assert not strangers, strangers
"""

# What is asked for, where only the core is installed or the extra `train`, and the extra that it lacks.
LACKING = [
    ("bare", ("-m", "gcplib", "train", "--list"), "train"),
    ("bare", ("-c", "import gcplib.lab.data"), "train"),
    ("training_node", ("-m", "gcplib", "study"), "notebooks|workflow|docs"),
]


def build(out, *kinds, root=ROOT):
    """Build ``wheel`` or ``sdist`` from a checkout; return what was built."""
    command = [sys.executable, "-m", "hatchling", "build", *(word for kind in kinds for word in ("-t", kind))]
    subprocess.run([*command, "-d", str(out)], cwd=root, check=True, capture_output=True)
    return sorted(out.glob("gcplib-*"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    (path,) = build(tmp_path_factory.mktemp("wheel"), "wheel")
    return path


def _environment(root, wheel, requirements):
    """Make an environment with a wheel and what it requires, which is linked, not copied; return its interpreter."""
    venv.create(root, symlinks=True)
    (site,) = root.glob("lib/python*/site-packages")
    for distribution in required(requirements).values():
        for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(distribution.locate_file(name))
    zipfile.ZipFile(wheel).extractall(site)  # installing does the same, and writes the console script
    return root / "bin" / "python"


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    return _environment(tmp_path_factory.mktemp("bare"), wheel, declared())


@pytest.fixture(scope="module")
def training_node(wheel, tmp_path_factory):
    return _environment(tmp_path_factory.mktemp("train"), wheel, declared("train"))


def _run(python, *arguments, **options):
    # Isolated from this checkout and from the variables of these tests.
    return subprocess.run([python, "-I", *arguments], text=True, capture_output=True, **{"cwd": "/"} | options)


def test_wheel_holds_the_package_its_data_and_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"gcplib/py.typed", "gcplib/lab/data/typefaces.txt", "gcplib/lab/data/words.txt"} <= set(names)
    assert "gcplib/lab/study/claims.yaml" in names
    assert {name.split("/")[0] for name in names} == {
        "gcplib",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    assert any(re.fullmatch(r"gcplib/lab/training/published_recipes/\w+\.yaml", name) for name in names)


def test_core_makes_every_pool_model_and_gradient_with_torch_timm_and_numpy_alone(bare):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = _run(bare, "-W", "error::FutureWarning:gcplib", "-c", MAKE_EVERYTHING, env=environment)
    assert done.returncode == 0, done.stderr


def test_environment_has_nothing_else(bare):
    code = (
        "import importlib.util as u; print([n for n in ('pandas', 'scipy', 'pytest', 'matplotlib') if u.find_spec(n)])"
    )
    assert _run(bare, "-c", code).stdout.strip() == "[]"


def test_import_takes_less_than_a_tenth_of_a_second_and_no_torch(bare):
    code = (
        "import sys, time; start = time.perf_counter(); import gcplib; print(time.perf_counter() - start);"
        "assert not {'torch', 'numpy', 'timm', 'gcplib.lab'} & set(sys.modules)"
    )
    assert min(float(_run(bare, "-c", code, check=True).stdout) for _ in range(3)) < 0.1


@pytest.mark.parametrize(("where", "arguments", "extra"), LACKING)
def test_lab_says_which_extra_it_lacks(request, tmp_path, where, arguments, extra):
    place = {"cwd": ROOT, "env": os.environ | {"GCPLIB_RUNS": str(tmp_path)}}
    done = _run(request.getfixturevalue(where), *arguments, **place)
    assert done.returncode == (2 if arguments[0] == "-m" else 1)
    assert re.search(rf"pip install 'gcplib\[({extra})\]'$", done.stderr.splitlines()[-1])
    assert ("Traceback" in done.stderr) == (arguments[0] == "-c")


@pytest.mark.slow
def test_training_node_trains_without_jupyter(training_node):
    assert "tpami2022/cub" in _run(training_node, "-m", "gcplib", "train", "--list", check=True).stdout
    code = "import importlib.util as u; print([n for n in ('jupyterlab', 'papermill', 'snakemake') if u.find_spec(n)])"
    assert _run(training_node, "-c", f"import gcplib.lab.data, gcplib.lab.training; {code}").stdout.strip() == "[]"


def test_it_carries_its_license_and_nothing_of_others(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith("/licenses/LICENSE")]
        assert file.read(name).startswith(b"MIT License")
        assert not re.findall(r"\S+[.](?:ttf|otf|pth|safetensors|jpe?g|onnx)\b", "\n".join(file.namelist()))


@pytest.mark.slow
def test_builds_of_two_checkouts_are_the_same_bytes(tmp_path):
    built = []
    for name in ("one", "other"):
        root = tmp_path / name
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
        for path in root.rglob("*.py"):
            os.utime(path, (1.6e9 + len(built), 1.7e9 + len(built)))
        built.append(build(tmp_path / f"{name}-built", "sdist", "wheel", root=root))
    assert [path.suffix for path in built[0]] == [".whl", ".gz"]
    for one, other in zip(*built, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes(), one.name


def test_version_is_the_packages(wheel):
    import gcplib

    assert wheel.name.startswith(f"gcplib-{gcplib.__version__}-")
