"""``gcplib study``: run the notebooks of a profile and write the report."""

from __future__ import annotations

import argparse
import functools

SUMMARY = "run the notebooks of a profile and write the report"
DETAIL = """Train the runs and run the notebooks of a profile that are not up to date, several at a time, and write
runs/PROFILE/report/index.html. An interrupted study continues at the next call; a run or a notebook that
fails does not stop the others. Parameters are checked by name and type before anything runs."""
EXAMPLE = "gcplib study --profile study --only 07_train_fine_grained"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    profile_option(parser)
    cores, gpus = (functools.partial(_count, least) for least in (1, 0))
    parser.add_argument("--cores", type=cores, metavar="N", help="cores to use (default: all)")
    parser.add_argument("--gpus", type=gpus, metavar="N", help="GPUs, one per job that asks for one (default: all)")
    parser.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="run these notebooks only")


def run(arguments: argparse.Namespace) -> int:
    """Run the study, and return its exit code."""
    from gcplib.lab.study.runner import run_study

    return run_study(arguments.profile, cores=arguments.cores, only=arguments.only, gpus=arguments.gpus)


def profile_option(parser: argparse.ArgumentParser) -> None:
    """Let a command take a profile."""
    what = "profile of notebooks/profiles, or a file (default: %(default)s)"
    parser.add_argument("--profile", default="smoke", metavar="NAME|PATH.yaml", help=what)


def _count(least: int, text: str) -> int:
    if (number := int(text)) < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
    return number
