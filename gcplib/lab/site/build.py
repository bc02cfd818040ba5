"""Write the sources of a site for one study, and let Sphinx make its pages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from gcplib.lab.files import locked, project_root
from gcplib.lab.machine import cpu_count
from gcplib.lab.site.claim_pages import write_claims
from gcplib.lab.site.front import front_page, gallery, notebook_about
from gcplib.lab.site.notebooks import CoursePage
from gcplib.lab.site.pages import Sources
from gcplib.lab.study.claims import read_records
from gcplib.lab.study.notebooks import discover
from gcplib.lab.study.plan import Plan

__all__ = ["SiteError", "broken_links", "build_site", "require_sphinx"]

EXTENSIONS = "myst_parser,gcplib.lab.site.formulas"
REFERENCE = "sphinx.ext.autodoc,sphinx.ext.napoleon"
FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "data/README.md", "notebooks/NOTATION.md")


class SiteError(RuntimeError):
    """Pages could not be made, or not without a fault; what a study has measured is not touched."""


def require_sphinx() -> None:
    """Raise ``ModuleNotFoundError`` if a package that makes the pages is missing."""
    for name in ("sphinx", "myst_parser", "furo"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"the pages of a study need {name}", name=name)


def build_site(plan: Plan, *, reference: bool = False) -> Path:
    """Write ``runs/<profile>/report/`` from what has run, and return its ``index.html``.

    The new pages are made beside the old ones, and replace them when they are there.

    Args:
        plan: of the study.
        reference: with the page of every public name, which takes some seconds longer.

    Raises:
        ModuleNotFoundError: Sphinx is not installed.
        SiteError: Sphinx has failed or warned, or a link leads nowhere; in the last two cases the pages are there.
    """
    require_sphinx()
    report, work = plan.report.parent, plan.folder / ".site"
    with locked(report):
        shutil.rmtree(work, ignore_errors=True)
        _write_sources(plan, Sources(work / "source"), reference)
        said = _sphinx(work, plan.profile, reference)
        html = work / "html"
        if not (html / "index.html").is_file():
            raise SiteError(f"Sphinx has made no pages from {work / 'source'}: {said[-2000:]}")
        said += "".join(f"{link}\n" for link in broken_links(html))
        shutil.rmtree(report, ignore_errors=True)
        html.rename(report)
        if said:
            raise SiteError(f"the pages {plan.report} have faults (sources: {work / 'source'}):\n{said.strip()}")
        shutil.rmtree(work)
    return plan.report


def _write_sources(plan: Plan, sources: Sources, reference: bool) -> None:
    root, records, pages = project_root(), read_records(plan.profile), {}
    known = {**discover(), **{job.label: Path(job.source) for job in plan.of("notebooks")}}
    for name, path in sorted(known.items()):
        job = plan.jobs.get(f"notebooks/{name}")
        tried = [plan.file(job, suffix) for suffix in (".failed.ipynb", ".ipynb")] if job else []
        failure = plan.facts(job).get("failure") if job else None
        pages[name] = CoursePage(next((file for file in tried if file.is_file()), path), failure)
    for name, page in pages.items():
        sources.add(f"notebooks/{name}.md", page.markdown(notebook_about(plan, name)))
        for figure in page.figures:
            sources.add_figure(figure.name, figure.png)
    sources.add("figures.md", gallery(pages))
    for path in [*(root / name for name in FILES), *sorted((root / "docs").glob("*.md"))]:
        if path.name not in ("claims.md", "verdicts.md"):  # which are pages of their own here
            sources.add_file(path)
    write_claims(sources, plan.profile, records, pages)
    if reference:
        from gcplib.lab.site.reference import write_reference

        write_reference(sources)
    sources.add("index.md", front_page(plan, pages, records, sources))


def _sphinx(work: Path, profile: str, reference: bool) -> str:
    """Make the pages, and return what Sphinx has to say against them."""
    extensions = f"{EXTENSIONS},{REFERENCE}" if reference else EXTENSIONS
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "-j", str(cpu_count())]
    command += ["-c", str(Path(__file__).parent), "-d", str(work / "doctrees"), "-D", f"extensions={extensions}"]
    command += ["-D", f"html_title=gcplib, profile {profile}", str(work / "source"), str(work / "html")]
    paths = (str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def broken_links(folder: Path) -> list[str]:
    """Return the links and images of pages that lead nowhere within a folder of HTML."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.html"))}
    anchors = {path: set(re.findall(r'\b(?:id|name)="([^"]*)"', text)) for path, text in texts.items()}
    broken = []
    for path, text in texts.items():
        for target in dict.fromkeys(re.findall(r'<[^>]+\b(?:href|src)="([^"]*)"', text)):
            file, _, anchor = unquote(target.partition("?")[0]).partition("#")
            if re.match(r"\w+:", target):
                continue
            to = (path.parent / file).resolve() if file else path
            to = to / "index.html" if to.is_dir() else to
            if not to.is_file() or (anchor and to in anchors and anchor not in anchors[to]):
                broken.append(f"{path.relative_to(folder)}: broken link {target}")
    return broken
