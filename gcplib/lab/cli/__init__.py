"""The command line: ``python -m gcplib {data,train,study,report}``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcplib.lab.cli import train as train_command

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
        ("train", "training images a family"),
        ("validation", "validation images a family"),
        ("test", "test images a family"),
        ("pixels", "width and height of an image"),
        ("seed", "seed of everything random"),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=what)
    parser.add_argument("--samples", type=Path, metavar="OUT.png", help="also write a figure of sample images")
    parser.add_argument("--features", action="store_true", help=f"also cache the features of {BACKBONE}")
    check = _add(
        parser.add_subparsers(title="commands", metavar="COMMAND"),
        "check",
        _data_check,
        "decode every image of a data set on your disk and report what is missing or corrupt",
        "Decode every image of a data set on your disk; print what is there beside the published counts, and which\n"
        "images are missing or corrupt. The exit code is 0 if none is, and 1 otherwise.",
        "python -m gcplib data check ~/data/CUB_200_2011",
    )
    check.add_argument("path", nargs="?", default="", metavar="PATH", help="folder (none for elpv as it is installed)")
    check.add_argument("--layout", metavar="NAME", help="layout, such as cub or folder (default: what it looks like)")


def _data(arguments: argparse.Namespace) -> None:
    from gcplib.lab.data import TypefacesSpec, load_typefaces

    fields = ("families", "train", "validation", "test", "pixels", "seed")
    given = {name: getattr(arguments, name) for name in fields if getattr(arguments, name) is not None}
    dataset = load_typefaces(TypefacesSpec(**given))
    print(f"Typefaces: {dataset.path}", flush=True)
    if arguments.samples:
        arguments.samples.parent.mkdir(parents=True, exist_ok=True)
        dataset.show().savefig(arguments.samples, dpi=150, bbox_inches="tight")
        print(f"Samples: {arguments.samples}", flush=True)
    if arguments.features:
        from gcplib.lab.training import cache_features

        cache_features(dataset, backbone=BACKBONE)
        print(f"Features of {BACKBONE}: ready", flush=True)


def _data_check(arguments: argparse.Namespace) -> int:
    from gcplib.lab.data import ImagesSpec, check_images
    from gcplib.lab.data.layouts import guess_layout

    if not (arguments.path or arguments.layout):
        raise ValueError("give the folder of the data set: python -m gcplib data check PATH")
    layout = arguments.layout or guess_layout(arguments.path)
    report = check_images(ImagesSpec(layout, arguments.path))
    print(report, flush=True)
    return 0 if report.whole else 1


def _train_parser(commands: Any) -> None:
    parser = _add(
        commands,
        "train",
        train_command.run,
        "train one run, or read it if it is finished",
        "Train the run that a specification describes, or continue it, or read its result if it is finished.\n"
        "The specification is the library's default, changed by --config and then by --set. For several devices give\n"
        "--devices N, or start it by torchrun.",
        "python -m gcplib train --config tpami2022/cub --set data.root=CUB_200_2011 --devices 2",
    )
    train_command.add_options(parser)


def _study_parser(commands: Any) -> None:
    parser = _add(
        commands,
        "study",
        _study,
        "run the notebooks of a profile and write the report",
        "Train the runs and run the notebooks of a profile that are not up to date, several at a time, and write\n"
        "runs/PROFILE/report/index.html. An interrupted study continues at the next call; a run or a notebook that\n"
        "fails does not stop the others. Parameters are checked by name and type before anything runs.",
        "python -m gcplib study --profile study --only 07_train_fine_grained",
    )
    _profile_option(parser)
    parser.add_argument("--cores", type=_positive, metavar="N", help="cores to use (default: all)")
    parser.add_argument(
        "--gpus", type=_not_negative, metavar="N", help="GPUs to use, one for a job that asks for one (default: all)"
    )
    parser.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="run these notebooks only")


def _study(arguments: argparse.Namespace) -> int:
    from gcplib.lab.study.runner import run_study

    return run_study(arguments.profile, cores=arguments.cores, only=arguments.only, gpus=arguments.gpus)


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
    from gcplib.lab.study.evidence import keep_evidence
    from gcplib.lab.study.report import build_report
    from gcplib.lab.study.tables import keep_tables

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


def _not_negative(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {number}")
    return number
