"""The pinned families, their installation and the measured distances between them."""

import collections
import csv
import importlib.util

import numpy as np
import pytest

from gcplib.lab.data import fonts
from gcplib.lab.files import project_root

# The script that chose them lies beside what it wrote.
_SPEC = importlib.util.spec_from_file_location("choose_typefaces", project_root() / "data" / "choose_typefaces.py")
distance = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(distance)


def test_pinned_families_are_many_and_mostly_text_faces():
    counts = collections.Counter(family.category for family in fonts.pinned_families())
    assert sum(counts.values()) >= 60
    assert counts["sans"] + counts["serif"] >= 40
    assert set(counts) == set(fonts.CATEGORIES)
    assert min(counts.values()) >= 4
    assert counts == distance.QUOTAS


def test_pinned_families_have_latin_glyphs_and_a_plausible_x_height():
    for family in fonts.pinned_families():
        assert 0.25 < fonts.x_height(family) < 0.85, family.name


def test_weight_axis_is_set_and_clipped():
    ink = {}
    for name in ("Source Sans 3", "Arimo", "Lato"):
        family = fonts.find_family(name)
        ink[name] = [int(fonts_ink.sum()) for fonts_ink in (distance.glyphs(family, w) for w in (200, 400, 700))]
    assert ink["Source Sans 3"][0] < ink["Source Sans 3"][1] < ink["Source Sans 3"][2]
    assert ink["Arimo"][0] == ink["Arimo"][1] < ink["Arimo"][2]  # its axis starts at 400
    assert len(set(ink["Lato"])) == 1  # a static font


def test_optical_size_is_that_of_text():
    family = fonts.find_family("Newsreader")
    _, axes = fonts.font_source("Newsreader")

    def ink(font):
        return bytes(font.getmask("hamburg"))

    cuts = {}
    for size in (14, 72):
        font = fonts.open_font(family, 80)
        font.set_variation_by_axes([size if tag == "opsz" else 400 for tag, *_ in axes])
        cuts[size] = ink(font)
    assert ink(fonts.open_font(family, 80)) == cuts[14] != cuts[72]


def test_missing_and_wrong_versions_are_named_at_once_with_one_pip_line(monkeypatch):
    families = [fonts.find_family(name) for name in ("Inter", "Lora", "Karla")]
    versions = {"fontpkg": "0.2", families[1].package: "0.1", families[2].package: families[2].version}
    monkeypatch.setattr(fonts, "_installed_version", versions.get)
    with pytest.raises(fonts.MissingFamilyError) as error:
        fonts.check_installed(families)
    message = str(error.value)
    assert message.splitlines()[-1] == f"Run: pip install {families[0].requirement} {families[1].requirement}"
    assert "Inter is not installed" in message
    assert f"Lora is version 0.1, pinned is {families[1].version}" in message
    assert "Karla" not in message


def test_pinned_versions_are_those_installed():
    fonts.check_installed(fonts.pinned_families())


def test_unknown_family_lists_near_matches():
    assert fonts.find_family("inter").name == "Inter"
    with pytest.raises(ValueError, match=r"unknown typeface 'Merriwether'; did you mean 'Merriweather'"):
        fonts.find_family("Merriwether")


def test_malformed_list_names_the_line(tmp_path):
    (tmp_path / "list.txt").write_text("# note\nfontpkg-inter==4.1  # grotesque | Inter\n")
    with pytest.raises(ValueError, match=r"line 2: .*grotesque.*sans, serif"):
        fonts.read_families(tmp_path / "list.txt")


def test_distance_closed_form():
    square, half, away = np.zeros((3, 1, 8, 8), dtype=np.uint8)
    square[0, :4] = half[0, :2] = away[0, 4:] = 255
    assert distance.distance(square, square) == 0
    assert distance.distance(square, half) == pytest.approx(0.5)
    assert distance.distance(half, square) == pytest.approx(0.5)
    assert distance.distance(square, away) == 1


def test_selection_drops_near_duplicates_then_fills_quotas(monkeypatch):
    monkeypatch.setattr(distance, "QUOTAS", {"sans": 2, "serif": 1})
    families = [fonts.Family(name, "p", "1", c) for name, c in zip("ABCDE", ["sans"] * 4 + ["serif"], strict=True)]
    table = np.ones((5, 5))
    table[0, 1] = table[1, 0] = distance.THRESHOLD - 0.01
    assert distance.select(families, table) == ["kept", "near-duplicate of A", "kept", "category full", "kept"]


@pytest.mark.slow
def test_kept_families_are_farther_apart_than_the_threshold():
    with (project_root() / "data" / "typefaces_distance.csv").open() as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if row["decision"] == "kept"]
    pinned = fonts.pinned_families()
    assert [row["family"] for row in kept] == [family.name for family in pinned]
    assert [row["package"] for row in kept] == [family.requirement for family in pinned]
    table = distance.distances(pinned) + np.eye(len(pinned))
    assert table.min() > distance.THRESHOLD
    measured = [float(row["nearest_kept_distance"]) for row in kept]
    np.testing.assert_allclose(table.min(axis=1), measured, atol=2e-3)
    for row in rows:
        if row["decision"].startswith("near-duplicate"):
            assert float(row["nearest_kept_distance"]) < distance.THRESHOLD


def test_incomplete_candidates_write_nothing(monkeypatch):
    monkeypatch.setattr(fonts, "_installed_version", {"fontpkg": "1", "fontpkg-inter": "4.1.post1"}.get)
    before = (project_root() / "data" / "typefaces.txt").read_bytes()
    with pytest.raises(fonts.MissingFamilyError, match="Run: pip install fontpkg-"):
        distance.main()
    assert (project_root() / "data" / "typefaces.txt").read_bytes() == before
