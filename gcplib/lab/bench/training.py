"""``python -m gcplib.lab.bench.training``: how fast whole networks train, images and all, with each pool and system."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from gcplib.lab.analysis.turns import now
from gcplib.lab.data import TypefacesSpec
from gcplib.lab.files import around_block, project_root, renew_block
from gcplib.lab.machine import describe_machine, machine_line
from gcplib.lab.progress import track
from gcplib.lab.study.tables import keep_tables, save_table
from gcplib.lab.training.build import set_up
from gcplib.lab.training.engine import Engine, make_fabric
from gcplib.lab.training.loop import train_epoch
from gcplib.lab.training.recipe import Recipe
from gcplib.lab.training.spec import RunSpec
from gcplib.nn import DiversificationBlock

__all__ = ["diversification_ms", "keep", "kept_speeds", "main", "measure_training", "readme_block"]

BEGIN, END = "<!-- training: written by python -m gcplib.lab.bench.training --keep -->", "<!-- end of training -->"


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
    """Return one row a case: images a second in training, from the encoded image to the optimizer's step.

    Rounds are interleaved and shuffled, so that what else the machine does falls on all cases alike.

    Args:
        pixels: side of the images. names: of ``CASES``, with those that they are compared with.
        rounds: timed passes of each, after one to warm up. steps: of each pass.
        fields: of the ``RunSpec``, such as backbone and reduction.

    Returns:
        Median and quartiles of images a second, the median over the rounds of its speed as a share of that of the
        case ``beside`` it in the same round, and the share of the time spent waiting for images.

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
        row |= {"images_per_second": middle, "low": low, "high": high}
        row |= {"beside": beside, "share": statistics.median(shares), "waiting": statistics.median(waits)}
        more = sum(p.numel() for p in networks[name][0].network.parameters())
        rows.append(row | {"parameters": more})
    return pd.DataFrame(rows)


def diversification_ms(device: torch.device, classes: int = 200, batch: int = 32, side: int = 8) -> float:
    """Return the median milliseconds, forward and backward, that the diversification block takes by itself.

    Of class maps ``(batch, classes, side, side)``: as many classes as CUB has, where the data here have fewer.
    """
    maps = torch.randn(batch, classes, side, side, device=device, requires_grad=True)
    block, upstream, found = DiversificationBlock(), torch.ones_like(maps), []
    for _ in range(33):
        start = now(device)
        torch.autograd.grad(block(maps), maps, upstream)
        found.append(now(device) - start)
    return statistics.median(found[3:])


def keep(table: pd.DataFrame) -> list[Path]:
    """Copy what was measured to ``data/evidence``, renew the README's block, and return the files written.

    Raises:
        ValueError: only some cases were measured, or the README lacks the block.
    """
    if missing := set(CASES) - set(table.network):
        raise ValueError(f"the README shows all networks, and these were not timed: {', '.join(sorted(missing))}")
    around_block(BEGIN, END)  # what cannot be shown is not kept
    return [*keep_tables("bench"), renew_block(BEGIN, END, readme_block(kept_speeds()))]


def kept_speeds() -> list[pd.DataFrame]:
    """Return the tables kept so far, one a device."""
    folder = project_root() / "data" / "evidence"
    return [pd.read_csv(path) for path in sorted(folder.glob("training_speed_*.csv"))]


def readme_block(tables: Sequence[pd.DataFrame]) -> str:
    """Return Markdown: for each device a table with a row a network, and what it was measured on."""
    return "\n\n".join(map(_device_block, tables)) or "Nothing is kept yet."


def _device_block(table: pd.DataFrame) -> str:
    lines = ["| network | images a second [quartiles] | its speed, of that of another network |", "|---|---|---|"]
    for row in table.itertuples():
        beside = "" if row.beside == row.network else f"{100 * row.share:.0f} % of `{row.beside}`"
        speed = f"{row.images_per_second:.1f} [{row.low:.1f}, {row.high:.1f}]"
        lines.append(f"| {row.network}, {row.pixels} px | {speed} | {beside} |")
    row = next(table[table.network == "gap"].itertuples())
    step = 1e3 * row.batch / row.images_per_second
    text = (
        f"{row.backbone}, reduction to {row.reduction} channels, {row.rounds} rounds of {row.steps} batches of "
        f"{row.batch}. {row.machine}, {row.threads} threads; torch {row.torch}, commit `{row.commit}`. By itself, the "
        f"diversification block takes {row.diversification_ms:.1f} ms at 200 classes: "
        f"{100 * row.diversification_ms / step:.1f} % of a step of `gap` at {row.pixels} px."
    )
    return "\n".join([*lines, "", text])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``runs/bench/tables/training_speed_<device>.csv``."""
    parser = argparse.ArgumentParser(prog="python -m gcplib.lab.bench.training", description=__doc__)
    parser.add_argument("--pixels", type=int, nargs="+", default=[128], help="sides of the images (default: 128)")
    parser.add_argument(
        "--networks", nargs="+", default=list(CASES), choices=list(CASES), metavar="NAME", help=", ".join(CASES)
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="steps of 32 images in each pass")
    parser.add_argument("--reduction", type=int, default=64)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--keep", action="store_true", help="also copy it to data/evidence, and renew the README")
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
    table["diversification_ms"] = diversification_ms(make_fabric(engine, "float32").device)
    print("Written:", save_table(table, f"training_speed_{engine.kind}", profile="bench"))
    if options.keep:
        print("Kept:", *keep(table))


if __name__ == "__main__":
    sys.exit(main())
