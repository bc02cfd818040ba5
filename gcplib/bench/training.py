"""``python -m gcplib.bench.training``: how fast whole networks train, pictures and all, with one pool or another."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence

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

POOLS = ("gap", "cov", "isqrt_cov", "mpn_cov", "svd_original")


def measure_training(
    pixels: int, pools: Sequence[str], rounds: int, steps: int, engine: Engine, **fields
) -> pd.DataFrame:
    """Return one row a pool: pictures a second in training, from the encoded picture to the optimiser's step.

    Rounds are interleaved and shuffled, so that what else the machine does falls on all pools alike.

    Args:
        pixels: side of the pictures. rounds: timed passes of each pool, after one to warm up. steps: of each pass.
        fields: of the ``RunSpec``, such as backbone and reduction.

    Returns:
        Median and quartiles of pictures a second, the median over the rounds of the pool's speed as a share of
        average pooling's in the same round, and the share of the time spent waiting for pictures.
    """
    batch = 32
    families = 12
    data = TypefacesSpec(families=families, train=-(-batch * steps // families), validation=1, test=1, pixels=pixels)
    recipe = Recipe(epochs=1, batch_size=batch, learning_rate=0.01, schedule="constant")
    fabric = make_fabric(engine, recipe.precision)
    ready = {
        pool: set_up(RunSpec(pool=pool, stage="full", data=data, recipe=recipe, **fields), fabric, engine)
        for pool in pools
    }
    chance, turns, found = random.Random(0), list(pools), {pool: [] for pool in pools}
    for _ in range(rounds):
        turns += chance.sample(list(pools), len(pools))
    for pool in track(turns, f"{pixels} px", unit="pass"):
        state, dataset, source = ready[pool]
        indices = torch.as_tensor(dataset.indices("train"))[: batch * steps]
        start = time.perf_counter()
        row = train_epoch(state, fabric, source, indices, recipe, seed=0)
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        found[pool].append((batch * steps / (time.perf_counter() - start), row["waiting_share"]))
    rows = []
    for pool in pools:
        speeds, waits = zip(*found[pool][1:], strict=True)  # the first pass warms up
        low, middle, high = statistics.quantiles(speeds, n=4, method="inclusive")
        shares = [speed / base for speed, (base, _) in zip(speeds, found[pools[0]][1:], strict=True)]
        row = {"pool": pool, "pixels": pixels, "batch": batch, "rounds": rounds, "steps": steps}
        row |= {"pictures_per_second": middle, "low": low, "high": high}
        rows.append(row | {f"share_of_{pools[0]}": statistics.median(shares), "waiting": statistics.median(waits)})
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``runs/bench/tables/training_speed_<device>.csv``."""
    parser = argparse.ArgumentParser(prog="python -m gcplib.bench.training", description=__doc__)
    parser.add_argument("--pixels", type=int, nargs="+", default=[128], help="sides of the pictures (default: 128)")
    parser.add_argument(
        "--pools", nargs="+", default=list(POOLS), help="the first is what the others are compared with"
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
            options.pools,
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
