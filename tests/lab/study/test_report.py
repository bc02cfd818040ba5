"""The report from files made by hand, so that nothing has to run."""

import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from gcplib.lab.study import Evidence, index_page, record
from gcplib.lab.study.notebook_page import Page
from gcplib.lab.study.profiles import make_plan
from gcplib.lab.study.verdicts import claims

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def image_cell(**metadata):
    output = new_output("display_data", data={"image/png": PNG})
    return new_code_cell("plot()", outputs=[output], metadata=metadata)


def executed(world, name, *cells, profile="smoke", **facts):
    path = world.runs(profile, "notebooks", f"{name}.ipynb")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)
    plan = make_plan(profile)
    plan.finish(plan.jobs[f"notebooks/{name}"])
    machine = {"cpu": "Toy CPU", "cores": 2, "gpu": None, "system": "Toy", "versions": {"python": "3"}, "commit": "abc"}
    entry = {"status": "ok", "seconds": 61.0, "date": "2026-01-02T03:04:05", "machine": machine} | facts
    path.with_suffix(".json").write_text(json.dumps(entry))
    return path


def build_report(profile):
    return index_page.build_report(make_plan(profile))


@pytest.fixture
def profile(world):
    for name in ("a", "b"):
        world.notebook(name)
    return world.profile("description: words & more\nnotebooks: {a: , b: }")


def test_the_page_tells_claims_notebooks_and_where_they_come_from(world, profile, monkeypatch):
    monkeypatch.delenv("GCPLIB_STUDY", raising=False)
    executed(world, "a", new_markdown_cell("# Look at `spectra`"), image_cell())
    primary = Evidence("accuracy: orthogonal minus kaiming, with the path", -2, -3, -1, n=5)
    effects = [primary, Evidence("gain <x>", -2, -3, -1, n=5)]
    record("C31", effects, notebook="a", profile="smoke", data="toy", note="a note")
    page = build_report(profile).read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.split("</style>")[1]))
    for expected in (
        f"1 of 2 notebooks ran through. Of {len(claims())} claims, 1 was tested in this profile: 1 does not hold.",
        "smoke: words &amp; more", "Toy CPU · 2 cores", "Commit abc", "1 min 01 s", "does not hold here",
        "gain &lt;x&gt;",
        "−2.0 points [−3.0, −1.0]", "a note", f"{len(claims()) - 1} claims not tested",
        "07_train_fine_grained on a CUDA GPU", "Look at spectra", "not run",
    ):  # fmt: skip
        assert expected in text
    assert "run by hand" in text


def test_the_page_fetches_nothing(world, profile):
    executed(world, "a", new_markdown_cell("# T\n\nfor $x_i$ and $$\\frac{a}{b}$$"), image_cell())
    index = build_report(profile)
    for page in (index, index.parent / "notebooks" / "a.html"):
        assert not re.findall(r"""(?:src|href)=["']https?:|url\(https?:|@import""", page.read_text())


def test_formulas_are_mathml_and_what_cannot_be_converted_stays(world, profile):
    cell = new_markdown_cell("inline $x_i$, display $$\\frac{a}{b}$$ and `$code$`")
    page = Page(executed(world, "a", cell)).html
    assert page.count("<math") == 2
    assert "<mfrac>" in page
    assert "$code$" in page


def test_captions_and_headline_figures(world, profile):
    cells = [
        new_markdown_cell("# Title"),
        image_cell(),
        new_markdown_cell("text\n\n**The root flattens.** More."),
        image_cell(),
        new_markdown_cell("plain text"),
        image_cell(caption="Own words"),
    ]
    path = executed(world, "a", *cells)
    assert [figure["caption"] for figure in Page(path).figures] == ["Title", "The root flattens.", "Own words"]
    assert [figure["name"] for figure in Page(path).figures] == ["a-01", "a-02", "a-03"]
    path = executed(world, "a", *cells, image_cell(tags=["headline"]))
    assert [(figure["name"], figure["caption"]) for figure in Page(path).figures] == [("a-01", "The root flattens.")]


def test_what_changed_since_it_ran_is_out_of_date(world, profile):
    executed(world, "a", image_cell())
    assert "out of date" not in build_report(profile).read_text()
    world.notebook("a", "something = 'new'")
    assert "out of date" in build_report(profile).read_text()


def test_pages_of_an_earlier_report_do_not_stay(world, profile):
    path = executed(world, "a", image_cell())
    folder = build_report(profile).parent
    assert (folder / "figures" / "a-01.png").exists()
    path.unlink()
    build_report(profile)
    assert not list(folder.glob("figures/*.png")) + list(folder.glob("notebooks/*.html"))
