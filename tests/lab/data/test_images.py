"""Images from disk: birds and plain folders, every kind of image made upright RGB, and bad trees refused."""

import dataclasses
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision import transforms
from trees import COLORS, make_cub, make_folder, save

from gcplib.decoding import decode
from gcplib.lab.data import (
    Images,
    ImagesSpec,
    Typefaces,
    TypefacesSpec,
    choose_data,
    images,
    load_data,
    load_images,
)
from gcplib.suffixes import SUFFIXES

FLAT = {"train/a": 4, "train/b": 3, "test/a": 1, "test/b": 2}
NESTED = {f"{split}/{name}": 3 for split in ("train", "test") for name in ("cat/lion", "cat/lynx", "dog/wolf")}


@pytest.fixture
def cub(tmp_path):
    return make_cub(tmp_path / "CUB_200_2011")


@pytest.fixture
def flat(tmp_path):
    return make_folder(tmp_path / "flat", FLAT)


def test_cub_is_read_as_its_tables_say(cub):
    data = load_images(ImagesSpec("cub", str(cub), pixels=32))
    assert isinstance(data, Images)
    assert len(data) == 21
    assert data.class_names() == ["Sooty Albatross", "Laysan Albatross", "House Wren"]
    assert data.class_names("coarse") == ["Albatross", "Wren"]
    assert data.labels().tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert data.labels("coarse").tolist() == [0] * 14 + [1] * 7
    assert data.labels().dtype == data.labels("coarse").dtype == np.int64
    assert data.indices("test").tolist() == [5, 6, 12, 13, 19, 20]
    # The labels belong to the images: every image has the color of its class.
    middle = data.images(np.arange(21))[:, 16, 16]
    assert np.abs(middle - np.array(COLORS)[data.labels()].astype(int)).max() <= 3


def test_order_of_the_tables_does_not_matter_for_the_labels(cub):
    for name in ("image_class_labels", "train_test_split"):
        path = cub / f"{name}.txt"
        path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n\n")
    data = load_images(ImagesSpec("cub", str(cub), pixels=32))
    assert data.labels().tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert data.indices("test").tolist() == [5, 6, 12, 13, 19, 20]


def test_the_folder_around_cub_will_do_and_is_the_same_data_set(cub, tmp_path):
    inside, around = ImagesSpec("cub", str(cub)), ImagesSpec("cub", str(tmp_path))
    assert inside != around
    assert inside.digest == around.digest
    assert len(load_images(around)) == 21


@pytest.mark.parametrize(("share", "held"), [(0.01, 1), (0.2, 1), (0.4, 2), (0.99, 4)])
def test_validation_is_held_out_of_every_class(cub, share, held):
    data = load_images(ImagesSpec("cub", str(cub), pixels=32, validation=share))
    places = {split: data.indices(split) for split in ("train", "validation", "test")}
    assert sorted(np.concatenate(list(places.values())).tolist()) == list(range(21))
    assert np.bincount(data.labels()[places["validation"]]).tolist() == [held] * 3
    assert np.bincount(data.labels()[places["train"]]).tolist() == [5 - held] * 3
    assert places["test"].tolist() == [5, 6, 12, 13, 19, 20]


def test_skipped_images_are_left_out_as_if_they_had_never_been_there(flat):
    spec = ImagesSpec("folder", str(flat), pixels=32)
    whole = spec.digest
    some = ("train/a/1.png", "test/b/0.png")
    skipping = dataclasses.replace(spec, skip=some[::-1] + some[:1])
    assert skipping == dataclasses.replace(spec, skip=list(some))
    data = load_images(skipping)
    assert len(data) == 8
    assert not set(some) & set(data.listing.paths)
    for path in some:
        (flat / path).unlink()
    assert skipping.digest == dataclasses.replace(spec).digest != whole


def test_a_missing_image_can_be_skipped(cub):
    (cub / "images" / "003.House_Wren" / "House_Wren_0.jpg").unlink()
    assert len(load_images(ImagesSpec("cub", str(cub), skip=("images/003.House_Wren/House_Wren_0.jpg",)))) == 20


@pytest.mark.parametrize(
    ("skip", "message"),
    [
        (("train/a/9.png", "a"), r"2 of the images to skip are not in the data set: a, train/a/9\.png; .*'train/a/0"),
        (
            ("train/b/0.png", "train/b/1.png", "train/b/2.png"),
            "without the 3 images to skip, the class 'b' is in test",
        ),
    ],
)
def test_skipping_what_is_not_there_or_too_much_is_refused(flat, skip, message):
    with pytest.raises(ValueError, match=message):
        _ = ImagesSpec("folder", str(flat), skip=skip).digest


def test_what_is_held_out_depends_on_the_seed_alone(cub):
    def held(seed):
        return load_images(ImagesSpec("cub", str(cub), validation=0.4, seed=seed)).indices("validation").tolist()

    assert held(0) == held(0)
    assert len({tuple(held(seed)) for seed in range(6)}) > 3


def test_a_moved_data_set_keeps_its_digest_and_any_change_gives_another(cub, tmp_path):
    spec = ImagesSpec("cub", str(cub), pixels=32)
    moved = make_cub(tmp_path / "elsewhere" / "birds")
    assert ImagesSpec("cub", str(moved), pixels=32).digest == spec.digest
    changed = [
        dataclasses.replace(spec, pixels=33),
        dataclasses.replace(spec, validation=0.2),
        dataclasses.replace(spec, seed=1),
        dataclasses.replace(spec, resize="both"),
        dataclasses.replace(spec, scale=40),
        dataclasses.replace(spec, scale=32),
    ]
    digests = {spec.digest, *(other.digest for other in changed)}
    assert len(digests) == 7
    for name, before, after in (
        ("image_class_labels", "\n7 1\n", "\n7 2\n"),
        ("train_test_split", "\n7 0\n", "\n7 1\n"),
        ("classes", "House", "Winter"),
    ):
        table = (moved / f"{name}.txt").read_text()
        assert before in table
        (moved / f"{name}.txt").write_text(table.replace(before, after))
        digests.add(ImagesSpec("cub", str(moved), pixels=32).digest)
    assert len(digests) == 10
    with open(cub / "images" / "003.House_Wren" / "House_Wren_0.jpg", "ab") as file:
        file.write(b"\0")
    assert dataclasses.replace(spec).digest not in digests


def test_files_that_change_under_a_spec_are_noticed(cub):
    spec = ImagesSpec("cub", str(cub), pixels=32)
    load_images(spec)
    (cub / "images" / "003.House_Wren" / "House_Wren_0.jpg").write_bytes(b"other")
    with pytest.raises(ValueError, match="changed while this session used them"):
        load_images(spec)
    # Another process, such as a worker, must come to the same conclusion.
    with pytest.raises(ValueError, match="changed while this session used them"):
        load_images(pickle.loads(pickle.dumps(spec)))
    assert len(load_images(dataclasses.replace(spec))) == 21


def test_reader_is_part_of_the_digest(cub, monkeypatch):
    before = ImagesSpec("cub", str(cub)).digest
    monkeypatch.setattr(images, "DECODER", images.DECODER + 1)
    assert ImagesSpec("cub", str(cub)).digest != before


def test_a_flat_folder_has_no_coarse_labels(flat):
    data = load_images(ImagesSpec("folder", str(flat), pixels=32))
    assert data.class_names() == ["a", "b"]
    assert data.labels()[data.indices("test")].tolist() == [0, 1, 1]
    assert [len(data.indices(split)) for split in ("train", "validation", "test")] == [5, 2, 3]
    for method in (data.labels, data.class_names):
        with pytest.raises(ValueError, match=r"has no coarse labels.*train/<coarse>/<class>"):
            method("coarse")


def test_nested_folders_are_coarse_classes(tmp_path):
    data = load_images(ImagesSpec("folder", str(make_folder(tmp_path, NESTED)), pixels=32))
    assert data.class_names() == ["lion", "lynx", "wolf"]
    assert data.class_names("coarse") == ["cat", "dog"]
    assert data.labels("coarse").tolist() == [0 if label < 2 else 1 for label in data.labels()]
    assert [data.listing.paths[place].split("/")[2] for place in data.indices("test")] == [
        data.class_names()[label] for label in data.labels()[data.indices("test")]
    ]


def test_equal_names_in_two_coarse_classes_are_two_classes(tmp_path):
    tree = {f"{split}/{name}": 2 for split in ("train", "test") for name in ("cat/other", "cat/lion", "dog/other")}
    data = load_images(ImagesSpec("folder", str(make_folder(tmp_path, tree)), pixels=32))
    assert data.class_names() == ["cat/lion", "cat/other", "dog/other"]


@pytest.mark.parametrize("name", ["val", "validation", "valid", "dev", "Valid"])
def test_own_validation_images_are_used_and_none_held_out(flat, name):
    make_folder(flat, {f"{name}/b": 2})
    data = load_images(ImagesSpec("folder", str(flat), pixels=32, validation=0.5))
    assert len(data.indices("train")) == 7
    assert [data.listing.paths[place] for place in data.indices("validation")] == [
        f"{name}/b/0.png",
        f"{name}/b/1.png",
    ]


def test_other_files_and_hidden_ones_are_passed_over(flat):
    spec = ImagesSpec("folder", str(flat), pixels=32)
    for name in ("notes.txt", "._0.png", ".DS_Store"):
        (flat / "train" / "a" / name).write_bytes(b"no image")
    (flat / "train" / ".cache").mkdir()
    (flat / "train" / "labels.csv").write_text("0,1")
    assert len(load_images(spec)) == 10
    save(flat / "train" / "a" / "LOUD.JPG", (1, 2, 3))
    assert len(load_images(dataclasses.replace(spec))) == 11


def test_images_in_any_order_and_outside(flat):
    data = load_images(ImagesSpec("folder", str(flat), pixels=32))
    everything = data.images(range(len(data)))
    assert everything.shape == (10, 32, 32, 3)
    assert everything.dtype == np.uint8
    np.testing.assert_array_equal(data.images([7, 2, 2]), everything[[7, 2, 2]])
    np.testing.assert_array_equal(data.images(3), everything[3:4])
    assert data.images([]).shape == (0, 32, 32, 3)
    for place in (10, -1):
        with pytest.raises(IndexError, match=rf"no image {place}: this set has the images 0 to 9"):
            data.images([0, place])
    with pytest.raises(ValueError, match="unknown split 'val'; known: train, validation, test"):
        data.indices("val")
    with pytest.raises(ValueError, match="unknown kind of labels 'family'; known: fine, coarse"):
        data.labels("family")


@pytest.mark.parametrize("size", [(150, 90), (90, 150), (80, 80), (45, 99), (33, 20), (301, 203), (48, 45)])
def test_images_are_cut_as_in_the_papers_code(tmp_path, size):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    image.save(tmp_path / "noise.png")
    cuts = {
        "shorter": transforms.Compose([transforms.Resize(45), transforms.CenterCrop(45)]),
        "both": transforms.Resize((45, 45)),
        # Aircraft: scaled to more than is cropped.
        ("shorter", 52): transforms.Compose([transforms.Resize(52), transforms.CenterCrop(45)]),
        ("both", 52): transforms.Compose([transforms.Resize((52, 52)), transforms.CenterCrop(45)]),
    }
    for setting, cut in cuts.items():
        resize, scale = (setting, None) if isinstance(setting, str) else setting
        got = decode(tmp_path / "noise.png", 45, resize, scale)
        np.testing.assert_array_equal(got, np.asarray(cut(image)))


def test_crops_lie_where_they_are_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train/a/0", "train/a/1", "train/b/0", "train/b/1", "test/a/0"):
        save(tmp_path / f"{name}.png", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = load_images(ImagesSpec("folder", str(tmp_path), pixels=64)).images([0])[0]
    data = load_images(ImagesSpec("folder", str(tmp_path), pixels=48, scale=64))
    places = [(0, 0), (0, 1), (1, 0), (0.25, 0.75), (0.5, 0.5)]
    crops = data.images([0] * 5, np.array(places, dtype=np.float32))
    for crop, (top, left) in zip(crops, places, strict=True):
        top, left = int(16 * top), int(16 * left)
        np.testing.assert_array_equal(crop, whole[top : top + 48, left : left + 48])
    np.testing.assert_array_equal(data.images([0])[0], crops[-1])
    assert data.images([], np.empty((0, 2))).shape == (0, 48, 48, 3)
    for wrong in ([(0, 0)], [(0, 0), (0, 1.1)], [(0, 0), (-0.1, 1)], [0, 1], [(0, 0), (0, np.nan)]):
        with pytest.raises(ValueError, match=r"places has the shape .* not from 0 to 1; give 2 pairs"):
            data.images([0, 1], wrong)


def _halves(mode, first, second):
    """Left half one color, right half another."""
    image = Image.new(mode, (64, 64), second)
    image.paste(first, (0, 0, 32, 64))
    return image


def _palette():
    return _halves("RGB", (250, 0, 0), (0, 0, 250)).quantize(4)


def _rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    _halves("RGB", (250, 0, 0), (0, 0, 250)).transpose(Image.ROTATE_90).save(path, exif=exif, quality=95)


KINDS = {
    "rgb.png": (lambda path: _halves("RGB", (250, 0, 0), (0, 0, 250)).save(path), (250, 0, 0), (0, 0, 250)),
    "gray.jpg": (lambda path: _halves("L", 250, 10).save(path, quality=95), (250,) * 3, (10,) * 3),
    "bilevel.png": (lambda path: _halves("1", 1, 0).save(path), (255,) * 3, (0,) * 3),
    "palette.png": (lambda path: _palette().save(path), (250, 0, 0), (0, 0, 250)),
    "palette.gif": (lambda path: _palette().save(path), (250, 0, 0), (0, 0, 250)),
    "clear.png": (
        lambda path: _halves("RGBA", (250, 0, 0, 255), (0, 0, 250, 0)).save(path),
        (250, 0, 0),
        (255, 255, 255),
    ),
    "print.jpg": (
        lambda path: _halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0)).save(path, quality=95),
        (255, 0, 0),
        (0, 0, 255),
    ),
    "turned.jpg": (_rotated, (250, 0, 0), (0, 0, 250)),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("resize", ["shorter", "both"])
def test_every_kind_of_image_becomes_upright_rgb(tmp_path, name, resize):
    write, left, right = KINDS[name]
    write(tmp_path / name)
    image = decode(tmp_path / name, 32, resize).astype(int)
    assert image.shape == (32, 32, 3)
    for column, color in ((6, left), (25, right)):
        assert np.abs(image[4:28, column] - color).max() <= 8, name


def test_deep_images_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((40, 40), 30_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png cannot be read as an image: .*more than 8 bits"):
        decode(tmp_path / "deep.png", 32, "shorter")


def test_a_thin_image_is_cut_without_being_scaled_as_a_whole(tmp_path, monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def noted(self, size, *args, **options):
        sizes.append(size)
        return resize(self, size, *args, **options)

    save(tmp_path / "strip.png", np.random.default_rng(0).integers(0, 255, (6000, 2, 3), dtype=np.uint8))
    monkeypatch.setattr(Image.Image, "resize", noted)
    assert decode(tmp_path / "strip.png", 448, "shorter").shape == (448, 448, 3)
    assert sizes == [(448, 448)]


EXIF = {
    "empty": b"Exif\0\0",
    "twice": b"Exif\0\0Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0",
    "cut off": b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01\x03\0",
    "no header": b"Exif\0\0\0\x08\0\x02\x01\x12\0\x03",
    # A rational number where text is meant, which cannot be written again.
    "odd tag": b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0e\x01\x05\0\x01\0\0\0\x26\0\0\0\x12\x01\x03\0\x01\0\0\0"
    b"\x03\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0",
}


@pytest.mark.parametrize("block", EXIF)
@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
def test_a_damaged_exif_block_is_no_damage(tmp_path, block):
    _halves("RGB", (250, 0, 0), (0, 0, 250)).save(tmp_path / "x.jpg", exif=EXIF[block], quality=95)
    image = decode(tmp_path / "x.jpg", 32, "both").astype(int)
    left = (0, 0, 250) if block == "odd tag" else (250, 0, 0)  # that one is to be turned by half
    assert np.abs(image[4:28, 6] - left).max() <= 8


@pytest.mark.parametrize("tag", range(1, 9))
def test_orientations_are_those_that_pillow_knows(tmp_path, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    np.testing.assert_array_equal(decode(tmp_path / "x.png", 40, "both"), expected)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".ppm", ".jp2", ".avif", ".JPEG", ".Tif"])
def test_less_common_suffixes_are_read(flat, suffix):
    if suffix not in SUFFIXES and suffix.lower() in (".jp2", ".avif"):
        pytest.skip("this Pillow is built without it")
    kind = {".ppm": "PPM", ".jp2": "JPEG2000", ".avif": "AVIF", ".Tif": "TIFF"}.get(suffix, "JPEG")
    Image.new("RGB", (40, 40), (250, 0, 0)).save(flat / "train" / "a" / f"x{suffix}", kind)
    data = load_images(ImagesSpec("folder", str(flat), pixels=32))
    place = data.listing.paths.index(f"train/a/x{suffix}")
    assert np.abs(data.images([place])[0, 16, 16].astype(int) - (250, 0, 0)).max() <= 8


@pytest.mark.parametrize("damage", ["empty", "text", "half", "gone"])
def test_a_corrupt_image_is_named(flat, damage):
    data = load_images(ImagesSpec("folder", str(flat), pixels=32))
    path = flat / data.listing.paths[2]
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "text": b"<html>not found</html>", "half": whole[: len(whole) // 2]}[damage])
    assert data.images([1]).shape == (1, 32, 32, 3)
    for many in ([2], range(len(data))):
        with pytest.raises(ValueError, match=re.escape(str(path)) + " cannot be read as an image"):
            data.images(many)


def test_missing_files_are_counted_and_named(cub):
    shutil.rmtree(cub / "images" / "002.Laysan_Albatross")
    with pytest.raises(
        FileNotFoundError, match=r"7 of the 21 listed .*Laysan_Albatross_0\.jpg,.*_4\.jpg, \.\.\.\. Unp"
    ):
        load_images(ImagesSpec("cub", str(cub)))


def test_a_dead_link_is_a_missing_image(flat):
    (flat / "train" / "a" / "link.png").symlink_to(flat / "nowhere.png")
    with pytest.raises(FileNotFoundError, match=r"1 of the 11 listed .*train/a/link\.png"):
        load_images(ImagesSpec("folder", str(flat)))


def _edit(name, before, after):
    def change(root):
        text = (root / name).read_text()
        assert before in text
        (root / name).write_text(text.replace(before, after))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "images.txt").unlink(), "no images.txt here or in CUB_200_2011/"),
        (lambda root: (root / "classes.txt").unlink(), "no classes.txt in "),
        (
            lambda root: (root / "images.txt").write_text(""),
            "images.txt and image_class_labels.txt disagree on 21 images",
        ),
        (_edit("images.txt", "\n3 001", "\n3001"), r"images.txt, line 3: .*should be a new number and a value"),
        (_edit("images.txt", "\n3 001", "\n2 001"), r"images.txt, line 3: .*should be a new number and a value"),
        (
            _edit("image_class_labels.txt", "\n3 1\n", "\n"),
            "images.txt and image_class_labels.txt disagree on 1 images: 3",
        ),
        (_edit("train_test_split.txt", "\n3 1\n", "\n77 1\n"), "disagree on 2 images: 3, 77"),
        (_edit("train_test_split.txt", "\n3 1\n", "\n3 yes\n"), r"has yes where 1 \(train\) or 0 \(test\)"),
        (_edit("image_class_labels.txt", "\n3 1\n", "\n3 9\n"), "images are of classes that classes.txt has not: 9"),
        (
            lambda root: (root / "classes.txt").write_text((root / "classes.txt").read_text() + "4 004.Dodo\n"),
            "the class 'Dodo' has no images",
        ),
    ],
)
def test_a_broken_cub_is_refused(cub, change, message):
    change(cub)
    with pytest.raises(ValueError, match=message + r".*The data set 'cub' is the folder CUB_200_2011"):
        load_images(ImagesSpec("cub", str(cub)))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "no folder train/ and no class folders here"),
        ({"a": 3}, "a classifier needs two classes, found 1: a"),
        ({"a": 3, "b": 0}, "the class folder b has no images"),
        ({"": 2, "a": 3, "b": 3}, r"images outside class folders \(0\.png, 1\.png\) here"),
        ({"birds_train": 3, "birds_test": 3}, "birds_test, birds_train are called like splits; call them train"),
        ({"train/a": 2, "train/b": 2}, "no folder test/"),
        ({"train": 0, "test/a": 1}, r"train/ has no class folders"),
        ({"train": 2, **FLAT}, r"train/ has images outside class folders 0\.png, 1\.png"),
        ({**FLAT, "train/b": 0}, r"the class folder train/b has no images"),
        ({**FLAT, "test/b": 0}, r"the class folder test/b has no images"),
        ({**FLAT, "test/c": 1}, "the class 'c' is in test but not in train"),
        ({**FLAT, "val/c": 1}, "the class 'c' is in validation but not in train"),
        ({"train/a": 2, "test/a": 2}, "a classifier needs two classes, found 1: a"),
        ({**FLAT, "val/a": 1, "validation/a": 1}, "both val/ and validation/ are there"),
        ({**FLAT, "train/a/d": 1}, r"train/a holds both images and folders \(d\)"),
        ({**NESTED, "train/cat/lion/young": 1}, r"train/cat/lion holds both images and folders \(young\); move"),
        ({"train/a": 2, "train/b": 2, "test/x/a": 1}, "the class 'x/a' is in test but not in train"),
    ],
)
def test_a_broken_folder_is_refused(tmp_path, tree, message):
    make_folder(tmp_path, tree)
    with pytest.raises(ValueError, match=message + r".*The data set 'folder' is train/<class>/<image>\.jpg"):
        load_images(ImagesSpec("folder", str(tmp_path)))


DEEP = {"bird": 4, "cat/lion": 4, "cat/big/lynx": 4, "dog/wolf": 4}


@pytest.mark.parametrize("splits", [("",), ("train/", "test/")])
def test_classes_are_the_innermost_folders_at_any_depth(tmp_path, splits):
    make_folder(tmp_path, {f"{split}{name}": count for split in splits for name, count in DEEP.items()})
    data = load_images(ImagesSpec("folder", str(tmp_path), pixels=32))
    assert data.class_names() == ["bird", "lynx", "lion", "wolf"]
    assert [data.class_names("coarse")[n] for n in np.unique(data.labels("coarse"))] == ["bird", "cat", "dog"]
    coarse = dict(zip(data.labels().tolist(), data.labels("coarse").tolist(), strict=True))
    assert coarse == {0: 0, 1: 1, 2: 1, 3: 2}


def _noise(root, tree):
    rng = np.random.default_rng(0)
    for name, count in tree.items():
        for number in range(count):
            save(root / name / f"{number:02d}.png", rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    return root


@pytest.mark.parametrize(
    ("share", "held"), [(0.25, [5, 2, 1]), (0.5, [10, 5, 2]), (0.01, [1, 1, 1]), (0.99, [18, 8, 2])]
)
def test_class_folders_without_a_split_get_one_of_every_class(tmp_path, share, held):
    _noise(tmp_path, {"a": 20, "b": 10, "train": 4})  # a train is a class as well
    spec = ImagesSpec("folder", str(tmp_path), pixels=32, test=share)
    data = load_images(spec)
    assert np.bincount(data.labels()[data.indices("test")]).tolist() == held
    assert all(np.bincount(data.labels()[data.indices(split)], minlength=3).min() for split in ("train", "validation"))
    assert sorted(np.concatenate([data.indices(s) for s in ("train", "validation", "test")]).tolist()) == list(
        range(34)
    )
    again = load_images(dataclasses.replace(spec))
    assert (again.indices("test") == data.indices("test")).all()
    assert again.digest == data.digest


def test_the_seed_draws_the_split_and_names_the_set(tmp_path):
    _noise(tmp_path, {"a": 20, "b": 20})
    sets = [load_images(ImagesSpec("folder", str(tmp_path), pixels=32, seed=seed)) for seed in range(4)]
    assert len({tuple(data.indices("test").tolist()) for data in sets}) == 4
    assert len({data.digest for data in sets}) == 4
    other = ImagesSpec("folder", str(tmp_path), pixels=32, test=0.5)
    assert other.digest != sets[0].digest


def test_the_fraction_for_test_says_nothing_where_there_is_a_split(flat):
    assert ImagesSpec("folder", str(flat), test=0.5).digest == ImagesSpec("folder", str(flat)).digest


def test_copies_of_a_file_are_on_one_side_of_a_drawn_split(tmp_path):
    _noise(tmp_path, {"a": 8, "b": 8})
    for number in range(6):
        # Within a class, and under another label.
        shutil.copy(tmp_path / "a" / f"{number:02d}.png", tmp_path / "a" / f"copy{number}.png")
        shutil.copy(tmp_path / "a" / f"{number:02d}.png", tmp_path / "b" / f"copy{number}.png")
    for seed in range(5):
        listing = load_images(ImagesSpec("folder", str(tmp_path), pixels=32, seed=seed)).listing
        splits = dict(zip(listing.paths, listing.splits, strict=True))
        for number in range(6):
            names = (f"a/{number:02d}.png", f"a/copy{number}.png", f"b/copy{number}.png")
            assert len({splits[name] for name in names}) == 1
        assert 2 <= sum(splits[path] == "test" for path in listing.paths if path.startswith("a/")) <= 4


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": 5, "b": 1}, "the class 'b' has 1 image, and training, validation and test need one each"),
        ({"a": 5, "b": 2}, "the class 'b' has 2 images, and training"),
    ],
)
def test_a_class_with_too_few_images_for_a_split_is_named(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        load_images(ImagesSpec("folder", str(_noise(tmp_path, tree))))


def test_a_class_of_copies_cannot_be_split(tmp_path):
    _noise(tmp_path, {"a": 5, "b": 1})
    for number in range(4):
        shutil.copy(tmp_path / "b" / "00.png", tmp_path / "b" / f"{number}.png")
    with pytest.raises(ValueError, match="the class 'b' has too few images that are no copies of each other"):
        load_images(ImagesSpec("folder", str(tmp_path)))


def test_a_class_of_one_training_image_cannot_give_one_away(flat):
    for number in (1, 2):
        (flat / "train" / "b" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match="the class 'b' has 1 training image, and one must be held out"):
        load_images(ImagesSpec("folder", str(flat)))


@pytest.mark.parametrize("dataset", ["cub", "folder"])
def test_a_root_that_is_no_folder(tmp_path, dataset):
    with pytest.raises(FileNotFoundError, match=rf"there is no folder '.*nowhere'. The data set {dataset!r} is"):
        _ = ImagesSpec(dataset, str(tmp_path / "nowhere")).digest
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file' is a file, not a folder"):
        load_images(ImagesSpec(dataset, str(tmp_path / "file")))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"dataset": "car"}, "dataset: unknown data set 'car'; did you mean 'cars'? known: cub, aircraft, cars"),
        ({"root": " "}, "root is empty; give the folder: the folder CUB_200_2011"),
        ({"root": None}, "root: should be a valid string; got None"),
        ({"pixels": 16}, "pixels: should be greater than or equal to 32; got 16"),
        ({"pixels": 448.0}, "pixels: should be a valid integer; got 448.0"),
        ({"seed": True}, "seed: should be a valid integer; got True"),
        ({"seed": -1}, "seed: should be greater than or equal to 0; got -1"),
        ({"validation": 0}, "validation: should be greater than 0; got 0"),
        ({"validation": 10}, "validation: should be less than 1; got 10"),
        ({"validation": float("nan")}, "validation: should be a finite number; got nan"),
        ({"validation": "0.1"}, "validation: should be a valid number; got '0.1'"),
        ({"test": 1}, "test: should be less than 1; got 1"),
        ({"scale": 447}, "scale is 447, less than pixels, 448"),
        ({"scale": 4000}, "scale: should be less than or equal to 2048; got 4000"),
        ({"scale": 512.0}, "scale: should be a valid integer; got 512.0"),
        ({"skip": "a.jpg"}, "skip: should be a valid tuple; got 'a.jpg'"),
        ({"skip": (1,)}, "skip[0]: should be a valid string (in YAML, put it in quotes); got 1"),
        ({"resize": "crop"}, "resize: unknown name 'crop'; known: shorter, both"),
    ],
)
def test_bad_settings_say_value_and_range(settings, problem):
    with pytest.raises(ValueError, match=rf"ImagesSpec has 1 problem:\n  - {re.escape(problem)}"):
        ImagesSpec(**{"dataset": "cub", "root": "data"} | settings)


def test_settings_are_plain_values(tmp_path):
    spec = ImagesSpec("cub", tmp_path, np.int64(64), np.float32(0.25), np.int64(3))
    assert spec == ImagesSpec("cub", str(tmp_path), 64, 0.25, 3)
    assert [type(value) for value in dataclasses.astuple(spec)] == [
        str,
        str,
        int,
        float,
        int,
        str,
        type(None),
        tuple,
        float,
        bool,
    ]


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_show_titles_are_class_names(cub, labels):
    data = load_images(ImagesSpec("cub", str(cub), pixels=32))
    titles = {axis.get_title() for axis in data.show("test", n=6, labels=labels).axes if axis.images}
    assert titles == set(data.class_names(labels))


COUNTS = {"families": 4, "train": 4, "validation": 2, "test": 2, "pixels": 64}


def test_choose_and_load_either_kind(cub, flat, tiny_spec):
    assert choose_data("typefaces", "", **COUNTS) == tiny_spec == TypefacesSpec(**COUNTS)
    assert choose_data("cub", str(cub), **COUNTS) == ImagesSpec("cub", str(cub), 64)
    assert choose_data("folder", flat, **COUNTS) == ImagesSpec("folder", str(flat), 64)
    assert isinstance(load_data(tiny_spec), Typefaces)
    assert load_data(ImagesSpec("cub", str(cub))).digest == ImagesSpec("cub", str(cub)).digest
    with pytest.raises(TypeError, match=r"expected a TypefacesSpec or an ImagesSpec, got 'cub' \(str\)"):
        load_data("cub")


@pytest.mark.parametrize(
    ("dataset", "root", "message"),
    [
        ("typeface", "", "unknown data set 'typeface'; did you mean 'typefaces'"),
        ("xyz", "x", "unknown data set 'xyz'; known: typefaces, cub, aircraft, .*, folder"),
        ("cub", "", "root is empty; give the folder: the folder CUB_200_2011"),
        ("folder", "", "root is empty; give the folder: train/<class>"),
        ("aircraft", "", "root is empty; give the folder: fgvc-aircraft-2013b/data"),
        ("typefaces", "data/birds", "root is 'data/birds', but typefaces are drawn .*'cub', 'aircraft'"),
    ],
)
def test_choose_data_refuses_what_does_not_fit(dataset, root, message):
    with pytest.raises(ValueError, match=message):
        choose_data(dataset, root, **COUNTS)
