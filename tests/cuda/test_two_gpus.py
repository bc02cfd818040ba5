"""Training on two GPUs; `GCPLIB_CUDA_TESTS=cpu` takes two processes on a CPU instead."""

import pytest
import torch
from distributed_gradients import check_distributed

pytestmark = pytest.mark.cuda


def test_gradients_on_two_gpus_are_those_of_one(device, tmp_path):
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("one GPU: not run")
    check_distributed(tmp_path, "nccl" if device == "cuda" else "gloo")
