"""Tests write to a temporary place, and compute on one thread so that they do not depend on the machine."""

import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

# Set before anything imports gcplib, and inherited by workers, commands and the kernels of the notebooks.
_PLACE = None if "PYTEST_XDIST_WORKER" in os.environ else Path(tempfile.mkdtemp(prefix="gcplib-tests-"))
if _PLACE:
    os.environ.setdefault("GCPLIB_CACHE", str(_PLACE / "cache"))
    os.environ.setdefault("GCPLIB_RUNS", str(_PLACE / "runs"))
os.environ["GCPLIB_PROGRESS"] = "0"
os.environ["MPLBACKEND"] = "agg"

# Jupyter's schemas name a format that nobody checks here; its grammar takes three seconds of every process to load.
sys.modules.setdefault("rfc3987_syntax", None)

import nbval.kernel  # noqa: E402
import nbval.plugin  # noqa: E402

_start_kernel = nbval.kernel.start_new_kernel


def _start_without_coverage(*args, **kwargs):
    """Start a kernel that is not measured: notebooks take a fifth longer with it, and tests cover what they use."""
    config = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    try:
        return _start_kernel(*args, **kwargs)
    finally:
        if config is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = config


nbval.kernel.start_new_kernel = _start_without_coverage
# A second measurement by nbval within a kernel would end in an error.
nbval.plugin.setup_coverage = nbval.plugin.teardown_coverage = lambda *_: None

# Files that take longest, which start first: of two workers, none is left alone with a long one at the end.
LONGEST = (
    "tests/lab/study/test_runner.py",
    "notebooks/07_train_fine_grained.ipynb",
    "notebooks/09_gate_with_second_order.ipynb",
    "tests/test_types.py",
    "tests/lab/study/test_stale.py",
    "notebooks/10_pool_invariantly.ipynb",
    "tests/lab/study/test_sweep_study.py",
    "notebooks/06_amplify_small_eigenvalues.ipynb",
    "notebooks/03_measure_gradient_smoothness.ipynb",
    "notebooks/00_start_here.ipynb",
    "notebooks/04_watch_truncation_fail.ipynb",
    "tests/test_notebook_defaults.py",
)


def pytest_collectstart(collector):
    """Let nbval ignore what libraries print on stderr."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)


# What is not measured: up to Python 3.11 it takes half as long again, and these cover lines that others cover, too.
UNMEASURED = re.compile("compile|grad|derivative|process")


def pytest_collection_modifyitems(items):
    """Put the longest files first, in their order, and choose what is measured; within a file nothing moves."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))
    cases = Counter()
    for item in items:
        cases[name := item.nodeid.partition("[")[0]] += 1
        if cases[name] > 13 or UNMEASURED.search(name):
            item.add_marker("no_cover")


def pytest_terminal_summary(terminalreporter):
    """Say how long each part took, one thread's seconds, however many workers shared them."""
    seconds = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                seconds["/".join(report.nodeid.partition("::")[0].split("/")[:2]).partition(".")[0]] += report.duration
    terminalreporter.section("seconds of each part")
    for part, value in seconds.most_common():
        terminalreporter.line(f"{value:7.1f}  {part}")


def pytest_unconfigure():
    if _PLACE:
        shutil.rmtree(_PLACE, ignore_errors=True)


@pytest.fixture(autouse=True)
def _seed():
    import torch  # not by the process that hands out the tests

    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_spec():
    """A data set of a second: 4 families in at least 2 categories."""
    from gcplib.lab.data import TypefacesSpec

    return TypefacesSpec(families=4, train=4, validation=2, test=2, pixels=64)


@pytest.fixture(scope="session")
def tiny_data(tiny_spec):
    from gcplib.lab.data import load_typefaces

    return load_typefaces(tiny_spec)
