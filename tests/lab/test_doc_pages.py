"""What stands in the README and under docs/ is what its sources say."""

import re

import pytest

from gcplib.lab.cli import docs
from gcplib.lab.doc_pages import PAGES, stale_pages, write_page
from gcplib.lab.files import project_root
from gcplib.lab.markdown import docstring
from gcplib.lab.study.evidence import records_by_images
from gcplib.lab.study.evidence_pages import HEADLINES, readme_lines
from gcplib.lab.study.keep import with_lines

ROOT = project_root()
TEXTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_what_would_be_written(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert text.startswith("<!-- Written by `python -m gcplib docs`")
    assert text == PAGES[name](), "run python -m gcplib docs"


def test_readme_is_short_and_shows_the_kept_verdicts():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_lines(text, readme_lines()) == text
    assert all(text.count(f"\n| {words} | ") == 1 for words, *_ in HEADLINES)
    kept = [entry for records in records_by_images().values() for entry in records]
    names = {(entry["claim"], item["name"]) for entry in kept for item in entry["evidence"]}
    assert names >= {(claim, name) for _, claim, name in HEADLINES}  # an effect that is renamed would be "not run"
    assert len(text.encode()) <= 10_000
    for command in ("make study", "make test"):
        assert command in text


def test_links_between_the_pages_lead_somewhere():
    for page in TEXTS:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, anchor = target.partition("#")
            if not file.startswith("http"):
                path = page.parent / file if file else page
                assert path.exists(), f"{page.name} links to {target}"
                text = path.read_text(encoding="utf-8") if anchor else ""
                titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
                assert not anchor or anchor in anchors, f"{page.name}: {target}"


def test_every_page_is_reached_from_the_readme():
    linked = " ".join(path.read_text(encoding="utf-8") for path in TEXTS)
    assert not [path.name for path in TEXTS if path.parent.name == "docs" and f"{path.name})" not in linked]


def test_the_command_writes_pages_and_names_those_that_are_out_of_date(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GCPLIB_ROOT", str(tmp_path))
    monkeypatch.setattr("gcplib.lab.doc_pages.PAGES", {"claims.md": PAGES["claims.md"]})
    parser = __import__("argparse").ArgumentParser()
    docs.add_options(parser)
    path = tmp_path / "docs" / "claims.md"
    assert docs.run(parser.parse_args(["--check"])) == 1
    assert f"Out of date: {path}" in capsys.readouterr().out
    assert docs.run(parser.parse_args([])) == 0
    assert stale_pages() == []
    assert docs.run(parser.parse_args(["--check"])) == 0
    path.write_text("changed by hand")
    assert stale_pages() == [path]
    assert write_page("claims.md") == path
    assert stale_pages() == []


def test_a_docstring_becomes_markdown():
    def thing():
        """Do ``x``.

        Args:
            first: one thing,
                and more of it.

        Returns:
            The rest.

        >>> 1 + 1
        2
        """

    text = docstring(thing)
    assert text.startswith(
        "Do `x`.\n\n**Args**\n\n* `first`: one thing,\n  and more of it.\n\n**Returns**\n\n  The rest."
    )
    assert text.endswith("```python\n>>> 1 + 1\n2\n```")
