"""Try a run before days are spent on it: its data, its network, two steps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from gcplib.lab.training.build import set_up, switch_pool
from gcplib.lab.training.engine import Engine
from gcplib.lab.training.evaluation import evaluate
from gcplib.lab.training.loop import plan_epoch, train_epoch
from gcplib.lab.training.sources import Source
from gcplib.lab.training.spec import RunSpec

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["dry_run"]


def dry_run(spec: RunSpec, fabric: Fabric, engine: Engine) -> dict:
    """Take one step with the pool of every phase of a run, then a timed one, evaluate a batch, and write nothing.

    Returns:
        Counts of images and classes, parameters, seconds a step, hours for the whole run, GPU memory in GB.

    Raises:
        Diverged: the first steps are not finite. Whatever training would raise at its start.
    """
    state, dataset, source = set_up(spec, fabric, engine)
    train = torch.as_tensor(dataset.indices("train"))
    steps = len(plan_epoch(train, spec.recipe, spec.seed, 0))
    batch = train[: spec.recipe.batch_size]
    for phase in sorted({0, *map(spec.recipe.switch_epoch, spec.recipe.switch)}):
        switch_pool(state, spec, phase)
        train_epoch(state, fabric, source, batch, spec.recipe, spec.seed)
    start = time.perf_counter()
    train_epoch(state, fabric, source, batch, spec.recipe, spec.seed)
    seconds = time.perf_counter() - start
    logits = evaluate(state.judged, fabric, source, torch.as_tensor(dataset.indices("test"))[:8], spec.recipe.flip)
    return {
        **{f"{name} images": len(dataset.indices(name)) for name in ("train", "validation", "test")},
        "classes": logits.shape[1],
        "parameters": sum(p.numel() for p in state.network.parameters()),
        "pool": " then ".join(dict.fromkeys([spec.pool, *(entry.pool for entry in spec.recipe.switch)])),
        "device": str(fabric.device),
        "loaders": 0 if isinstance(source, Source) else source.loaders,
        "seconds a step": seconds,
        "hours for all epochs, without evaluation": seconds * steps * spec.recipe.epochs / 3600,
        "GPU memory in GB": torch.cuda.max_memory_allocated() / 1e9 if fabric.device.type == "cuda" else None,
    }
