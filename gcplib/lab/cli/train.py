"""The command ``train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcplib.lab.training import RunSpec

SUMMARY = "train one run, or read it if it is finished"
DETAIL = """Train the run that a specification describes, or continue it, or read its result if it is finished.
The specification is the library's default, changed by --config and then by --set. For several devices give
--devices N, or start it by torchrun."""
EXAMPLE = "python -m gcplib train --config tpami2022/cub --set data.root=CUB_200_2011 --devices 2"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options, without importing anything heavy."""
    add = parser.add_argument
    add("--config", metavar="NAME|X.yaml", help="a published recipe (see --list), or a file with fields of a spec")
    change = "change one field; dots go into nested ones; may be repeated"
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes", help=change)
    add("--list", action="store_true", help="list the recipes, or describe the one of --config, and do nothing else")
    add("--dry-run", action="store_true", help="check the data, take a few steps, and train nothing")
    add("--accelerator", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    add("--devices", type=int, default=1, metavar="N", help="GPUs, or processes on a CPU (default: %(default)s)")
    add("--loaders", type=int, metavar="N", help="processes per device that decode images")
    add("--tensorboard", action="store_true", help="also write event files for TensorBoard")


def run(arguments: argparse.Namespace) -> int:
    """Train, list or try what the arguments say, and return the exit code."""
    from gcplib.lab.training import Engine, ensure
    from gcplib.lab.training.engine import PeerLost, cached_fabric
    from gcplib.lab.training.loop import Stopped
    from gcplib.lab.training.published import list_recipes, load_recipe
    from gcplib.lab.training.runs import run_directory
    from gcplib.lab.training.train import dry_run

    if arguments.list:
        names = [] if arguments.config else list_recipes()
        print("\n".join(f"{name:20} {load_recipe(name).title}" for name in names) or load_recipe(arguments.config))
        return 0
    spec = read_spec(arguments.config, arguments.changes)
    engine = Engine(arguments.accelerator, arguments.devices, arguments.loaders, arguments.tensorboard)
    try:
        if arguments.dry_run:
            found = dry_run(spec, cached_fabric(engine, spec.recipe.precision), engine)
            found["results go to"] = run_directory(spec)
            title = "Dry run, nothing is written" + (" but features" if spec.stage == "head" else "")
        else:
            trained = ensure(spec, engine)
            found, title = trained.result, f"Run: {trained.directory}"
    except Stopped:
        print("Stopped. A checkpoint is written; the same command continues.", file=sys.stderr, flush=True)
        raise
    except PeerLost as error:
        print(f"gcplib: error: {error}", file=sys.stderr, flush=True)
        return 1
    if cached_fabric(engine, spec.recipe.precision).is_global_zero:
        print(title)
        for name, value in found.items():
            if value is not None:
                print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
    return 0


def read_spec(config: str | None, changes: Sequence[str]) -> RunSpec:
    """Return the run of a configuration, a file or the name of a published recipe, changed by ``KEY=VALUE`` texts."""
    from gcplib.lab.plain import read_yaml
    from gcplib.lab.training import RunSpec
    from gcplib.lab.training.published import load_recipe
    from gcplib.lab.validation import SpecError, apply_changes

    values: Any = {}
    if config and config.endswith((".yaml", ".yml")):
        values = read_yaml(Path(config).expanduser()) or {}
        if not isinstance(values, dict):
            raise SpecError(config, [f"expected fields and values, got {type(values).__name__}"])
    elif config:
        values = load_recipe(config).spec
    return RunSpec.from_dict(apply_changes(values, changes, RunSpec), config or "--set")
