"""``gcplib report``: write the report of what has run, and keep what it measured."""

from __future__ import annotations

import argparse

from gcplib.lab.cli.study import profile_option

SUMMARY = "write the site of what has run"
DETAIL = """Write runs/PROFILE/report/index.html and its pages from the executed notebooks, recorded claims and
docs/; nothing is run."""
EXAMPLE = "gcplib report --profile study"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command its options."""
    profile_option(parser)
    reference = "with the reference of every public name, as on the site; takes half a minute longer"
    parser.add_argument("--reference", action="store_true", help=reference)
    keep = "also keep the verdicts and the headline figure in data/evidence, and renew docs/verdicts.md and the README"
    parser.add_argument("--keep", action="store_true", help=keep)
    tables = "also keep the tables that its notebooks saved in data/evidence, where later runs show them"
    parser.add_argument("--keep-tables", action="store_true", help=tables)


def run(arguments: argparse.Namespace) -> None:
    """Write the report, and keep what is asked for."""
    from gcplib.lab.site import build_site
    from gcplib.lab.study.keep import keep_evidence
    from gcplib.lab.study.profiles import make_plan
    from gcplib.lab.study.tables import keep_tables

    for plan in [make_plan(arguments.profile, data, arguments.changes) for data in arguments.data or [None]]:
        if not (plan.folder / "plan.json").is_file():
            raise FileNotFoundError(f"nothing has run in {plan.folder}; first: make study PROFILE={plan.profile}")
        print(f"Report: {build_site(plan, reference=arguments.reference)}")
        kept = keep_evidence(plan.profile) if arguments.keep else []
        kept += keep_tables(plan.profile) if arguments.keep_tables else []
        for path in kept:
            print(f"Kept: {path}")
