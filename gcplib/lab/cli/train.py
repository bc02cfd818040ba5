"""The command ``python -m gcplib train``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gcplib.lab.study.recipes import list_recipes, load_recipe

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options, without importing anything heavy."""
    parser.add_argument(
        "--config", metavar="NAME|X.yaml", help="a recipe of the library (see --list), or a file with fields of a spec"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="change one field; dots go into nested ones; may be repeated",
    )
    parser.add_argument(
        "--list", action="store_true", help="list the recipes, or say what the one of --config is, and do nothing else"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the data, take a few steps, and write nothing")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="GPUs, or processes on a CPU (default: %(default)s)"
    )
    parser.add_argument("--loaders", type=int, metavar="N", help="processes a device that decode images")
    parser.add_argument("--tensorboard", action="store_true", help="also write event files for TensorBoard")


def run(arguments: argparse.Namespace) -> int:
    """Train, list or try what the arguments say, and return the exit code."""
    if arguments.list:
        names = [arguments.config] if arguments.config else list_recipes()
        found = [load_recipe(name) for name in names]
        print("\n".join(str(one) if arguments.config else f"{one.name:20} {one.title}" for one in found))
        return 0
    values = read_spec(arguments.config, arguments.changes)  # before the slow import: a typing error shows at once
    from gcplib.lab.training import Engine, RunSpec, ensure
    from gcplib.lab.training.engine import PeerLost, cached_fabric
    from gcplib.lab.training.loop import Stopped

    spec = RunSpec.from_dict(values)
    engine = Engine(arguments.accelerator, arguments.devices, arguments.loaders, arguments.tensorboard)
    if arguments.dry_run:
        from gcplib.lab.training.dry_run import dry_run

        fabric = cached_fabric(engine, spec.recipe.precision)
        found = dry_run(spec, fabric, engine)
        return _print(found, "Dry run, nothing is written") if fabric.is_global_zero else 0
    try:
        trained = ensure(spec, engine)
    except Stopped:
        print("Stopped. A checkpoint is written; the same command continues.", file=sys.stderr, flush=True)
        raise
    except PeerLost as error:
        print(f"gcplib: error: {error}", file=sys.stderr, flush=True)
        return 1
    if cached_fabric(engine, spec.recipe.precision).is_global_zero:
        _print(trained.result, f"Run: {trained.directory}")
    return 0


def _print(values: dict[str, Any], title: str) -> int:
    print(title)
    for name, value in values.items():
        if value is not None:
            print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
    return 0


def read_spec(config: str | None, changes: Sequence[str]) -> dict:
    """Return the fields of a configuration, changed by ``KEY=VALUE`` texts."""
    spec = {} if config is None else _fields(str(config))
    for change in changes:
        key, equals, text = change.partition("=")
        if not (key and equals):
            raise ValueError(f"--set wants KEY=VALUE, got {change!r}")
        *parts, last = key.split(".")
        target = spec
        for part in parts:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ValueError(f"--set {change}: {part!r} is a value, not a group of fields")
        # YAML reads 1e-3 as text; on a command line it can only be meant as a number.
        target[last] = float(text) if re.fullmatch(r"[+-]?[\d.]+e[+-]?\d+", text, re.I) else yaml.safe_load(text)
    return spec


def _fields(config: str) -> dict:
    """Return the fields of a spec from a file, or from a recipe by its name."""
    if not config.endswith((".yaml", ".yml")):
        return load_recipe(config).spec
    path = Path(config).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}")
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(spec, dict):
        raise ValueError(f"{path}: expected fields and values, got {type(spec).__name__}")
    return spec
