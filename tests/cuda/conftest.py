"""Tests of what only a GPU can show: `make gpu` runs them, `make test` skips them where there is none.

With `GCPLIB_CUDA_TESTS=cpu` those that make sense on a CPU run there, which tries the tests and not the library.
"""

import os

import pytest
import torch


@pytest.fixture
def device():
    chosen = os.environ.get("GCPLIB_CUDA_TESTS", "cuda")
    if chosen == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA: torch sees no GPU")
    return chosen


@pytest.fixture
def gpu(device):
    if device != "cuda":
        pytest.skip("needs CUDA: a CPU has no such thing")
    return device
