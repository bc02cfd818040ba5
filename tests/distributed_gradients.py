"""Small networks in two processes: with DistributedDataParallel their gradients are those of the whole batch."""

import os

import torch
from torch import nn

from gcplib import create_pool

NAMES = ("mpn_cov", "isqrt_cov", "svd_taylor")


def _network(name):
    torch.manual_seed(0)
    pool = create_pool(name, 6)
    return nn.Sequential(nn.Conv2d(3, 6, 1), pool, nn.Linear(pool.out_features, 2))


def _gradients(model, x, target):
    nn.functional.cross_entropy(model(x), target).backward()
    return [p.grad.cpu() for p in model.parameters()]


def _worker(rank, place, backend, x, target, want):
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, init_method=f"file://{place}", rank=rank, world_size=2)
    try:
        half = slice(4 * rank, 4 * rank + 4)
        for name, gradients in want.items():
            model = nn.parallel.DistributedDataParallel(_network(name).to(device))
            found = _gradients(model, x[half].to(device), target[half].to(device))
            for got, expected in zip(found, gradients, strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    finally:
        torch.distributed.destroy_process_group()


def check_distributed(folder, backend):
    """Raise unless two processes, on CPUs (``gloo``) or on two GPUs (``nccl``), find the gradients of one."""
    x, target = torch.randn(8, 3, 4, 4), torch.randint(2, (8,))
    want = {name: _gradients(_network(name), x, target) for name in NAMES}
    torch.multiprocessing.spawn(_worker, (folder / "meeting", backend, x, target, want), nprocs=2)
