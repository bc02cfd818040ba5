"""The GPU kit: tests, layers, networks and claim C06 on one card, in one JSON that outlives whatever fails.

Each part has a process of its own, because an error on a GPU may spoil all that its process computes afterwards.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import torch

from gcplib.backbones import create_backbone
from gcplib.lab.bench.gpu_results import STEPS, failure, speed_claim
from gcplib.lab.bench.measure import SIZES, Size, measure, one_pass
from gcplib.lab.bench.methods import CUDA_METHODS, METHODS, load_methods
from gcplib.lab.bench.networks import measure_passes
from gcplib.lab.files import project_root, read_json, write_json
from gcplib.lab.machine import describe_machine
from gcplib.lab.progress import duration
from gcplib.models import create_model

EXACT = ("auto route", "full route", "products", "torch eigh", "torch matrix_sqrth", "CuPy eigh")
LAYERS = ("covariance", *(f"exact root, {name}" for name in EXACT), *STEPS)
NETWORKS = {"average": "gap", "Newton-Schulz": "isqrt_cov", "exact root": "mpn_cov"}
TESTS = ("pools_on_gpu", "eigenvectors_on_gpu", "host_and_device", "two_gpus")
OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}

Add = Callable[[dict], None]


@dataclass(frozen=True)
class Settings:
    """What the kit measures, and how often; ``limits``: seconds for a file of tests, for layers, for networks."""

    device: str
    sizes: tuple[Size, ...]
    rounds: int
    pixels: tuple[int, ...]
    batch: int
    steps: int
    backbone: str
    reduction: int
    limits: tuple[int, int, int]


# The sizes that papers have come first, lest time runs out: all limits together are eight minutes.
PAPERS = ((64, 256, 196), (256, 256, 49), (64, 64, 196), (128, 128, 784))
FULL = Settings("cuda", PAPERS + SIZES, 7, (224, 448), 32, 3, "resnet50", 256, (40, 180, 70))
TINY = Settings("cpu", ((3, 6, 9), (3, 8, 5)), 3, (64,), 2, 1, "test_resnet", 8, (90, 90, 90))


def _facts() -> dict:
    """Return the machine, and what decides how fast and how well a card decomposes matrices."""
    installed = {found.name: found.version for found in importlib.metadata.distributions()}
    solver = next((version for name, version in installed.items() if name.startswith("nvidia-cusolver")), None)
    facts = {"cuda": torch.version.cuda, "cusolver": solver, "driver": None, "gpus": []}
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        facts["gpus"] = [f"{c.name}, {c.total_memory / 2**30:.0f} GiB, {c.major}.{c.minor}" for c in cards]
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
            facts["driver"] = found.split()[0]
        except (OSError, subprocess.SubprocessError, IndexError) as error:
            facts["driver"] = f"unknown: {error}"
    return describe_machine() | facts


def _said(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def run_tests(name: str, settings: Settings, seconds: int) -> dict:
    """Run a file of ``tests/cuda``; a row per test, with what the test recorded."""
    root, found = project_root(), f"tests/cuda/test_{name}.py"
    if not (root / found).is_file():
        raise FileNotFoundError(f"no {found} in {root}; the kit's tests come with a checkout, not with a wheel")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tests.xml"
        # A card may bring warnings that nobody has seen here; they are no failures.
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "--durations=0"]
        ended = subprocess.run(
            [*command, f"--junitxml={path}", found],
            cwd=root,
            env=os.environ | {"GCPLIB_CUDA_TESTS": settings.device},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if ended.returncode not in (0, 1) or not path.is_file():
            said = (ended.stdout + ended.stderr).splitlines()
            said = [line for line in said if line.startswith("E ")] or said[-5:]
            raise RuntimeError(f"pytest ended with code {ended.returncode}: {'; '.join(said)[:1500]}")
        return {"rows": [_test_row(case) for case in ElementTree.parse(path).iter("testcase")]}


def _test_row(case: ElementTree.Element) -> dict:
    row = {"test": case.get("name"), "outcome": "passed", "seconds": float(case.get("time", 0))}
    for child in case:
        if child.tag in OUTCOMES:
            row |= {"outcome": OUTCOMES[child.tag], "message": child.get("message", "")[:1500]}
    found = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
    return row | ({"found": found} if found else {})


def time_layers(settings: Settings, add: Add) -> None:
    """Add a row of ``measure`` for every size and method, and one with the reason for what cannot run."""
    known = METHODS + (CUDA_METHODS if settings.device == "cuda" else ())
    functions, skipped = load_methods(method for method in known if method.name in LAYERS)
    for name in [name for name in LAYERS if name not in {method.name for method in known}]:
        skipped[name] = "needs CUDA" if settings.device == "cpu" else "this version has no such route"
    for name, reason in skipped.items():
        add({"method": name, "skipped": reason})
    for size in settings.sizes:
        ready, about = dict(functions), dict(zip(("batch", "channels", "positions"), size, strict=True))
        x = torch.randn(size, device=settings.device).requires_grad_()
        for method, function in functions.items():
            try:  # also sets up what a solver sets up at first use
                one_pass(partial(function, ridge=1.0) if method.ridge else function, x, x.detach() @ x.detach().mT)
            except Exception as error:
                del ready[method]
                add({"method": method.name, **about, "failed": _said(error)})
        try:
            for row in measure(size, ready, settings.rounds, settings.device, slow=2.0, each_round=True):
                add(row)
        except Exception as error:
            add({**about, "failed": _said(error)})


def time_networks(settings: Settings, pixels: int, add: Add) -> None:
    """Add a row of ``measure_passes`` for every network."""
    networks = {}
    for name, pool in NETWORKS.items():
        torch.manual_seed(0)
        backbone = create_backbone(settings.backbone, pretrained=False, options={"output_stride": 16})
        networks[name] = create_model(backbone, pool, 200, reduction=settings.reduction, device=settings.device)
    for row in measure_passes(networks, pixels, settings.batch, settings.rounds, settings.steps, settings.device):
        add(row)


def _child(work: Callable[[Add], None], path: Path) -> None:
    rows: list[dict] = []

    def add(row: dict) -> None:
        rows.append(row)
        write_json(path, {"rows": rows})

    try:
        work(add)
    except Exception as error:
        write_json(path, {"rows": rows, "error": _said(error)})


def isolated(work: Callable[[Add], None], seconds: int) -> dict:
    """Return the rows that ``work`` adds in a process of its own, and why it ended early if so it did."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        process = multiprocessing.get_context("spawn").Process(target=_child, args=(work, path))
        process.start()
        process.join(seconds)
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
        found = {"rows": []} | read_json(path)
    if late or process.exitcode:
        found["error"] = f"stopped after {seconds} s" if late else f"the process ended with code {process.exitcode}"
    return found


def run_kit(settings: Settings, path: Path) -> dict:
    """Run all parts, one after the other, write what is known to ``path`` after each, and return it."""
    tests, layers, networks = settings.limits
    parts: dict[str, tuple[int, Callable[[int], dict]]] = {
        f"tests: {name.replace('_', ' ')}": (tests, partial(run_tests, name, settings)) for name in TESTS
    }
    parts["layers"] = layers, partial(isolated, partial(time_layers, settings))
    for pixels in settings.pixels:
        parts[f"networks, {pixels} px"] = networks, partial(isolated, partial(time_networks, settings, pixels))
    parts["claim C06"] = 1, lambda _: {"rows": []} | speed_claim(document)
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    document = {"date": date, "settings": asdict(settings), "machine": _facts(), "parts": {}}
    for number, (name, (seconds, run)) in enumerate(parts.items(), 1):
        left = sum(limit for limit, _ in list(parts.values())[number - 1 :])
        print(f"{number} of {len(parts)}: {name}; at most {duration(left)} left", flush=True)
        start = time.monotonic()
        try:
            found = run(seconds)
        except Exception as error:  # recorded, and the next part has its turn
            late = isinstance(error, subprocess.TimeoutExpired)
            found = {"rows": [], "error": f"stopped after {seconds} s" if late else f"{type(error).__name__}: {error}"}
        document["parts"][name] = found | {"seconds": round(time.monotonic() - start, 1)}
        document["finished"] = number == len(parts)
        write_json(path, document)
        print(f"   {_summary(found)}, {duration(time.monotonic() - start)}", flush=True)
    return document


def _summary(found: dict) -> str:
    words = [
        "failed" if failure(row) else row.get("outcome") or ("skipped" if "skipped" in row else "measured")
        for row in found["rows"]
    ]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    return "; ".join(filter(None, [counts, found.get("error")]))
