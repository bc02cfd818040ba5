"""The Typefaces benchmark: same settings same bytes, damaged files rebuilt, honest labels, pairs that differ in ink."""

import itertools
import re
import string
import subprocess
import sys

import numpy as np
import pytest

from gcplib.lab.data import Typefaces, TypefacesSpec, load_typefaces, pair, rendering, typefaces
from gcplib.lab.data.fonts import CATEGORIES, MissingFamilyError, find_family, pinned_families
from gcplib.lab.data.rendering import WORDS

SMALL = TypefacesSpec(families=5, train=3, validation=1, test=2, pixels=64)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small() -> Typefaces:
    return load_typefaces(SMALL)


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(small, tmp_path):
    # A script without a main guard, as a beginner writes it: processes must not run it again.
    script = tmp_path / "script.py"
    script.write_text(
        "print('started')\n"
        "from gcplib.lab.data import TypefacesSpec, load_typefaces\n"
        f"print(load_typefaces({SMALL!r}, workers=2).path)\n"
    )
    one = small.path.read_bytes()
    small.path.unlink()
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=True)
    assert run.stdout.split() == ["started", str(small.path)]
    assert small.path.read_bytes() == one


def test_images_do_not_depend_on_how_many_there_are(small):
    more = load_typefaces(TypefacesSpec(families=7, train=4, validation=1, test=2, pixels=64))
    for name in small.class_names():
        first = small.indices("train")[small.labels()[small.indices("train")] == small.class_names().index(name)]
        second = more.indices("train")[more.labels()[more.indices("train")] == more.class_names().index(name)]
        np.testing.assert_array_equal(small.images(first), more.images(second[:3]))


def test_another_seed_or_size_is_another_file(small):
    others = [TypefacesSpec(), TypefacesSpec(seed=1), TypefacesSpec(pixels=96), TypefacesSpec(test=21), SMALL]
    assert len({spec.digest for spec in others}) == len(others)
    assert small.digest == SMALL.digest
    assert small.path.name == f"typefaces-{SMALL.digest}.npz"


def test_renderer_is_part_of_the_name(monkeypatch):
    before = SMALL.digest
    monkeypatch.setattr(rendering, "RENDERER", rendering.RENDERER + 1)
    assert SMALL.digest != before


def test_finished_file_is_read_not_rendered(small, monkeypatch):
    monkeypatch.setattr(typefaces, "_render", None)
    again = load_typefaces(SMALL)
    np.testing.assert_array_equal(again.images(np.arange(len(again))), small.images(np.arange(len(small))))
    assert again.words == small.words


@pytest.mark.parametrize("damage", ["truncate", "empty", "jpeg", "labels"])
def test_damaged_file_is_detected_and_rebuilt(small, damage):
    whole = small.path.read_bytes()
    if damage == "truncate":
        small.path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        small.path.write_bytes(b"")
    elif damage == "jpeg":
        middle = len(whole) // 2
        small.path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    else:  # a well-formed file whose content was changed
        arrays = dict(np.load(small.path))
        arrays["words"] = arrays["words"][::-1]
        np.savez(small.path, **arrays)
    with pytest.warns(UserWarning, match="truncated or altered .* rendering it again"):
        load_typefaces(SMALL)
    assert small.path.read_bytes() == whole


def test_any_flipped_byte_is_harmless_or_detected(small):
    whole = small.path.read_bytes()
    arrays = typefaces._read(small.path)
    detected = 0
    for place in np.random.default_rng(0).integers(len(whole), size=60).tolist() + list(range(0, 120, 3)):
        small.path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read = typefaces._read(small.path)
        except Exception:
            detected += 1
        else:
            assert all(np.array_equal(read[name], arrays[name]) for name in arrays), place
    assert detected > 60


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interrupted_render_leaves_no_file(cache, monkeypatch, stop):
    draw, calls = rendering.draw_image, itertools.count()

    def interrupted(*arguments):
        if next(calls) == 4:
            raise stop
        return draw(*arguments)

    monkeypatch.setattr(rendering, "draw_image", interrupted)
    with pytest.raises(stop if isinstance(stop, type) else type(stop)):
        load_typefaces(SMALL)
    assert not list(cache.glob("*.npz"))
    assert not list(cache.glob(".*.npz"))


def test_missing_family_holds_the_pip_line_and_writes_nothing(cache, monkeypatch):
    monkeypatch.setattr("gcplib.lab.data.fonts._installed_version", {"fontpkg": "0.2"}.get)
    with pytest.raises(MissingFamilyError, match=re.escape(find_family("Inter").requirement)) as error:
        load_typefaces(SMALL)
    assert all(family.requirement in str(error.value) for family in SMALL.chosen)
    assert not list(cache.glob("*.npz"))


def test_splits_counts_and_labels(small):
    assert len(small) == 5 * (3 + 1 + 2)
    places = [small.indices(split) for split in ("train", "validation", "test")]
    assert np.concatenate(places).tolist() == list(range(len(small)))
    fine, coarse = small.labels(), small.labels("coarse")
    for split, count in zip(places, (3, 1, 2), strict=True):
        assert np.bincount(fine[split]).tolist() == [count] * 5
    names, categories = small.class_names(), small.class_names("coarse")
    assert fine.dtype == coarse.dtype == np.int64
    for fine_class, coarse_class in zip(fine, coarse, strict=True):
        assert find_family(names[fine_class]).category == categories[coarse_class]
    assert set(coarse) == set(range(len(categories)))


def test_labels_belong_to_the_images(small):
    place = int(small.indices("test")[-1])
    family = find_family(small.class_names()[small.labels()[place]])
    text, jpeg = rendering.draw_image(SMALL.seed, "test", family, 1, SMALL.pixels)
    assert small.words[place] == text
    assert small._jpegs[small._offsets[place] : small._offsets[place + 1]].tobytes() == jpeg


def test_words_of_the_splits_are_disjoint_and_cover_the_alphabet(small):
    for first, second in itertools.combinations(WORDS.values(), 2):
        assert not set(first) & set(second)
    for words in WORDS.values():
        assert set("".join(words)) == set(string.ascii_lowercase)
        assert len({word[0] for word in words}) >= 24
    assert sum(map(len, WORDS.values())) >= 500
    for split in ("train", "validation", "test"):
        drawn = {word.lower() for place in small.indices(split) for word in small.words[place].split()}
        assert {word for word in drawn if not word.isdigit()} <= set(WORDS[split])


def test_images_decode_in_any_order(small):
    images = small.images(np.arange(len(small)))
    assert images.shape == (30, 64, 64, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(small.images([7, 2]), images[[7, 2]])
    np.testing.assert_array_equal(small.images(3), images[3:4])
    assert small.images([]).shape == (0, 64, 64, 3)
    with pytest.raises(IndexError, match=r"no image 30: .* 0 to 29"):
        small.images([0, 30])


def test_smaller_sets_are_nested_and_mixed():
    previous: set = set()
    for families in range(2, len(pinned_families()) + 1):
        chosen = TypefacesSpec(families=families).chosen
        assert len(chosen) == families
        assert previous < set(chosen)
        previous = set(chosen)
        assert len({family.category for family in chosen}) >= 2
        text = sum(family.category in ("sans", "serif") for family in chosen)
        assert text >= 0.6 * families
    assert chosen == pinned_families()
    assert TypefacesSpec().families == len(pinned_families()) == 60
    assert {family.category for family in TypefacesSpec(families=12).chosen} == set(CATEGORIES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"families": 1}, "families: should be greater than or equal to 2; got 1"),
        ({"families": 61}, "families: data/typefaces.txt pins 60 families, got 61"),
        ({"train": 0}, "train: should be greater than or equal to 1; got 0"),
        ({"test": -3}, "test: should be greater than or equal to 1; got -3"),
        ({"pixels": 8}, "pixels: should be greater than or equal to 64; got 8"),
        ({"seed": -1}, "seed: should be greater than or equal to 0; got -1"),
        *(({"train": value}, f"train: should be a valid integer; got {value!r}") for value in (2.5, "10", True, None)),
    ],
)
def test_bad_settings_say_value_and_range(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TypefacesSpec(**settings)


def test_unknown_split_and_labels_list_the_choices(small):
    with pytest.raises(ValueError, match="unknown split 'val'; known: train, validation, test"):
        small.indices("val")
    for method in (small.labels, small.class_names):
        with pytest.raises(ValueError, match="unknown kind of labels 'family'; known: fine, coarse"):
            method("family")


@pytest.mark.parametrize("pixels", [96, 224])
def test_text_is_inside_the_image_large_and_legible(pixels):
    for number, family in enumerate(pinned_families()):
        scene = rendering.draw_scene(rendering.scene_rng(1, "train", family, number), "train", pixels)
        (ink,) = rendering.place_text(scene, [family])
        rows, columns = np.nonzero(ink > 32)
        assert min(rows.min(), columns.min()) >= 1, family.name
        assert max(rows.max(), columns.max()) <= pixels - 2, family.name
        assert max(np.ptp(rows), np.ptp(columns)) > 0.15 * pixels
        assert rendering.contrast(scene.color, *rendering.bounds(scene.background)) >= 3
        assert ink.max() > 200


def test_contrast_closed_form():
    assert rendering.contrast((0, 0, 0), *rendering.bounds(np.full((2, 2, 3), 255.0))) == pytest.approx(21)
    assert rendering.contrast((255, 255, 255), *rendering.bounds(np.full((2, 2, 3), 0.0))) == pytest.approx(21)
    mixed = np.stack([np.zeros((2, 3)), np.full((2, 3), 255.0)])
    assert rendering.contrast((128, 128, 128), *rendering.bounds(mixed)) == 1


@pytest.mark.parametrize("seed", range(6))
def test_pair_differs_only_near_its_letters(seed):
    drawn = pair("Inter", "lora", seed=seed)
    assert drawn.families == ("Inter", "Lora")
    assert drawn.first.shape == (224, 224, 3)
    assert drawn.first.dtype == np.uint8
    np.testing.assert_array_equal(drawn.first[~drawn.mask], drawn.second[~drawn.mask])
    assert (drawn.first[drawn.mask] != drawn.second[drawn.mask]).any(axis=-1).all()
    assert 0.002 < drawn.mask.mean() < 0.5
    # Every pixel of the mask has ink of one of the families within reach of the blur.
    scene = rendering.draw_scene(np.random.default_rng([0, 3, 0, seed]), "test", 224)
    assert scene.text == drawn.text
    ink = np.maximum(*rendering.place_text(scene, [find_family("Inter"), find_family("Lora")])) > 0
    near = ink.copy()
    for axis, step in itertools.product((0, 1), (-4, -3, -2, -1, 1, 2, 3, 4)):
        near |= np.roll(near if axis else ink, step, axis=axis)
    assert not (drawn.mask & ~near).any()
    again = pair("Inter", "Lora", seed=seed)
    np.testing.assert_array_equal(again.first, drawn.first)
    assert not np.array_equal(pair("Inter", "Lora", seed=seed + 1).first, drawn.first)


def test_pair_swapped_is_the_same_pair():
    one, other = pair("Roboto", "Inter"), pair("Inter", "Roboto")
    np.testing.assert_array_equal(one.first, other.second)
    np.testing.assert_array_equal(one.mask, other.mask)


def test_pair_refuses_unknown_and_equal_families():
    with pytest.raises(ValueError, match=r"unknown typeface 'Interr'; did you mean 'Inter'"):
        pair("Interr", "Lora")
    with pytest.raises(ValueError, match="both are 'Lora'"):
        pair("Lora", "lora")


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_show_titles_are_class_names(small, labels):
    figure = small.show("test", n=6, labels=labels)
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert len(titles) == 6
    assert set(titles) <= set(small.class_names(labels))
    with pytest.raises(ValueError, match="n is 0"):
        small.show(n=0)


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bar_counts_images_and_can_be_silent(cache, capsys, monkeypatch, shown):
    monkeypatch.setenv("GCPLIB_PROGRESS", str(int(shown)))
    load_typefaces(TypefacesSpec(families=2, train=1, validation=1, test=1, pixels=64))
    output = capsys.readouterr()
    assert output.out == ""
    assert ("6/6" in output.err) if shown else (output.err == "")
