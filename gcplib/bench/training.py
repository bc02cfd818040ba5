"""``python -m gcplib.bench.training``: how fast whole networks train, pictures and all, with each pool and system."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

from gcplib.data import TypefacesSpec
from gcplib.progress import track
from gcplib.study.machine import describe_machine, machine_line
from gcplib.study.tables import keep_tables, save_table
from gcplib.training.build import set_up
from gcplib.training.engine import Engine, make_fabric
from gcplib.training.loop import train_epoch
from gcplib.training.recipe import Recipe
from gcplib.training.spec import RunSpec

__all__ = ["main", "measure_training"]


@dataclass(frozen=True)
class Case:
    """A network to time: fields of its ``RunSpec`` and ``Recipe``, and the case that it is compared with."""

    pool: str
    beside: str = "gap"
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    loss: str = "cross_entropy"


CASES = {
    "gap": Case("gap"),
    "cov": Case("cov"),
    "isqrt_cov": Case("isqrt_cov"),
    "mpn_cov": Case("mpn_cov"),
    "svd_original": Case("svd_original"),
    "gaussian": Case("gaussian", "mpn_cov"),
    "idccp": Case("idccp", "mpn_cov"),
    # Stages of the default backbone; other backbones have others.
    "channel gates": Case("gap", systems={"gate": {"kind": "channel", "stages": ["blocks.2", "blocks.4"]}}),
    "squeeze-and-excitation": Case(
        "gap", systems={"gate": {"kind": "se", "like": "channel", "stages": ["blocks.2", "blocks.4"]}}
    ),
    "eight views": Case("mpn_cov", "mpn_cov", {"views": {"mode": "all"}}),
    "diversification": Case("gap", systems={"diversify": {}}, loss="gce(5)"),
    "Coarse2Fine": Case("gap", systems={"coarse2fine": {"first": 0}}),
}


def measure_training(
    pixels: int, names: Sequence[str], rounds: int, steps: int, engine: Engine, **fields
) -> pd.DataFrame:
    """Return one row a case: pictures a second in training, from the encoded picture to the optimiser's step.

    Rounds are interleaved and shuffled, so that what else the machine does falls on all cases alike.

    Args:
        pixels: side of the pictures. names: of ``CASES``, with those that they are compared with.
        rounds: timed passes of each, after one to warm up. steps: of each pass.
        fields: of the ``RunSpec``, such as backbone and reduction.

    Returns:
        Median and quartiles of pictures a second, the median over the rounds of its speed as a share of that of the
        case ``beside`` it in the same round, and the share of the time spent waiting for pictures.

    Raises:
        ValueError: an unknown case, or one without that which it is compared with.
    """
    for name in names:
        if name not in CASES:
            raise ValueError(f"unknown case {name!r}; known: {', '.join(CASES)}")
        if CASES[name].beside not in names:
            raise ValueError(f"{name!r} is compared with {CASES[name].beside!r}; time that, too")
    batch = 32
    families = 12
    data = TypefacesSpec(families=families, train=-(-batch * steps // families), validation=1, test=1, pixels=pixels)
    fabric = make_fabric(engine, "float32")

    def ready(case: Case) -> tuple:
        recipe = Recipe(epochs=1, batch_size=batch, learning_rate=0.01, schedule="constant", loss=case.loss)
        spec = RunSpec(pool=case.pool, stage="full", data=data, recipe=recipe, systems=case.systems, **fields)
        state, dataset, source = set_up(spec, fabric, engine)
        return state, source, torch.as_tensor(dataset.indices("train"))[: batch * steps], recipe

    networks = {name: ready(CASES[name]) for name in names}
    chance, turns, found = random.Random(0), list(names), {name: [] for name in names}
    for _ in range(rounds):
        turns += chance.sample(list(names), len(names))
    for name in track(turns, f"{pixels} px", unit="pass"):
        state, source, indices, recipe = networks[name]
        start = time.perf_counter()
        row = train_epoch(state, fabric, source, indices, recipe, seed=0)
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        found[name].append((batch * steps / (time.perf_counter() - start), row["waiting_share"]))
    rows = []
    for name in names:
        beside = CASES[name].beside
        speeds, waits = zip(*found[name][1:], strict=True)  # the first pass warms up
        low, middle, high = statistics.quantiles(speeds, n=4, method="inclusive")
        shares = [speed / base for speed, (base, _) in zip(speeds, found[beside][1:], strict=True)]
        row = {"network": name, "pixels": pixels, "batch": batch, "rounds": rounds, "steps": steps}
        row |= {"pictures_per_second": middle, "low": low, "high": high}
        row |= {"beside": beside, "share": statistics.median(shares), "waiting": statistics.median(waits)}
        more = sum(p.numel() for p in networks[name][0].network.parameters())
        rows.append(row | {"parameters": more})
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``runs/bench/tables/training_speed_<device>.csv``."""
    parser = argparse.ArgumentParser(prog="python -m gcplib.bench.training", description=__doc__)
    parser.add_argument("--pixels", type=int, nargs="+", default=[128], help="sides of the pictures (default: 128)")
    parser.add_argument(
        "--networks", nargs="+", default=list(CASES), choices=list(CASES), metavar="NAME", help=", ".join(CASES)
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="steps of 32 pictures in each pass")
    parser.add_argument("--reduction", type=int, default=64)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--keep", action="store_true", help="also copy the table to data/evidence")
    options = parser.parse_args(arguments)
    engine = Engine()
    print(f"{machine_line(describe_machine())}; {engine.kind}, {torch.get_num_threads()} threads; {options.backbone}")
    tables = [
        measure_training(
            pixels,
            options.networks,
            options.rounds,
            options.steps,
            engine,
            backbone=options.backbone,
            reduction=options.reduction,
        )
        for pixels in options.pixels
    ]
    table = pd.concat(tables, ignore_index=True)
    print(table.round(3).to_string(index=False))
    table = table.assign(backbone=options.backbone, reduction=options.reduction, threads=torch.get_num_threads())
    print("Written:", save_table(table, f"training_speed_{engine.kind}", profile="bench"))
    if options.keep:
        print("Kept:", *keep_tables("bench"))


if __name__ == "__main__":
    sys.exit(main())
