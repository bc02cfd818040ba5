"""Keep what a study measured: verdicts and figure in the repository, the page of verdicts, lines of the README."""

from __future__ import annotations

import shutil
from pathlib import Path

from gcplib.lab.files import project_root, runs_dir, write_atomic, write_json, write_text
from gcplib.lab.study.claims import read_records
from gcplib.lab.study.evidence import kept_path, kept_records
from gcplib.lab.study.evidence_pages import STUDY, readme_lines, verdicts_page

__all__ = ["keep_evidence", "with_lines"]

BEGIN, END = "<!-- verdicts: written by `python -m gcplib report --keep` -->", "<!-- end of verdicts -->"
# Accuracy of every method: the notebook, and the cell that draws it.
FIGURE = "07_train_fine_grained-07-18.png"


def keep_evidence(profile: str) -> list[Path]:
    """Keep a study: verdicts and figure in ``data/evidence``, the page of verdicts, the table of the README.

    The figure is that of the profile ``study``. What is kept of notebooks that did not run stays: a study of many
    hours is made part by part. Each record has the commit that it is of.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: the study has no records or no figure yet.
        ValueError: a record was made by hand, not by the study, so that its parameters are not the profile's.
    """
    records = read_records(profile)
    figure = runs_dir() / profile / "report" / "_images" / FIGURE
    with_figure = profile == STUDY
    if not records or (with_figure and not figure.is_file()):
        raise FileNotFoundError(f"study {profile!r} has no verdicts or no figure {FIGURE}; run it first")
    if by_hand := [record["notebook"] for record in records if record["by"] != "study"]:
        raise ValueError(f"{sorted(set(by_hand))} ran by hand; run the study {profile!r}, then keep it")
    readme = project_root() / "README.md"
    before = readme.read_text(encoding="utf-8")
    with_lines(before, "")  # what cannot be shown is not kept
    ran = {record["notebook"] for record in records}
    records += [record for record in kept_records(profile) if record["notebook"] not in ran]
    records.sort(key=lambda record: (record["claim"], record["notebook"]))
    written = [write_json(kept_path(profile), records)]
    if with_figure:
        written.append(written[0].with_name("accuracy.png"))
        with write_atomic(written[-1]) as temporary:
            shutil.copyfile(figure, temporary)
    written.append(write_text(project_root() / "docs" / "verdicts.md", verdicts_page()))
    return [*written, write_text(readme, with_lines(before, readme_lines()))]


def with_lines(readme: str, body: str) -> str:
    """Return the text of the README with other lines of verdicts.

    Raises:
        ValueError: it does not hold each of the two markers once.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise ValueError(f"README.md must hold the lines {BEGIN!r} and {END!r} once each")
    return f"{readme.split(BEGIN)[0]}{BEGIN}\n{body}\n{END}{readme.split(END)[1]}"
