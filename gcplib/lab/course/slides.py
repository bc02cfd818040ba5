"""What of a notebook goes on slides, by a rule: no cell has to say so.

A heading begins a stack of slides, and a smaller heading, a task or a figure with a caption a further slide in it. On a
slide stand the first paragraph of a section, formulas with what leads to them, tables, lists, predictions and tasks;
all other text is in the speaker's notes. Exercises, verdicts and what comes next are left out. Jupyter's own
``slide_type`` of a cell goes before the rule: ``skip`` leaves it out, and ``slide`` or ``subslide`` shows all of it.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

import nbformat
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from gcplib.lab.site.formulas import markdown_as_html

__all__ = ["Slide", "stacks_of"]

LEFT_OUT = ("Exercise", "Where next", "Verdicts")  # how such sections begin
WHOLE = ("What we found", "What to remember")
ROOM = 14.0  # lines of text that fit on a slide
LETTERS = 95  # that fit on a line
LINK = re.compile(r"\[([^\]]*)\]\((?:https?:|[^)\s]*\.(?:ipynb|md))[^)]*\)")


@dataclass
class Slide:
    """One slide: HTML to show, Markdown to say, and how many lines are taken."""

    shown: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    lines: float = 0.0

    @property
    def html(self) -> str:
        """What is shown."""
        return "\n".join(self.shown)

    @property
    def notes(self) -> str:
        """What is said, as HTML."""
        return _rendered("\n\n".join(self.said))


class _Deck:
    """Stacks of slides that are being filled, and the section that is being read."""

    def __init__(self) -> None:
        self.stacks: list[list[Slide]] = []
        self.section, self.is_first = "", False

    def begin(self, heading: str, level: int) -> None:
        """Begin a stack, or below the second level a slide of the last one."""
        if level <= 2 or not self.stacks:
            self.stacks.append([Slide([_rendered(f"{'#' * level} {heading}")], lines=2.0)])
            self.section = re.sub(r"^\d+\.\s*", "", heading)
        else:
            self.add(_rendered(f"{'#' * level} {heading}"), 1.5)
        self.is_first = True

    def add(self, shown: str = "", lines: float = 0.0) -> Slide:
        """Add a slide to the last stack, with the section's name above it."""
        where = f'<p class="where">{_rendered(self.section).removeprefix("<p>").removesuffix("</p>")}</p>'
        self.stacks[-1].append(slide := Slide([where, *filter(None, [shown])], lines=1.0 + lines))
        return slide

    def show(self, text: str, lines: float, kind: str = "") -> None:
        """Show a block, on a further slide where the last one is full."""
        last = self.stacks[-1][-1]
        if last.lines > 2.5 and last.lines + lines > ROOM:
            last = self.add()
        shown = _rendered(text)
        last.shown.append(f'<div class="{kind}">{shown}</div>' if kind else shown)
        last.lines += lines

    def say(self, text: str) -> None:
        """Keep a block for the notes of the last slide."""
        self.stacks[-1][-1].said.append(text)

    def block(self, text: str, is_whole: bool) -> None:
        """Show or say a block of Markdown."""
        if heading := re.match(r"(#+)\s+(.*)", text):
            self.begin(heading[2], len(heading[1]))
        elif self.section.startswith(LEFT_OUT) or not self.stacks:
            return
        elif text.startswith("<details"):
            self.say(text)
        elif text.startswith("**Task"):
            self.add()
            self.show(text, _lines(text), "task")
        elif text.startswith("**Predict**"):
            self.show(text, _lines(text), "predict")
        elif is_whole or self.is_first or re.match(r"\||\* |\d+\. ", text) or "$$" in text:
            self.show(text, _lines(text))
            self.is_first = False
        else:
            self.say(text)

    def code(self, cell: nbformat.NotebookNode, tags: list[str]) -> None:
        """Show the solution of a task, figures, and findings."""
        if self.section.startswith(LEFT_OUT) or not self.stacks:
            return
        if "task" in tags:
            source = re.sub(r"^ *### (BEGIN|END) SOLUTION\n?", "", cell.source, flags=re.MULTILINE)
            shown = highlight(source, PythonLexer(), HtmlFormatter(nobackground=True))
            self.add(f"<h4>One way to write it</h4>\n{shown}", ROOM)
        data = [output.get("data", {}) for output in cell.get("outputs", [])]
        if caption := html.escape(cell.metadata.get("caption", "")):
            pictures = [found["image/png"].strip() for found in data if "image/png" in found]
            figures = [f'<img alt="{caption}" src="data:image/png;base64,{png}">' for png in pictures]
            for figure in figures or ['<p class="missing">The study draws this figure.</p>']:
                self.add(f"<h4>{caption}</h4>\n{figure}", ROOM)
        for text in (found["text/markdown"] for found in data if "text/markdown" in found):
            self.show(text, _lines(text), "finding")


def stacks_of(notebook: nbformat.NotebookNode) -> list[list[Slide]]:
    """Return the slides of a notebook, each stack for a section; figures are there if it has been executed."""
    deck = _Deck()
    opening, *cells = notebook.cells
    _open(deck, opening.source)
    for cell in cells:
        tags, kind = cell.metadata.get("tags", []), cell.metadata.get("slideshow", {}).get("slide_type")
        if kind == "skip" or {"solution", "guess"} & set(tags):
            continue
        if cell.cell_type == "code":
            deck.code(cell, tags)
            continue
        for text in _blocks(cell.source):
            deck.block(text, kind in ("slide", "subslide") or deck.section.startswith(WHOLE))
    return [stack for stack in deck.stacks if len(stack) > 1 or len(stack[0].shown) > 1]


def _open(deck: _Deck, source: str) -> None:
    """Make the first slide: the title, and what there is to learn."""
    for text in _blocks(source):
        if heading := re.match(r"# (.*)", text):
            title, _, rest = heading[1].partition(": ")
            deck.begin(title, 1)
            if rest:
                deck.show(rest[:1].upper() + rest[1:], 2.0, "subtitle")
        elif text.startswith("**Learn**"):
            deck.show(text.removeprefix("**Learn**").strip(), _lines(text))
        else:
            deck.say(text)


def _blocks(source: str) -> list[str]:
    """Return headings and paragraphs; what is folded stays together, and so does a formula with what leads to it."""
    text = re.sub(r"^(#+ .*)\n(?=\S)", r"\1\n\n", source, flags=re.MULTILINE)
    found: list[str] = []
    for part in re.split(r"\n\s*\n", text.strip()):
        last = found[-1] if found else "#"
        is_open = last.startswith("<details") and "</details>" not in last
        if is_open or (part.startswith("$$") and "$$" not in last and not last.startswith(("#", "<", "|", "**"))):
            found[-1] += f"\n\n{part}"
        else:
            found.append(part)
    return found


def _lines(text: str) -> float:
    if text.startswith("|"):
        return 1.2 * len(text.splitlines())
    formulas = text.split("$$")[1::2]
    prose = "".join(text.split("$$")[::2]).strip()
    return sum(2.5 + formula.count(r"\\") for formula in formulas) + len(prose) / LETTERS + 0.7 * bool(prose)


def _rendered(text: str) -> str:
    return markdown_as_html(LINK.sub(r"\1", text)).strip()
