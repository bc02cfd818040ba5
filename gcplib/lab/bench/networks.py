"""The benchmark of whole networks: how fast they train, images and all, with each pool and system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import nn

from gcplib.lab.analysis.speed import now
from gcplib.lab.bench.measure import shuffled
from gcplib.lab.data import TypefacesSpec
from gcplib.lab.files import project_root
from gcplib.lab.markdown import page, table
from gcplib.lab.progress import track
from gcplib.lab.training.build import set_up
from gcplib.lab.training.engine import Engine, cached_fabric
from gcplib.lab.training.loop import train_epoch
from gcplib.lab.training.recipe import Recipe
from gcplib.lab.training.spec import RunSpec
from gcplib.linalg.calls import unknown

BATCH, FAMILIES = 32, 12


@dataclass(frozen=True)
class Case:
    """A network to time: fields of its ``RunSpec`` and ``Recipe``, and the case that it is compared with."""

    pool: str
    beside: str = "gap"
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    loss: str = "cross_entropy"


STAGES = ["blocks.2", "blocks.4"]  # of the default backbone; others have others
CASES = {
    "gap": Case("gap"),
    "cov": Case("cov"),
    "isqrt_cov": Case("isqrt_cov"),
    "mpn_cov": Case("mpn_cov"),
    "svd_original": Case("svd_original"),
    "gaussian": Case("gaussian", "mpn_cov"),
    "idccp": Case("idccp", "mpn_cov"),
    "channel gates": Case("gap", systems={"gate": {"kind": "channel", "stages": STAGES}}),
    "squeeze-and-excitation": Case("gap", systems={"gate": {"kind": "se", "like": "channel", "stages": STAGES}}),
    "eight views": Case("mpn_cov", "mpn_cov", {"views": {"mode": "all"}}),
    "diversification": Case("gap", systems={"diversify": {}}, loss="gce(5)"),
    "Coarse2Fine": Case("gap", systems={"coarse2fine": {"first": 0}}),
}


def measure_training(
    pixels: int, names: Sequence[str], rounds: int, steps: int, engine: Engine, **fields: Any
) -> pd.DataFrame:
    """Return one row per case: images per second in training, from the encoded image to the optimizer's step.

    Rounds are interleaved and shuffled, so that what else the machine does falls on all cases alike.

    Args:
        pixels: side of the images.
        names: of ``CASES``, with those that they are compared with.
        rounds: timed passes of each, after one to warm up.
        steps: of each pass.
        engine: what trains.
        fields: of the ``RunSpec``, such as backbone and reduction.

    Returns:
        Median and quartiles of images per second, and ``relative``, the median over the rounds of its speed divided by
        that of the case ``beside`` it in the same round.

    Raises:
        ValueError: an unknown case, or one without that which it is compared with.
    """
    for name in names:
        if name not in CASES:
            raise ValueError(unknown("network", name, CASES))
        if CASES[name].beside not in names:
            raise ValueError(f"{name!r} is compared with {CASES[name].beside!r}; time that, too")
    train = -(-BATCH * steps // FAMILIES)
    data = TypefacesSpec(families=FAMILIES, train=train, validation=1, test=1, pixels=pixels)
    fabric = cached_fabric(engine, "float32")
    networks, found = {}, {name: [] for name in names}
    for name in names:
        case = CASES[name]
        recipe = Recipe(epochs=1, batch_size=BATCH, learning_rate=0.01, schedule="constant", loss=case.loss)
        spec = RunSpec(pool=case.pool, stage="full", data=data, recipe=recipe, systems=case.systems, **fields)
        state, dataset, source = set_up(spec, fabric, engine)
        networks[name] = state, source, torch.as_tensor(dataset.indices("train"))[: BATCH * steps], recipe
    for name in track(shuffled(names, rounds + 1), f"{pixels} px", unit="pass"):
        state, source, indices, recipe = networks[name]
        start = now(fabric.device)
        train_epoch(state, fabric, source, indices, recipe, seed=0)
        found[name].append(1e3 * BATCH * steps / (now(fabric.device) - start))
    speeds = pd.DataFrame(found)[1:]  # the first pass warms up
    rows = []
    for name in names:
        beside = CASES[name].beside
        row = {"network": name, "pixels": pixels, "batch": BATCH, "rounds": rounds, "steps": steps}
        row |= _quartiles(speeds[name]) | {"beside": beside, "relative": (speeds[name] / speeds[beside]).median()}
        rows.append(row | {"parameters": sum(p.numel() for p in networks[name][0].network.parameters())})
    return pd.DataFrame(rows)


def _quartiles(speeds: pd.Series) -> dict[str, float]:
    return dict(zip(("low", "images_per_second", "high"), speeds.quantile([0.25, 0.5, 0.75]), strict=True))


def measure_passes(
    networks: Mapping[str, nn.Module], pixels: int, batch: int, rounds: int, steps: int, device: str
) -> list[dict]:
    """Return one row per network: images per second, forward and backward in bf16 autocast, of images at hand.

    No loading and no optimizer's step: only what depends on the network. Rounds are interleaved and shuffled.

    Args:
        networks: from images ``(B, 3, H, W)`` to logits, on the device, by name.
        pixels: H and W.
        batch: B.
        rounds: timed passes of each, after one to warm up.
        steps: batches of each pass.
        device: ``cpu`` or ``cuda``.

    Returns:
        Median and quartiles of images per second; ``seconds`` holds those of one image in every round.
    """
    images, place = torch.randn(batch, 3, pixels, pixels, device=device), torch.device(device)
    found: dict[str, list[float]] = {name: [] for name in networks}
    for name in track(shuffled(networks, rounds + 1), f"{pixels} px", unit="pass"):
        network = networks[name].train()
        start = now(place)
        for _ in range(steps):
            network.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = network(images).float().square().mean()
            loss.backward()
        found[name].append((now(place) - start) / (1e3 * batch * steps))
        network.zero_grad(set_to_none=True)  # no memory while others run
    about = {"pixels": pixels, "batch": batch, "rounds": rounds, "steps": steps}
    return [
        {"network": name, **about, **_quartiles(1 / pd.Series(seconds[1:])), "seconds": seconds[1:]}
        for name, seconds in found.items()
    ]


def training_speed_page() -> str:
    """Return the page that shows what is kept: for each device a table with a row per network."""
    parts = ["From the encoded image to the optimizer's step; how it is measured: [benchmarks.md](benchmarks.md)."]
    for path in sorted((project_root() / "data" / "evidence").glob("training_speed_*.csv")):
        rows, found = [], pd.read_csv(path).to_dict("records")
        for row in found:
            speed = f"{row['images_per_second']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
            beside = "" if row["beside"] == row["network"] else f"{100 * row['relative']:.0f} % of `{row['beside']}`"
            rows.append((f"{row['network']}, {row['pixels']} px", speed, beside))
        text = (
            "{backbone}, reduction to {reduction} channels, {rounds} rounds of {steps} batches of {batch}. {machine}, "
            "{threads} threads; torch {torch}, commit `{commit}`."
        ).format(**found[0])
        parts += [table(["network", "images per second [quartiles]", "its speed"], rows), text]
    return page("Speed of whole networks in training", *parts)
