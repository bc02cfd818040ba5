"""``gcplib study``: run the notebooks of a profile and write the report."""

from __future__ import annotations

import argparse
import functools

SUMMARY = "run the notebooks of a profile and write the report"
DETAIL = """Train the runs and run the notebooks of a profile that are not up to date, several at a time, and write
runs/PROFILE/report/index.html. An interrupted study continues at the next call; a run or a notebook that
fails does not stop the others. Parameters are checked by name and type before anything runs."""
EXAMPLE = "gcplib study --profile photographs --data birds=CUB_200_2011 cars=my/cars --set seeds=5"

INTERRUPTED = 130  # what run_study returns then


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    profile_option(parser)
    cores, gpus = (functools.partial(_count, least) for least in (1, 0))
    parser.add_argument("--cores", type=cores, metavar="N", help="cores to use (default: all)")
    parser.add_argument("--gpus", type=gpus, metavar="N", help="GPUs, one per job that asks for one (default: all)")
    parser.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="run these notebooks only, such as 06")


def run(arguments: argparse.Namespace) -> int:
    """Run the study, and return its exit code."""
    from gcplib.lab.site import build_site, require_sphinx
    from gcplib.lab.study.profiles import make_plan
    from gcplib.lab.study.runner import run_study

    require_sphinx()  # now, and not after hours
    for data in (sets := arguments.data or [None]):  # what is wrong with any shows before the first runs
        make_plan(arguments.profile, data, arguments.changes)
    codes, how = [], {"cores": arguments.cores, "only": arguments.only, "gpus": arguments.gpus}
    for data in sets:
        codes.append(run_study(arguments.profile, build_site, **how, data=data, changes=arguments.changes))
        if codes[-1] == INTERRUPTED:
            break
    return max(codes)


def profile_option(parser: argparse.ArgumentParser) -> None:
    """Let a command take a profile, folders of images for it, and other parameters."""
    add = parser.add_argument
    what = "profile of notebooks/profiles, or a file (default: %(default)s)"
    add("--profile", default="smoke", metavar="NAME|PATH.yaml", help=what)
    what = "folders of images to run it on, each in a study of its own"
    add("--data", nargs="+", type=_named_path, metavar="NAME=PATH", help=what)
    what = "change a parameter of every notebook that has it, or with 07.PARAMETER=VALUE of one; may be repeated"
    add("--set", action="append", default=[], metavar="PARAMETER=VALUE", dest="changes", help=what)


def _named_path(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"wanted NAME=PATH, such as birds=data/CUB_200_2011, got {text!r}")
    return name, path


def _count(least: int, text: str) -> int:
    if (number := int(text)) < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
    return number
