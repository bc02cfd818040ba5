"""The command line: ``python -m gcplib {data,train,study,report}``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main", "make_parser"]

# What the library raises on purpose; anything else is a bug and keeps its traceback.
KNOWN = (ValueError, FileNotFoundError, KeyError, NotADirectoryError, PermissionError)
BACKBONE = "tf_efficientnet_lite0"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code (2 for an error in what was asked for)."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except KNOWN as error:
        if arguments.traceback:
            raise
        # str() of a KeyError is its argument in quotes.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"gcplib: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted; the same command continues.", file=sys.stderr)
        return 130


def make_parser() -> argparse.ArgumentParser:
    """Return the parser, without importing anything heavy."""
    parser = argparse.ArgumentParser(
        prog="python -m gcplib",
        description="Global covariance pooling: data, training, the study of the papers' claims, and its report.",
    )
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _data_parser(commands)
    _train_parser(commands)
    _study_parser(commands)
    _report_parser(commands)
    return parser


def _add(commands: Any, name: str, run: Any, summary: str, detail: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{detail}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _data_parser(commands: Any) -> None:
    parser = _add(
        commands,
        "data",
        _data,
        "render the Typefaces benchmark",
        "Render the Typefaces benchmark into data/cache/ (once; the same settings are read back the next time).\n"
        "What is left out keeps the library's default.",
        "python -m gcplib data --families 60 --train 40 --validation 10 --test 20 --samples samples.png",
    )
    for name, what in (
        ("families", "typeface families, the classes"),
        ("train", "training pictures a family"),
        ("validation", "validation pictures a family"),
        ("test", "test pictures a family"),
        ("pixels", "width and height of a picture"),
        ("seed", "seed of everything random"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=what)
    parser.add_argument("--samples", type=Path, metavar="OUT.png", help="also write a figure of sample pictures")
    parser.add_argument("--features", action="store_true", help=f"also cache the features of {BACKBONE}")


def _data(arguments: argparse.Namespace) -> None:
    from gcplib.data import TypefacesSpec, load_typefaces

    fields = ("families", "train", "validation", "test", "pixels", "seed")
    given = {name: getattr(arguments, name) for name in fields if getattr(arguments, name) is not None}
    dataset = load_typefaces(TypefacesSpec(**given))
    print(f"Typefaces: {dataset.path}", flush=True)
    if arguments.samples:
        arguments.samples.parent.mkdir(parents=True, exist_ok=True)
        dataset.show().savefig(arguments.samples, dpi=150, bbox_inches="tight")
        print(f"Samples: {arguments.samples}", flush=True)
    if arguments.features:
        from gcplib.training import cache_features

        cache_features(dataset, backbone=BACKBONE)
        print(f"Features of {BACKBONE}: ready", flush=True)


def _train_parser(commands: Any) -> None:
    parser = _add(
        commands,
        "train",
        _train,
        "train one run, or read it if it is finished",
        "Train the run that a specification describes, or continue it, or read its result if it is finished.\n"
        "The specification is the library's default, changed by --config and then by --set.",
        "python -m gcplib train --config run.yaml --set pool=isqrt_cov --set recipe.epochs=10 --set seed=3",
    )
    parser.add_argument("--config", type=Path, metavar="X.yaml", help="file with fields of the specification")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="change one field; dots go into nested ones; may be repeated",
    )


def _train(arguments: argparse.Namespace) -> None:
    spec = _read_spec(arguments.config, arguments.changes)  # before the slow import: a typing error shows at once
    from gcplib.training import RunSpec, ensure

    run = ensure(RunSpec.from_dict(spec))
    print(f"Run: {run.directory}")
    for name, value in run.result.items():
        print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")


def _read_spec(config: Path | None, changes: Sequence[str]) -> dict:
    import yaml

    spec = {}
    if config is not None:
        if not config.is_file():
            raise FileNotFoundError(f"no configuration file {config}")
        try:
            spec = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{config} is not valid YAML: {error}") from error
        if not isinstance(spec, dict):
            raise ValueError(f"{config}: expected fields and values, got {type(spec).__name__}")
    for change in changes:
        key, equals, text = change.partition("=")
        if not (key and equals):
            raise ValueError(f"--set wants KEY=VALUE, got {change!r}")
        *path, last = key.split(".")
        target = spec
        for part in path:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ValueError(f"--set {change}: {part!r} is a value, not a group of fields")
        # YAML reads 1e-3 as text; on a command line it can only be meant as a number.
        target[last] = float(text) if re.fullmatch(r"[+-]?[\d.]+e[+-]?\d+", text, re.I) else yaml.safe_load(text)
    return spec


def _study_parser(commands: Any) -> None:
    parser = _add(
        commands,
        "study",
        _study,
        "run the notebooks of a profile and write the report",
        "Run every notebook of a profile that is not up to date, several at a time, and write\n"
        "runs/PROFILE/report/index.html. An interrupted study continues at the next call; a notebook that fails\n"
        "does not stop the others. Parameters are checked by name and type before anything runs.",
        "python -m gcplib study --profile study --only 07_train_fine_grained",
    )
    _profile_option(parser)
    parser.add_argument("--cores", type=_positive, metavar="N", help="cores to use (default: all)")
    parser.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="run these notebooks only")


def _study(arguments: argparse.Namespace) -> int:
    from gcplib.study.runner import run_study

    return run_study(arguments.profile, cores=arguments.cores, only=arguments.only)


def _report_parser(commands: Any) -> None:
    parser = _add(
        commands,
        "report",
        _report,
        "write the report of what has run",
        "Write runs/PROFILE/report/index.html from the executed notebooks and recorded claims; nothing is run.",
        "python -m gcplib report --profile study",
    )
    _profile_option(parser)
    parser.add_argument(
        "--keep",
        action="store_true",
        help="also copy the verdicts and the headline figure to data/evidence and renew the table of the README",
    )
    parser.add_argument(
        "--keep-tables",
        action="store_true",
        help="also copy the tables that its notebooks saved to data/evidence, where later runs show them",
    )


def _report(arguments: argparse.Namespace) -> None:
    from gcplib.study.evidence import keep_evidence
    from gcplib.study.report import build_report
    from gcplib.study.tables import keep_tables

    print(f"Report: {build_report(arguments.profile)}")
    kept = keep_evidence(arguments.profile) if arguments.keep else []
    kept += keep_tables(arguments.profile) if arguments.keep_tables else []
    for path in kept:
        print(f"Kept: {path}")


def _profile_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        default="smoke",
        metavar="NAME|PATH.yaml",
        help="profile of notebooks/profiles, or a file (default: %(default)s)",
    )


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
