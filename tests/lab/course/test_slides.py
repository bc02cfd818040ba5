"""Slides: what stands on them, and that they need no network."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_code import NOTEBOOKS

from gcplib.lab.cli import main
from gcplib.lab.course import deck
from gcplib.lab.course.deck import deck_of, reveal_files, with_outputs, write_slides
from gcplib.lab.course.slides import stacks_of

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
PNG = "iVBORw0KGgo="

OPENING = "# Pool: see what it adds\n\n**Do** This.\n\n**Learn** That."
FIRST = """## 1. The matrix

The lead of $x$.

More, which is said.

It is

$$y = x^2$$

**Predict** Which?

| a | b |
|---|---|
| 1 | 2 |

**Task 1** *(easy, 3 minutes)* Write it.

<details><summary>Hint</summary>

Look twice.

</details>"""
TASK = "def f(x):\n    ### BEGIN SOLUTION\n    return x**2\n    ### END SOLUTION"


def notebook():
    task = new_code_cell(TASK, metadata={"tags": ["task"]})
    picture = new_output("display_data", data={"image/png": PNG})
    figure = new_code_cell("plt.show()", metadata={"caption": "A & B"}, outputs=[picture])
    finding = new_output("execute_result", data={"text/markdown": "**C01** holds."})
    closing = "The figure says so.\n\n## Exercises\n1. Try it.\n\n## Where next\n\n[01](01_a.ipynb)"
    cells = [new_markdown_cell(text) for text in (OPENING, FIRST, closing)]
    cells[2:2] = [task, figure, new_code_cell("finding('C01')", outputs=[finding])]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    return new_notebook(cells=cells)


def test_a_section_is_a_stack_and_most_of_its_text_is_in_the_notes():
    opening, first = stacks_of(notebook())  # exercises and what comes next are left out
    assert "<h1" in opening[0].html
    assert "See what it adds" in opening[0].html
    assert "That." in opening[0].html
    assert "This." in opening[0].notes
    lead, task, solution, figure, finding = first
    assert "The lead of" in lead.html
    assert "1. The matrix" in lead.html
    assert "It is" in lead.html  # it leads to the formula
    assert lead.html.count("<math") == 2
    assert '<div class="predict">' in lead.html
    assert "<table>" in lead.html
    assert "More, which is said." in lead.notes
    assert "More" not in lead.html
    assert "Write it." in task.html
    assert "Look twice." in task.notes
    assert "return" in solution.html
    assert "SOLUTION" not in solution.html
    assert f'<img alt="A &amp; B" src="data:image/png;base64,{PNG}">' in figure.html
    assert "<strong>C01</strong> holds." in finding.html
    assert "The figure says so." in finding.notes


def test_jupyters_own_slide_types_go_before_the_rule():
    changed = notebook()
    changed.cells[1].metadata["slideshow"] = {"slide_type": "slide"}
    changed.cells[3].metadata["slideshow"] = {"slide_type": "skip"}
    _, first = stacks_of(changed)
    assert "More, which is said." in "".join(slide.html for slide in first)
    assert not any("<img" in slide.html for slide in first)


def test_what_does_not_fit_goes_on_a_further_slide():
    long = new_notebook(cells=[new_markdown_cell("# A"), new_markdown_cell("## B\n\n" + "$$x$$\n\n" * 12)])
    (stack,) = stacks_of(long)
    assert len(stack) > 2
    assert sum(slide.html.count("<math") for slide in stack) == 12
    assert all(slide.html.startswith('<p class="where">B</p>') for slide in stack[1:])


def test_figures_are_those_of_cells_that_have_not_changed_since():
    plain = notebook()
    for cell in plain.cells:
        cell.pop("outputs", None)
    assert "data:image/png" in deck_of(with_outputs(plain, notebook()))
    changed = nbformat.from_dict(plain)
    changed.cells[3].source = "plt.show()  # another"
    page = deck_of(with_outputs(changed, notebook()))
    assert "data:image/png" not in page
    assert "The study draws this figure." in page


@pytest.mark.parametrize("path", PATHS[:3], ids=lambda path: path.stem)
def test_a_page_needs_no_network_and_its_formulas_no_script(path):
    page = deck_of(nbformat.read(path, as_version=4))
    body = page.partition('<div class="slides">')[2].partition("</div></div>\n<script>")[0]
    assert not re.search(r"\$[^$<]+\$", body)
    assert "<math" in body
    assert not re.findall(r"""<(?:script|img|link|iframe)[^>]*(?:src|href)=["']?(?!data:)""", body)
    # Three scripts, of which none ends early; style sheets load nothing.
    assert page.count("</script>") == page.count("<script>", page.index("</div></div>\n<script>")) == 3
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL))
    assert "@import" not in styles
    assert not re.findall(r"url\((?!['\"]?data:)", styles)


def test_slides_are_written_with_the_figures_of_a_study(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GCPLIB_NOTEBOOKS", str(tmp_path))
    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path / "runs"))
    plain = notebook()
    nbformat.write(plain, tmp_path / "00_first.ipynb")
    executed = tmp_path / "runs" / "study" / "notebooks" / "00_first.ipynb"
    executed.parent.mkdir(parents=True)
    nbformat.write(plain, executed)
    assert write_slides(folder=tmp_path / "slides") == [(tmp_path / "slides" / "00_first.html", True)]
    plain.cells[3].outputs = []
    nbformat.write(plain, tmp_path / "00_first.ipynb")
    assert main(["slides", "00", "--profile", "smoke", "--to", str(tmp_path / "slides")]) == 0
    assert "(without figures: it has not run in the study 'smoke')" in capsys.readouterr().out


def test_without_reveal_js_the_command_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    assert (reveal_files() / "dist" / "reveal.js").is_file()
    monkeypatch.setattr(deck, "find_spec", lambda name: None)
    assert main(["slides", "00", "--to", str(tmp_path)]) == 2
    assert "slides need the files of sphinx-revealjs" in capsys.readouterr().err
