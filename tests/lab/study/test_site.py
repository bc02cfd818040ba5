"""The site from files made by hand, so that nothing has to run."""

import dataclasses
import io
import json
import re
from types import SimpleNamespace

import nbformat
import PIL.Image
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from gcplib.lab.cli import main
from gcplib.lab.files import project_root
from gcplib.lab.site import SiteError, build, build_site, claim_pages, front
from gcplib.lab.site.build import broken_links
from gcplib.lab.site.front import front_page
from gcplib.lab.site.interval_plots import interval_figure
from gcplib.lab.site.notebooks import CoursePage
from gcplib.lab.site.pages import Sources
from gcplib.lab.study import Evidence, record
from gcplib.lab.study.profiles import make_plan
from gcplib.lab.study.runner import run_study
from gcplib.lab.study.verdicts import claims

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
# Everything that a page may not do: fetch something.
FETCHED = r"""<(?:script|img|link|iframe|source)[^>]*(?:src|href)=["']https?:|url\(["']?https?:|@import"""


def image_cell(source="plot()", **metadata):
    output = new_output("display_data", data={"image/png": PNG})
    return new_code_cell(source, outputs=[output], metadata=metadata)


def executed(world, name, *cells, failure=None, profile="smoke"):
    suffix = ".failed.ipynb" if failure else ".ipynb"
    path = world.runs(profile, "notebooks", f"{name}{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)
    plan = make_plan(profile)
    if not failure:
        plan.finish(plan.jobs[f"notebooks/{name}"])
    machine = {"cpu": "Toy CPU", "cores": 2, "gpu": None, "system": "Toy", "versions": {"python": "3"}, "commit": "abc"}
    entry = {"status": "failed" if failure else "ok", "seconds": 61.0, "date": "2026-01-02T03:04:05"}
    facts = world.runs(profile, "notebooks", f"{name}.json")
    facts.write_text(json.dumps(entry | {"machine": machine, "failure": failure}))
    return path


@pytest.fixture
def profile(world):
    for name in ("a", "b", "c"):
        world.notebook(name)
    return world.profile("description: words & more\nnotebooks: {a: , b: , c: }")


def test_many_runs_that_were_lost_for_one_reason_are_one_line():
    def lost(*directories, outcome="diverged", reason="loss nan"):
        return [{"outcome": outcome, "directory": name, "reason": reason} for name in directories]

    runs = [*lost("a", "b"), *lost("c", outcome="failed", reason=""), *lost("d", "e", "f")]
    plan = SimpleNamespace(profile="p", description="", shared={}, of=lambda _: [], facts=None, runs=lambda *_: runs)
    said = front._provenance(plan)[0]
    assert "| diverged | `a`, `b`, `d` and 2 more: `loss nan` |" in said
    assert "| failed | `c`: `no reason` |" in said
    assert said.count("diverged") == 1


def test_a_verdict_of_this_run_names_its_images_as_the_kept_one_does():
    entry = {"claim": "C31", "evidence": [], "notebook": "a", "data": "cars (folder), 49 classes", "note": ""}
    entry |= {"date": "2026-01-02T03:04:05", "machine": {"commit": "abc"}}
    found = {"photographs-cars" + claim_pages.HERE: [entry], "photographs-cars": [entry]}
    _, rows = claim_pages._history(claims()["C31"], found)
    assert rows.count("| cars |") == 2


def test_intervals_of_what_decides_are_drawn_in_panels_and_of_nothing_else():
    def entry(*evidence):
        found = [dataclasses.asdict(item) for item in evidence]
        return [{"claim": "C31", "evidence": found, "notebook": "a", "data": "toy", "note": ""}]

    primary = Evidence("accuracy: orthogonal minus kaiming, with the path", 2, 1, 3, n=5)
    other = Evidence("no primary effect", 2, 1, 3, n=5)
    drawn = [{"a": entry(primary)}, {"a": entry(primary), "b": entry(primary)}, {"a": entry(primary, other)}]
    one, two, again = (PIL.Image.open(io.BytesIO(interval_figure("C31", found))).height for found in drawn)
    assert two > one == again
    assert interval_figure("C31", {"a": entry(other)}) is None
    assert interval_figure("C01", {"a": entry(primary)}) is None


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.split("</head>")[1]))


def test_a_site_tells_what_ran_what_failed_and_what_it_says(world, profile, monkeypatch):
    monkeypatch.delenv("GCPLIB_STUDY", raising=False)
    opening = (
        "# Look at `spectra`: closely\n\n**Claims under test** C31.\n\nfor $x_i$ and\n\n$$\\frac{a}{b}$$\n\n% of all"
    )
    html = new_output("execute_result", data={"text/html": "<table>\n\n<tr><td>a cell</td></tr></table>"})
    found = new_code_cell("finding('C31')", outputs=[new_output("stream", text="printed ``` words")])
    shown = image_cell(tags=["headline"], caption='One "figure": of C31')
    executed(world, "a", new_markdown_cell(opening), shown, found, new_code_cell("t", outputs=[html]))
    wrong = new_code_cell("x = 0\n1 / x", id="wrong")
    failure = {"id": "wrong", "number": 1, "source": "x = 0\n1 / x", "error": "ZeroDivisionError: <0>"}
    executed(world, "b", new_markdown_cell("# Bad"), wrong, failure=failure)
    primary = Evidence("accuracy: orthogonal minus kaiming, with the path", -2, -3, -1, n=5)
    effects = [primary, Evidence("gain <x>", -2, -3, -1, n=5)]
    monkeypatch.setenv("GCPLIB_CHANGES", '["07.full={epochs: 6}"]')
    record("C31", effects, notebook="a", profile="smoke", data="toy", note="a note")

    index = build_site(make_plan("smoke"))  # Sphinx warns of nothing, and no link is broken, or it would raise
    page = index.read_text()
    text = text_of(page)
    for expected in (
        f"1 of 3 notebooks ran through, 1 failed. Of {len(claims())} claims, 1 was tested in this profile: 1 does not",
        "smoke: words &amp; more", "Toy CPU · 2 cores", "abc", "1 min 01 s", "2026-01-02 03:04", "not run",
        "Look at spectra: closely", "ZeroDivisionError: &lt;0&gt;",
    ):  # fmt: skip
        assert expected in text
    assert '<span class="badge fails">does not hold here</span>' in page
    assert 'href="notebooks/b.html#cell-wrong">cell [1]</a>' in page
    assert len(page) < 300_000
    course, failed, claim = (
        (index.parent / name).read_text() for name in ("notebooks/a.html", "notebooks/b.html", "claims/C31.html")
    )
    assert course.count("<math") == 2
    assert "<mfrac>" in course
    assert "% of all" in course
    assert "printed ``` words" in course
    assert "<td>a cell</td>" in course
    assert '<div class="cell failed" id="cell-wrong">' in failed
    assert "there are no outputs" in (index.parent / "notebooks" / "c.html").read_text()
    for expected in (
        "gain &lt;x&gt;", "−2.0 points", "[−3.0, −1.0]", "a note", "does not hold here",
        "python -m gcplib study --profile smoke --only a --set '07.full={epochs: 6}'", "One &quot;figure&quot;: of C31",
    ):  # fmt: skip
        assert expected in text_of(claim)
    assert 'href="../notebooks/a.html#cell-' in claim
    for path in index.parent.rglob("*.html"):
        page = path.read_text()
        assert not re.findall(FETCHED, page), path
        images = re.findall(r"<img[^>]*>", page)
        assert all(re.search(r'alt="[^"]', image) for image in images), path
    assert "orthogonal" in (index.parent / "searchindex.js").read_text()
    assert (index.parent / "_images" / f"a-{shown.id}.png").read_bytes().startswith(b"\x89PNG")


def test_captions_headlines_and_the_figure_of_a_claim(tmp_path):
    cells = [
        new_markdown_cell("# Title"),
        image_cell(),
        new_markdown_cell("text\n\n**The root flattens.** More."),
        image_cell(),
        new_code_cell("finding('C01')"),
        image_cell(caption="Own words"),
        new_code_cell("for claim in ('C02', 'C03'):\n    finding(claim)"),
    ]
    page = page_of(tmp_path, cells)
    assert [figure.caption for figure in page.figures] == ["Title", "The root flattens.", "Own words"]
    assert page.headlines == page.figures
    assert page.figure_of("C01") is None
    assert page.figure_of("C03").caption == "Own words"
    assert page.figure_of("C04") is None
    page = page_of(tmp_path, [*cells, image_cell(tags=["headline"])])
    assert [figure.name for figure in page.headlines] == [page.figures[-1].name]


def page_of(folder, cells):
    path = folder / "a.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return CoursePage(path)


def test_what_changed_since_it_ran_is_out_of_date(world, profile):
    path, sources = executed(world, "a", image_cell()), Sources(world.root / "sources-of-site")

    def front():
        pages = {name: CoursePage(path) for name in "abc"}
        return front_page(make_plan("smoke"), pages, [], sources)

    assert "out of date" not in front()
    world.notebook("a", "something = 'new'")
    assert "out of date" in front()


def test_new_pages_replace_the_old_ones_or_leave_them(world, profile, monkeypatch):
    plan = make_plan("smoke")
    says = iter([("one", ""), ("two", ""), (None, "no such theme"), ("three", "WARNING: look")])

    def sphinx(work, *arguments):
        page, said = next(says)
        (work / "html").mkdir()
        if page:
            (work / "html" / "index.html").write_text(page)
            (work / "html" / f"{page}.html").write_text("")
        return said

    monkeypatch.setattr(build, "_sphinx", sphinx)
    for name in ("one", "two"):
        assert build_site(plan).read_text() == name
    assert sorted(path.name for path in plan.report.parent.iterdir()) == ["index.html", "two.html"]
    assert not (plan.folder / ".site").exists()
    with pytest.raises(SiteError, match="no such theme"):
        build_site(plan)
    assert plan.report.read_text() == "two"
    with pytest.raises(SiteError, match="WARNING: look"):
        build_site(plan)
    assert plan.report.read_text() == "three"


def test_a_study_whose_pages_cannot_be_made_keeps_its_results(world, profile, capsys):
    kept = [executed(world, name, image_cell()) for name in "abc"]

    def broken(plan):
        raise SiteError("no such theme")

    assert run_study("smoke", broken) == 1
    said = capsys.readouterr().out
    assert "The report is not whole: no such theme" in said
    assert f"All results are kept in {world.runs('smoke')}" in said
    assert all(path.is_file() for path in kept)


def test_a_command_says_what_to_run_and_which_package_is_missing(world, profile, monkeypatch, capsys):
    assert main(["report", "--profile", "smoke"]) == 2
    assert "make study PROFILE=smoke" in capsys.readouterr().err
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    # The installed package may be older than the checkout, and not know which extra has Sphinx.
    monkeypatch.setattr("gcplib.lab.cli.remedy", lambda name: f"; it comes with: an extra that has {name}")
    assert main(["study", "--profile", "smoke"]) == 2
    assert "need sphinx; it comes with: an extra that has sphinx" in capsys.readouterr().err
    assert not world.runs().exists()


def test_links_of_the_repository_become_links_of_the_site(world, tmp_path):
    world.notebook("01")
    (world.root / "data").mkdir()
    (world.root / "data" / "a.csv").write_text("x")
    sources = Sources(tmp_path / "site")
    links = "[claims.md](claims.md#c07), [all](verdicts.md#by-the-protocol), [01](../notebooks/01.ipynb), [a](#b), "
    others = "[there](https://example.org), [lost](lost.md), [02](02.ipynb), `x[i](#y)`"
    sources.add("docs/b.md", f"{links}[data](../data/a.csv), {others}")
    expected = "[](../claims/C07.md), [all](../claims/index.md), [01](../notebooks/01.md), [a](#b), "
    text = (tmp_path / "site" / "docs" / "b.md").read_text()
    assert text == f"{expected}[data](../data/a.csv), [there](https://example.org), lost, 02, `x[i](#y)`"
    assert (tmp_path / "site" / "data" / "a.csv").read_text() == "x"


def test_broken_links_are_found(tmp_path):
    (tmp_path / "b.html").write_text('<p id="there">')
    page = '<a href="b.html#there"><a href="b.html#no"><a href="#x"><img src="c.png"><a href="https://example.org">'
    (tmp_path / "a.html").write_text(f'{page}<a href=".">&lt;a href="d.html"&gt;')
    assert [line.rpartition(" ")[2] for line in broken_links(tmp_path)] == ["b.html#no", "#x", "c.png", "."]


@pytest.mark.slow
def test_the_documentation_and_the_reference_have_no_broken_link_and_no_warning(tmp_path, monkeypatch):
    from gcplib.lab.site.reference import MODULES, public_names

    monkeypatch.setenv("GCPLIB_RUNS", str(tmp_path))
    index = build_site(make_plan("study"), reference=True)
    for module in MODULES:
        page = (index.parent / "api" / f"{module}.html").read_text()
        for name in public_names(module):
            # The door's names lead to the pages of their modules.
            assert (f'id="{module}.{name}"' if module != "gcplib" else f">gcplib.{name}<") in page
    for path in (project_root() / "docs").glob("*.md"):
        assert path.stem in ("claims", "verdicts") or (index.parent / "docs" / f"{path.stem}.html").is_file()
