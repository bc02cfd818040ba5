"""The check of a data set: what is missing and corrupt is found at once, and sound images are decoded only once."""

import dataclasses
import io
import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import trees
from PIL import Image

from gcplib.decoding import decode, problem
from gcplib.lab.cli import main
from gcplib.lab.data import ImagesSpec, check_images, load_images, require_sound, soundness, twins
from gcplib.lab.data.readers import list_images


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def birds(tmp_path):
    """Birds with noise, so that half a file is not all header."""
    return trees.make_cub(tmp_path / "birds", paint=trees.shaded)


def spoil(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def records(cache):
    return sorted(path.name for path in cache.glob("checked-*.json"))


def _files():
    """Images of every format, by what they are called."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 200, 3), dtype=np.uint8)
    smooth = np.linspace(0, 255, 300)[:, None, None] * np.ones((1, 200, 3))
    kinds = {
        "baseline.jpg": {"quality": 90},
        "progressive.jpg": {"quality": 90, "progressive": True},
        "restarts.jpg": {"quality": 90, "restart_marker_blocks": 4},
        "plain.png": {},
        "plain.gif": {},
        "plain.webp": {"lossless": True},
        "plain.bmp": {},
        "plain.tif": {"compression": "tiff_lzw"},
    }
    for name, options in kinds.items():
        for title, pixels in (("noise", noise), ("smooth", smooth.astype(np.uint8))):
            file = io.BytesIO()
            Image.fromarray(pixels).save(
                file, {"jpg": "jpeg", "tif": "tiff"}.get(name[-3:], name.split(".")[1]), **options
            )
            yield f"{title}-{name}", file.getvalue()


FILES = dict(_files())


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_refused_by_the_check_if_and_only_if_it_is_in_training(tmp_path, name):
    whole, path = FILES[name], tmp_path / name
    length, outcomes = len(whole), set()
    places = {0, 1, 10, 100, length // 4, length // 2, 3 * length // 4, length - 500, length - 20, length - 2, length}
    for cut in sorted(place for place in places if place >= 0):
        path.write_bytes(whole[:cut])
        reason = problem(path)
        try:
            decode(path, 32, "shorter")
            decoded = None
        except ValueError as error:
            decoded = str(error).partition("cannot be read as an image: ")[2]
        assert (reason is None) == (decoded is None), f"{cut} of {length} bytes: {reason!r}, {decoded!r}"
        outcomes.add(reason is None)
        if cut in (length // 4, length // 2, 3 * length // 4):
            assert reason is not None, f"{cut} of {length} bytes were taken for an image"
    assert outcomes == {True, False}


def test_what_training_refuses_for_other_reasons_is_a_problem_too(tmp_path):
    Image.fromarray(np.full((40, 40), 30_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert "more than 8 bits" in problem(tmp_path / "deep.png")
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    assert problem(tmp_path / "page.jpg").startswith("UnidentifiedImageError: cannot identify")
    assert problem(tmp_path / "gone.jpg").startswith("FileNotFoundError")


def test_a_whole_data_set_is_reported_and_remembered(birds, cache):
    report = check_images(ImagesSpec("cub", str(birds)))
    assert report.whole
    assert (report.missing, report.corrupt) == ([], {})
    assert len(records(cache)) == 1
    text = str(report)
    for line in (
        r"CUB-200-2011 \(dataset 'cub'\) in .*birds",
        r"train images: +15 of 5,994",
        r"test images: +6 of 5,794",
        r"\bimages: +21",
        r"classes: +3 of 200",
        r"coarse classes: +2",
        r"smallest class: +Sooty Albatross: 5 training images",
        r"missing: +0",
        r"corrupt: +0",
        r"Every listed image is sound, but the counts are not the published ones",
    ):
        assert re.search(line, text), text


def test_a_report_of_the_published_counts_says_whole(birds):
    report = check_images(ImagesSpec("cub", str(birds)))
    published = {"train": 15, "test": 6, "classes": 3}
    assert str(dataclasses.replace(report, published=published)).endswith("\nWhole.")
    assert "train images:         15 of 15\n" in str(dataclasses.replace(report, published=published))
    assert str(dataclasses.replace(report, published={})).endswith("\nWhole.")
    # A split that is missing altogether.
    assert "not the published ones" in str(dataclasses.replace(report, published=published | {"validation": 5}))


@pytest.mark.parametrize("make", [trees.make_cub, trees.make_aircraft, trees.make_cars, trees.make_kaggle_imagenet])
def test_missing_and_corrupt_images_are_all_listed(tmp_path, make, cache):
    dataset = {"make_kaggle_imagenet": "imagenet"}.get(make.__name__, make.__name__.removeprefix("make_"))
    spec = ImagesSpec(dataset, str(make(tmp_path / "data")), pixels=32)
    listing = load_images(spec).listing
    gone, empty, half = listing.paths[-1], listing.paths[2], listing.paths[5]
    (listing.base / gone).unlink()
    (listing.base / empty).write_bytes(b"")
    spoil(listing.base / half)
    report = check_images(spec)
    assert not report.whole
    assert report.missing == [gone]
    assert list(report.corrupt) == [empty, half]
    assert f"  missing: {gone}\n" in str(report)
    assert f"  corrupt: {half}: {report.corrupt[half]}\n" in str(report)
    assert str(report).endswith("leave them out by ImagesSpec.skip, or all corrupt ones by skip_corrupt.")
    assert records(cache) == []
    left = dataclasses.replace(spec, skip=(gone, empty, half))
    assert check_images(left).whole
    require_sound(load_images(left))


def test_corrupt_images_stop_a_run_at_its_start(birds, cache):
    paths = load_images(ImagesSpec("cub", str(birds))).listing.paths
    for path in (paths[1], paths[20]):
        spoil(birds / path)
    spec = ImagesSpec("cub", str(birds), pixels=32)
    with pytest.raises(ValueError, match=r"2 of the 21 images in .*birds cannot be decoded\. Restore") as caught:
        require_sound(load_images(spec))
    lines = str(caught.value).splitlines()
    assert "--skip-corrupt" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == [paths[1], paths[20]]
    assert all("OSError: image file is truncated" in line for line in lines[1:])
    assert records(cache) == []
    require_sound(load_images(dataclasses.replace(spec, skip=(paths[1], paths[20]))))


def test_all_corrupt_images_can_be_skipped_at_once(birds, cache, monkeypatch):
    spec = ImagesSpec("cub", str(birds), pixels=32, skip_corrupt=True)
    paths = load_images(spec).listing.paths
    assert len(paths) == 21
    for path in (paths[1], paths[20]):
        spoil(birds / path)
    with pytest.warns(UserWarning, match=rf"2 images in .*birds cannot be decoded and are left out: {paths[1]}"):
        data = load_images(dataclasses.replace(spec))
    assert len(data) == 19
    assert not {paths[1], paths[20]} & set(data.listing.paths)
    named = dataclasses.replace(spec, skip=(paths[1], paths[20]))
    assert named.digest == data.digest
    require_sound(load_images(named))
    # That they are corrupt is remembered until one is written anew.
    monkeypatch.setattr(soundness, "corrupt_images", lambda listing: {})
    with pytest.warns(UserWarning, match="2 images in"):
        load_images(dataclasses.replace(spec))
    content = (birds / paths[1]).read_bytes()
    os.utime(birds / paths[1], ns=(0, 0))
    assert content == (birds / paths[1]).read_bytes()
    assert len(load_images(dataclasses.replace(spec))) == 21
    # A check still reports what a run would leave out.
    monkeypatch.undo()
    monkeypatch.setenv("GCPLIB_CACHE", str(cache))
    assert len(check_images(spec).corrupt) == 2


def test_what_lies_beside_the_images_is_counted_by_reason(tmp_path):
    root = trees.make_folder(tmp_path, {f"{split}/{name}": 3 for split in ("train", "test") for name in "ab"})
    spec = ImagesSpec("folder", str(root), pixels=32)
    load_images(spec)  # and no warning
    (root / "README.md").write_text("x")
    (root / "train" / "a" / "Thumbs.db").write_bytes(b"x")
    (root / "train" / "__MACOSX").mkdir()
    trees.save(root / "train" / "__MACOSX" / "._0.png", (1, 2, 3))
    load_images(dataclasses.replace(spec))  # tables and files of systems are no loss
    (root / "train" / "a" / "phone.cr2").write_bytes(b"x")
    trees.save(root / "extra" / "a" / "0.png", (1, 2, 3))
    trees.save(root / "cover.jpg", (1, 2, 3))
    (root / "old.jpg").symlink_to(root / "nowhere.jpg")
    with pytest.warns(
        UserWarning, match=r"1 images outside the lists .*: cover\.jpg; 1 images in folders .*: extra/a/0"
    ):
        load_images(dataclasses.replace(spec))
    text = str(check_images(spec))
    for line in (
        "1 images outside the lists and class folders: cover.jpg",
        "1 images in folders that are no split or class: extra/a/0.png",
        "1 images with a suffix that is not read: train/a/phone.cr2",
        "1 dead links: old.jpg",
        "1 other files: README.md",
        "2 hidden and system files",
    ):
        assert f"  left out: {line}\n" in text, text
    assert list_images("folder", root).left_out.pictures == 4


def test_skipped_images_are_not_among_those_left_out(birds):
    paths = load_images(ImagesSpec("cub", str(birds))).listing.paths
    listing = load_images(ImagesSpec("cub", str(birds), skip=(paths[0],))).listing
    assert len(listing.paths) == 20
    assert listing.left_out.counts == {"other files": 4}


def test_images_that_lie_beside_a_published_set_are_no_loss(tmp_path):
    trees.make_imagenet(tmp_path)
    trees.save(tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG", (1, 2, 3))
    spec = ImagesSpec("imagenet", str(tmp_path), pixels=32)
    load_images(spec)
    assert "  left out: 1 published images that have no part in it: test/ILSVRC" in str(check_images(spec))


def test_images_that_are_there_twice_are_told(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            for number in range(4):
                coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                place = tmp_path / split / name / f"{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                coarse.resize((96, 96), Image.Resampling.BICUBIC).save(place)
    spec = ImagesSpec("folder", str(tmp_path), pixels=32)
    assert check_images(spec).twins == []
    first = tmp_path / "train" / "a" / "0.png"
    (tmp_path / "test" / "a" / "equal.png").write_bytes(first.read_bytes())
    (tmp_path / "train" / "b" / "named.png").write_bytes((tmp_path / "train" / "a" / "1.png").read_bytes())
    (tmp_path / "train" / "a" / "harmless.png").write_bytes((tmp_path / "train" / "a" / "2.png").read_bytes())
    Image.open(tmp_path / "train" / "b" / "3.png").resize((80, 80)).save(
        tmp_path / "test" / "b" / "near.jpg", quality=80
    )
    report = check_images(spec)
    assert [(pair.paths, pair.equal) for pair in report.twins] == [
        (("train/a/0.png", "test/a/equal.png"), True),
        (("train/a/1.png", "train/b/named.png"), True),
        (("train/b/3.png", "test/b/near.jpg"), False),
    ]
    text = str(report)
    assert re.search(r"equal files: +1 pairs across splits, 1 under different labels\n", text)
    assert re.search(r"look alike: +1 pairs across splits, 0 under different labels\n", text)
    assert "  twice there: train/a/1.png equals train/b/named.png (a and b)\n" in text
    assert "  twice there: train/b/3.png looks like test/b/near.jpg (train and test)\n" in text


def test_candidates_by_bands_are_all_near_pairs():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)
    for place in range(1, 60, 2):
        flips = rng.choice(64, size=place % 7, replace=False)
        hashes[place] = hashes[place - 1] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64))
    near = {(i, j) for i in range(60) for j in range(i + 1, 60) if int(hashes[i] ^ hashes[j]).bit_count() <= 4}
    assert twins.near_pairs(hashes, 4) == near
    assert 15 < len(near) < 30


def test_an_image_of_one_color_looks_like_no_other():
    assert twins.fingerprint(Image.new("RGB", (90, 60), (30, 90, 200))) is None


def test_many_corrupt_images_are_counted(birds):
    data = load_images(ImagesSpec("cub", str(birds), pixels=32))
    for path in data.listing.paths:
        (birds / path).write_bytes(b"")
    with pytest.raises(ValueError, match="21 of the 21 images") as caught:
        require_sound(load_images(ImagesSpec("cub", str(birds), pixels=32)))
    assert len(str(caught.value).splitlines()) == 22
    assert str(caught.value).endswith("... and 1 more")


def test_sound_images_are_decoded_once_whatever_is_made_of_them(birds, cache, tmp_path, monkeypatch):
    spec = ImagesSpec("cub", str(birds), pixels=32)
    require_sound(load_images(spec))
    assert len(records(cache)) == 1
    monkeypatch.setattr(soundness, "problem", None)
    require_sound(load_images(dataclasses.replace(spec, pixels=64, seed=3, resize="both")))
    birds.rename(tmp_path / "moved")
    require_sound(load_images(dataclasses.replace(spec, root=str(tmp_path / "moved"))))
    # A file of another size is another file.
    with open(
        tmp_path / "moved" / load_images(dataclasses.replace(spec, root=str(tmp_path / "moved"))).listing.paths[0],
        "ab",
    ) as file:
        file.write(b"\0")
    with pytest.raises(TypeError, match="not callable"):
        require_sound(load_images(dataclasses.replace(spec, root=str(tmp_path / "moved"))))


def test_a_check_on_demand_decodes_again(birds):
    spec = ImagesSpec("cub", str(birds), pixels=32)
    assert check_images(spec).whole
    path = birds / load_images(spec).listing.paths[0]
    path.write_bytes(bytes(path.stat().st_size))
    assert list(check_images(spec).corrupt) == [path.relative_to(birds).as_posix()]


def test_of_two_runs_that_start_together_one_checks(birds, monkeypatch):
    data = load_images(ImagesSpec("cub", str(birds), pixels=32))
    checked = []
    monkeypatch.setattr(soundness, "problem", lambda path: checked.append(path))
    runs = [threading.Thread(target=require_sound, args=(data,)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(checked) == len(data)


def test_an_interrupted_check_does_not_go_on(birds, monkeypatch):
    data = load_images(ImagesSpec("cub", str(birds), pixels=32))
    seen = []

    def slow(path):
        time.sleep(0.02)  # as long as a large image takes
        seen.append(path)

    def interrupted(items, *args, **options):
        yield next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(soundness, "problem", slow)
    monkeypatch.setattr(soundness, "track", interrupted)
    monkeypatch.setattr(soundness, "_BATCH", 1)
    monkeypatch.setattr(soundness, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        require_sound(data)
    assert len(seen) < len(data)


@pytest.mark.slow
def test_the_installed_elpv_is_whole(capsys):
    pytest.importorskip("elpv_dataset")
    assert main(["data", "check", "--dataset", "elpv"]) == 0
    text = capsys.readouterr().out
    assert "images:               2,624 of 2,624\n" in text
    assert "classes:              4 of 4\n" in text
    assert text.endswith("Whole.\n")


def test_the_command_guesses_the_layout_and_tells_by_its_exit_code(birds, capsys):
    assert main(["data", "check", str(birds)]) == 0
    assert "dataset 'cub'" in capsys.readouterr().out
    name = "images/003.House_Wren/House_Wren_0.jpg"
    (birds / name).unlink()
    assert main(["data", "check", str(birds), "--dataset", "cub"]) == 1
    assert f"missing: {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the folder of the data set: gcplib data check PATH"),
        (["nowhere"], "there is no folder 'nowhere'"),
        (["."], "looks like none of the known data sets:"),
        (["--dataset", "cub"], "root is empty; give the folder: the folder CUB_200_2011"),
        ([".", "--dataset", "birds"], "unknown data set 'birds'; known: cub, aircraft"),
        ([".", "--dataset", "cub"], "no images.txt here or in CUB_200_2011/"),
    ],
)
def test_the_command_says_what_it_cannot_check(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_runs_as_a_program(birds):
    done = subprocess.run(
        [sys.executable, "-m", "gcplib", "data", "check", str(birds)], capture_output=True, text=True, check=True
    )
    assert "smallest class:" in done.stdout


def test_data_without_check_still_draws_typefaces(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        "gcplib.lab.data.load_typefaces", lambda spec: asked.append(spec) or type("Drawn", (), {"path": "x"})
    )
    assert main(["data", "--families", "4", "--pixels", "64"]) == 0
    assert (asked[0].families, asked[0].pixels) == (4, 64)
    assert capsys.readouterr().out == "Typefaces: x\n"
