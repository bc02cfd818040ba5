"""``gcplib report``: write the report of what has run, and keep what it measured."""

from __future__ import annotations

import argparse

from gcplib.lab.cli.study import profile_option

SUMMARY = "write the report of what has run"
DETAIL = "Write runs/PROFILE/report/index.html from the executed notebooks and recorded claims; nothing is run."
EXAMPLE = "gcplib report --profile study"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    profile_option(parser)
    keep = "also keep the verdicts and the headline figure in data/evidence, and renew docs/verdicts.md and the README"
    parser.add_argument("--keep", action="store_true", help=keep)
    tables = "also keep the tables that its notebooks saved in data/evidence, where later runs show them"
    parser.add_argument("--keep-tables", action="store_true", help=tables)


def run(arguments: argparse.Namespace) -> None:
    """Write the report, and keep what is asked for."""
    from gcplib.lab.study.evidence import keep_evidence
    from gcplib.lab.study.index_page import build_report
    from gcplib.lab.study.profiles import make_plan
    from gcplib.lab.study.tables import keep_tables

    for plan in [make_plan(arguments.profile, data, arguments.changes) for data in arguments.data or [None]]:
        print(f"Report: {build_report(plan)}")
        kept = keep_evidence(plan.profile) if arguments.keep else []
        kept += keep_tables(plan.profile) if arguments.keep_tables else []
        for path in kept:
            print(f"Kept: {path}")
