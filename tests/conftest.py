"""Tests write to a temporary place, and compute on one thread so that they do not depend on the machine."""

import os
import tempfile
from pathlib import Path

import pytest

# Set before anything imports gcplib, and inherited by the kernels of the notebooks.
_PLACE = Path(tempfile.mkdtemp(prefix="gcplib-tests-"))
os.environ.setdefault("GCPLIB_CACHE", str(_PLACE / "cache"))
os.environ.setdefault("GCPLIB_RUNS", str(_PLACE / "runs"))
os.environ["GCPLIB_PROGRESS"] = "0"
os.environ["MPLBACKEND"] = "agg"

import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_collectstart(collector):
    """Let nbval ignore what libraries print on stderr."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_spec():
    """A data set of a second: 4 families in at least 2 categories."""
    from gcplib.lab.data import TypefacesSpec

    return TypefacesSpec(families=4, train=4, validation=2, test=2, pixels=64)


@pytest.fixture(scope="session")
def tiny_data(tiny_spec):
    from gcplib.lab.data import load_typefaces

    return load_typefaces(tiny_spec, progress=False)
