"""Corruptions are the same for a seed and an image, grow with severity, and refuse what they cannot take."""

import numpy as np
import pytest
import skimage.data

from gcplib.lab.data.corruptions import CORRUPTIONS, FILMS, SEVERITIES, corrupt, film


@pytest.fixture(scope="module")
def images():
    return np.stack([skimage.data.astronaut()[:256:4, 100:356:4], skimage.data.coffee()[:256:4, 100:356:4]])


def change(images, made):
    return np.abs(made.astype(int) - images).mean()


def test_enough_kinds_of_five_severities():
    assert set(CORRUPTIONS) == set(SEVERITIES)
    assert len(CORRUPTIONS) >= 10
    assert {len(values) for values in SEVERITIES.values()} == {5}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_shape_dtype_and_severity(images, kind):
    made = [corrupt(images, kind, severity) for severity in range(1, 6)]
    for one in made:
        assert (one.shape, one.dtype) == (images.shape, np.uint8)
    assert 0.5 < change(images, made[0]) < change(images, made[4])
    assert change(images, made[4]) < 100


@pytest.mark.parametrize("kind", [k for k in CORRUPTIONS if k != "saturation"])
def test_each_severity_is_worse_than_the_one_before(kind):
    rng = np.random.default_rng(3)
    places = rng.integers(0, 300, size=(6, 2))
    many = np.stack([skimage.data.astronaut()[a : a + 192, b : b + 192] for a, b in places])
    found = [change(many, corrupt(many, kind, severity)) for severity in range(1, 6)]
    assert found == sorted(found)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_meets_the_same_draw_in_any_batch_and_order(images, kind):
    both = corrupt(images, kind, 3, seed=5, numbers=[70, 12])
    swapped = corrupt(images[::-1].copy(), kind, 3, seed=5, numbers=[12, 70])
    alone = corrupt(images[1:], kind, 3, seed=5, numbers=[12])
    assert np.array_equal(both, swapped[::-1])
    assert np.array_equal(both[1:], alone)


@pytest.mark.parametrize(
    "kind", ["gaussian_noise", "shot_noise", "impulse_noise", "fog", "elastic", "motion_blur", "translate"]
)
def test_other_seeds_and_images_draw_other_numbers(images, kind):
    same = np.stack([images[0], images[0]])
    made = corrupt(same, kind, 3, seed=5)
    assert not np.array_equal(made[0], made[1])
    assert not np.array_equal(made, corrupt(same, kind, 3, seed=6))


def test_closed_forms():
    gray = np.full((1, 32, 32, 3), 128, dtype=np.uint8)
    noise = corrupt(np.repeat(gray, 20, 0), "gaussian_noise", 2) / 255 - 128 / 255
    assert noise.std() == pytest.approx(SEVERITIES["gaussian_noise"][1], rel=0.02)
    assert abs(noise.mean()) < 0.002
    shot = corrupt(np.repeat(gray, 20, 0), "shot_noise", 2) / 255
    assert shot.std() == pytest.approx((128 / 255 / SEVERITIES["shot_noise"][1]) ** 0.5, rel=0.05)
    for kind in (
        "gaussian_blur",
        "defocus_blur",
        "motion_blur",
        "pixelate",
        "elastic",
        "rotate",
        "translate",
        "contrast",
    ):
        assert np.abs(corrupt(gray, kind, 5).astype(int) - 128).max() <= 1, kind
    impulse = corrupt(gray, "impulse_noise", 5)
    assert set(np.unique(impulse)) == {0, 128, 255}
    assert (impulse != 128).mean() == pytest.approx(SEVERITIES["impulse_noise"][4], abs=0.03)
    assert np.array_equal(corrupt(gray, "brightness", 3), np.full_like(gray, 192))
    assert len(np.unique(corrupt(skimage.data.coffee()[None], "posterize", 5))) == 2
    assert np.ptp(corrupt(skimage.data.coffee()[None], "saturation", 3), axis=-1).max() <= 1


def test_a_turn_by_ninety_degrees_is_numpys(monkeypatch, images):
    monkeypatch.setitem(SEVERITIES, "rotate", (90,) * 5)
    made = [corrupt(images[:1], "rotate", 1, seed=seed)[0] for seed in range(8)]
    either = [np.rot90(images[0], turn) for turn in (1, 3)]
    found = [[np.abs(one.astype(int) - other).max() <= 1 for other in either] for one in made]
    assert all(any(row) for row in found)
    assert np.any(found, axis=0).all()


@pytest.mark.parametrize("kind", FILMS)
def test_films_begin_with_the_image_and_do_not_depend_on_the_batch(images, kind):
    made = film(images, kind, 5, numbers=[3, 9])
    assert (made.shape, made.dtype) == ((2, 5, *images.shape[1:]), np.uint8)
    assert np.array_equal(made[:, 0], images)
    assert np.array_equal(made[1:], film(images[1:], kind, 5, numbers=[9]))
    away = [change(made[:, 0], made[:, frame]) for frame in range(5)]
    if kind == "gaussian_noise":
        assert away[4] == pytest.approx(away[1], rel=0.05)
        assert not np.array_equal(made[:, 1], made[:, 2])
    else:
        assert away == sorted(away)
        assert change(made[:, 3], made[:, 4]) < away[4]


def test_film_moves_by_a_pixel():
    image = np.zeros((1, 21, 21, 3), dtype=np.uint8)
    image[0, 10, 10] = 255
    weight = film(image, "translate", 6)[0, :, :, :, 0].astype(float)
    places = np.stack(np.meshgrid(np.arange(21), np.arange(21), indexing="ij"))
    centers = np.array([(places * w).sum((1, 2)) / w.sum() for w in weight])
    assert np.linalg.norm(np.diff(centers, axis=0), axis=1) == pytest.approx([1.0] * 5, abs=0.05)


def test_refusals(images):
    with pytest.raises(ValueError, match="unknown corruption 'snow'; known: gaussian_noise, "):
        corrupt(images, "snow", 1)
    for severity in (0, 6, 2.5):
        with pytest.raises(ValueError, match=f"severity must be 1 to 5, got {severity}"):
            corrupt(images, "fog", severity)
    with pytest.raises(ValueError, match=r"expected images \(B, H, W, 3\) of uint8, got \(2, 64, 64, 3\) float64"):
        corrupt(images / 255, "fog", 1)
    with pytest.raises(ValueError, match=r"got \(64, 64, 3\) uint8"):
        corrupt(images[0], "fog", 1)
    with pytest.raises(ValueError, match="need one number per image, got 1 for 2 images"):
        corrupt(images, "fog", 1, numbers=[4])
    with pytest.raises(ValueError, match="unknown film 'zoom'; known: translate, rotate, brightness, gaussian_noise"):
        film(images, "zoom")
    with pytest.raises(ValueError, match="a film needs 2 images or more, got 1"):
        film(images, "rotate", 1)
