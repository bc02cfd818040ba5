"""Sources of pages: links between the repository's files become links between pages, and linked files come along."""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from gcplib.lab.files import project_root, write_text
from gcplib.lab.study.notebooks import discover

__all__ = ["Sources", "code", "fence", "toctree"]

LINK = re.compile(r"\[([^\]\[]*)\]\(([^)\s]+)\)")
# What is a page for each claim here.
CLAIMS = ("docs/claims.md", "docs/verdicts.md")


class Sources:
    """A folder of Markdown for Sphinx, with the places of the repository's own files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.written = folder, {}
        folder.mkdir(parents=True)

    def add(self, place: str, text: str, written_for: str = "") -> None:
        """Write a page.

        Args:
            place: of the page, such as ``claims/C07.md``.
            text: Markdown.
            written_for: the place that its links lead from, if it is another.
        """
        text = LINK.sub(lambda found: self._link(found[0], found[1], found[2], written_for or place, place), text)
        # Nothing here draws such a graph; its lines can be read.
        self.written[place] = write_text(self.folder / place, text.replace("```mermaid", "```text"))

    def add_file(self, path: Path) -> None:
        """Write a page of the repository; nothing where there is none."""
        if path.is_file():
            self.add(path.relative_to(project_root()).as_posix(), path.read_text(encoding="utf-8"))

    def add_figure(self, name: str, png: bytes) -> None:
        """Write a figure, which pages read from ``figures/``."""
        path = self.folder / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png)

    def has(self, place: str) -> bool:
        """Whether there is a page, named without its suffix."""
        return any(f"{place}{suffix}" in self.written for suffix in (".md", ".rst"))

    def _link(self, whole: str, words: str, target: str, source: str, place: str) -> str:
        file, _, anchor = target.partition("#")
        if not file or ":" in file:
            return whole
        path, anchor = posixpath.normpath(posixpath.join(posixpath.dirname(source), file)), anchor and f"#{anchor}"
        if path in CLAIMS:
            path, anchor = f"claims/{anchor[1:].upper() if re.fullmatch(r'#c[0-9]+', anchor) else 'index'}.md", ""
        elif path.endswith(".ipynb"):
            if posixpath.basename(path).removesuffix(".ipynb") not in discover():
                return words or path
            path = f"{path.removesuffix('.ipynb')}.md"
        elif not path.endswith(".md") and (project_root() / path).is_file() and not (self.folder / path).exists():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(project_root() / path, self.folder / path)
        elif path.startswith(("docs/", "data/")) and not (project_root() / path).is_file():
            return words or path  # beside an installed package there is no documentation
        # The name of a file says less than the title of its page.
        words = "" if words.endswith((".md", ".ipynb")) else words
        return f"[{words}]({posixpath.relpath(path, posixpath.dirname(place) or '.')}{anchor})"


def fence(text: str, language: str = "text") -> str:
    """Return text as a block of code, whatever is in it.

    >>> print(fence("a ``` b"))
    ````text
    a ``` b
    ````
    """
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text}\n{ticks}"


def code(text: object) -> str:
    """Return text as code within a line, whatever is in it.

    >>> code("a ` b")
    '`` a ` b ``'
    """
    line = " ".join(str(text).split())
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"`{line}`" if ticks == "`" else f"{ticks} {line} {ticks}"


def toctree(caption: str, entries: Sequence[str]) -> str:
    """Return an entry of the list of pages beside every page."""
    return fence("\n".join([":hidden:", f":caption: {caption}", ":maxdepth: 2", "", *entries]), "{toctree}")
