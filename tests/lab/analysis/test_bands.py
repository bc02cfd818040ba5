import math

import numpy as np
import pytest
import torch

from gcplib.lab.analysis import power_descriptors
from gcplib.lab.analysis.bands import all_but, band_descriptors, class_separation, linear_probe
from gcplib.linalg import NonFiniteError, covariance, covariance_map, get_rule, top, truncate

BANDS = ["band(0, 4)", "band(4, 8)", "band(8, 12)"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def rotations(count, size):
    return torch.linalg.qr(torch.randn(count, size, size, dtype=torch.float64)).Q


def planted(count, classes, carrier):
    """Features with three bands of four that never mix: only in ``carrier`` do the eigenvectors tell the class."""
    labels = torch.arange(count) % classes
    lam = torch.tensor([100.0, 90, 80, 70, 10, 9, 8, 7, 1, 0.9, 0.8, 0.7], dtype=torch.float64)
    by_class = rotations(classes, 4)
    u = torch.zeros(count, 12, 12, dtype=torch.float64)
    for band in range(3):
        place = slice(4 * band, 4 * band + 4)
        u[:, place, place] = by_class[labels] if band == carrier else rotations(count, 4)
    # Positions along both ends of each axis: exactly this covariance, and mean zero.
    root = u * (12 * lam).sqrt()
    return torch.cat([root, -root], -1).float(), labels


def parts(x, labels):
    cut = [slice(0, 120), slice(120, 180), slice(180, None)]
    return [value for c in cut for value in (x[c], labels[c])]


@pytest.mark.parametrize("carrier", [0, 2])
def test_class_planted_in_a_band_is_found_there_and_nowhere_else(carrier):
    x, labels = planted(300, 3, carrier)
    sets = [*BANDS, all_but(BANDS[carrier])]
    found = dict(band_descriptors(x, sets))
    for i, (name, described) in enumerate(found.items()):
        accuracy = linear_probe(*parts(described, labels)).hits.mean()
        separation = class_separation(described, labels)
        if i == carrier:
            assert accuracy == 1, name
            assert separation.share > 0.99
        else:
            assert accuracy < 0.55, name  # of 120 images; chance is a third
            assert separation.share < 0.05
            assert separation.ratio < 2


def test_bands_sum_to_the_root_and_are_the_truncated_ones():
    x = torch.randn(5, 6, 4, 5)
    found = dict(
        band_descriptors(x, ["top(2)", "band(2, 5)", "bottom(1)", "top(6)", all_but("band(2, 5)"), "random(3, 1)"])
    )
    torch.testing.assert_close(found["top(2)"] + found["band(2, 5)"] + found["bottom(1)"], found["top(6)"])
    torch.testing.assert_close(found["all but band(2, 5)"] + found["band(2, 5)"], found["top(6)"])
    torch.testing.assert_close(
        found["top(6)"].norm(dim=1) ** 2, covariance(x.flatten(2)).diagonal(dim1=1, dim2=2).sum(1)
    )
    unit = torch.nn.functional.normalize(found["top(6)"])
    torch.testing.assert_close(unit, power_descriptors(x, [0.5])[0.5])
    roots = covariance_map(x.flatten(2), "sqrt", truncate(get_rule("exact"), top(2))).flatten(1)
    torch.testing.assert_close(found["top(2)"] @ found["top(2)"].T, roots @ roots.T)
    assert found["random(3, 1)"].shape == (5, 21)


def test_more_images_than_a_block_and_sets_that_differ_between_images():
    x = torch.randn(300, 4, 3, 3) * torch.rand(300, 4, 1, 1)
    found = dict(band_descriptors(x, ["energy_top(0.7)", all_but("energy_top(0.7)"), "top(4)"]))
    one, rest, whole = found.values()
    torch.testing.assert_close(one + rest, whole)
    torch.testing.assert_close(dict(band_descriptors(x[290:], ["energy_top(0.7)"]))["energy_top(0.7)"], one[290:])
    assert (one.norm(dim=1) ** 2 >= 0.7 * whole.norm(dim=1) ** 2 * (1 - 1e-5)).all()


def test_null_eigenvalues_are_zero_and_not_rounding_noise():
    x = torch.randn(4, 6, 5, 5)
    x[:, 4] = x[:, 0]  # leaves an eigenvalue of rounding noise
    x[:, 5] = 0  # a channel that is off
    assert dict(band_descriptors(x, ["band(4, 6)"]))["band(4, 6)"].abs().max() == 0


def test_bad_features_and_bands():
    x = torch.randn(3, 6, 2, 2)
    # At the call, not at the first band.
    with pytest.raises(ValueError, match="needs 4 eigenvalues, but these covariances have at most 3"):
        band_descriptors(x, ["top(4)"])
    with pytest.raises(ValueError, match="needs 4 eigenvalues"):
        band_descriptors(x, [all_but("top(4)")])
    for bands in ([], ["top(1)", "top(1)"]):
        with pytest.raises(ValueError, match="sets of different names"):
            band_descriptors(x, bands)
    for bad in (x[0, 0], x[:0]):
        with pytest.raises(ValueError, match="of some images"):
            band_descriptors(bad, ["top(1)"])
    x[1, 2, 0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="1 of the 3 images"):
        band_descriptors(x, ["top(1)"])


def data(count, size, classes=3, signal=1.0):
    labels = torch.arange(count) % classes
    return signal * torch.randn(classes, size)[labels] + torch.randn(count, size), labels


@pytest.mark.parametrize(("count", "size"), [(60, 10), (20, 50)])
def test_probe_is_ridge_regression(count, size):
    (x, y), (q, truth) = data(count, size), data(40, size)
    q += x.mean(0)
    for ridge in (0.1, 10.0):
        got = linear_probe(x.double(), y, x.double(), y, q.double(), truth, [ridge])
        # The textbook formula, in NumPy and in the primal whatever the shape.
        mean, spread = x.double().numpy().mean(0), x.double().numpy().std(0)
        a, b = (x.numpy() - mean) / spread, np.eye(3)[y.numpy()]
        w = np.linalg.solve(a.T @ a + ridge * size * np.eye(size), a.T @ (b - b.mean(0)))
        guess = ((q.numpy() - mean) / spread @ w + b.mean(0)).argmax(1)
        np.testing.assert_array_equal(got.hits, guess == truth.numpy())
        fitted = (a @ w + b.mean(0)).argmax(1)
        assert got.validation_accuracy == pytest.approx((fitted == y.numpy()).mean())
        assert got.ridge == ridge


def test_probe_is_the_same_at_any_scale_and_shift_and_for_any_names_of_classes():
    sets = [data(30, 40), data(20, 40), data(25, 40)]
    plain = linear_probe(*[value for pair in sets for value in pair])
    scale, shift = torch.logspace(-3, 3, 40), torch.randn(40)
    moved = linear_probe(*[value for x, y in sets for value in ((x * scale + shift * scale).double(), 7 * y - 5)])
    np.testing.assert_array_equal(plain.hits, moved.hits)
    assert plain.hits.dtype == bool


def test_ridge_is_chosen_on_validation_and_the_largest_of_equals():
    (x, y), (q, truth) = data(40, 200, signal=0.3), data(300, 200, signal=0.3)
    q = q - q.mean(0)
    single = {r: linear_probe(x, y, q, truth, q, truth, [r]).validation_accuracy for r in (1e-3, 1.0, 1e3)}
    got = linear_probe(x, y, q, truth, q, truth, list(single))
    assert got.validation_accuracy == max(single.values())
    assert got.ridge == max(r for r, accuracy in single.items() if accuracy == got.validation_accuracy)
    assert got.hits.mean() == got.validation_accuracy
    easy = [value for _ in range(3) for value in (10.0 * torch.eye(3)[y], y)]
    assert linear_probe(*easy, [0.1, 1.0]).ridge == 1.0


def test_dust_does_not_drown_what_varies():
    # As channels that are off in nearly every image leave it: next to nothing in training, something in a test.
    (x, y), (q, truth) = data(30, 40, signal=5), data(20, 40, signal=0)
    means = torch.stack([x[y == c].mean(0) for c in range(3)])
    q = means[truth] + 0.1 * q
    clean = linear_probe(x, y, q, truth, q, truth)
    dust, constant = 1e-26 * torch.rand(30, 1), torch.full((30, 1), 0.1)
    dusty = linear_probe(
        torch.cat([x, dust, constant], 1),
        y,
        *[torch.cat([q, torch.rand(20, 1), torch.rand(20, 1)], 1), truth] * 2,
    )
    assert clean.hits.all()
    np.testing.assert_array_equal(dusty.hits, clean.hits)


def test_bad_probes():
    x, y = data(12, 5)
    good = [x, y, x, y, x, y]

    def probe(place, value, **options):
        return linear_probe(*good[:place], value, *good[place + 1 :], **options)

    with pytest.raises(ValueError, match="two classes or more"):
        probe(1, torch.ones_like(y))
    with pytest.raises(ValueError, match=r"classes \[9\] of the test images"):
        probe(5, torch.full_like(y, 9))
    with pytest.raises(ValueError, match=r"validation descriptors must be \(N, 5\).*got \(12, 4\)"):
        probe(2, x[:, 1:])
    with pytest.raises(ValueError, match="with labels"):
        probe(1, y[1:])
    with pytest.raises(ValueError, match="test descriptors"):
        linear_probe(x, y, x, y, x[:0], y[:0])
    with pytest.raises(ValueError, match="must be integers"):
        probe(1, y.float())
    with pytest.raises(ValueError, match="are the same"):
        probe(0, torch.full_like(x, 0.1))
    for ridges in ([], [0.0], [math.inf], [1.0, -1.0]):
        with pytest.raises(ValueError, match="positive and finite"):
            probe(0, x, ridges=ridges)
    bad = x.clone()
    bad[3, 1] = math.nan
    with pytest.raises(NonFiniteError, match="validation descriptors of 1 of the 12"):
        probe(2, bad)


def test_separation_is_the_f_statistic_of_one_variable():
    from scipy import stats

    groups = [np.array([1.0, 2.0, 4.0]), np.array([5.0, 7.0]), np.array([2.0, 2.5, 3.0, 9.0])]
    x = torch.as_tensor(np.concatenate(groups))[:, None]
    labels = torch.tensor([4, 4, 4, 1, 1, 8, 8, 8, 8])
    assert class_separation(x, labels).ratio == pytest.approx(stats.f_oneway(*groups).statistic)


def test_separation_adds_up_over_numbers():
    x, labels = data(30, 2)
    within = sum(((x[labels == c] - x[labels == c].mean(0)) ** 2).sum() for c in range(3)) / 27
    between = sum(10 * ((x[labels == c].mean(0) - x.mean(0)) ** 2).sum() for c in range(3)) / 2
    got = class_separation(x, labels)
    assert got.ratio == pytest.approx(float(between / within), rel=1e-5)
    component = (between - within) / 10
    assert got.share == pytest.approx(float(component / (component + within)), rel=1e-5)


@pytest.mark.parametrize("size", [30, 3000])
@pytest.mark.parametrize("each", [4, 40])
def test_noise_has_no_share_at_any_size_and_a_known_share_is_found(size, each):
    labels = torch.arange(30).repeat(each)
    noise = torch.randn(30 * each, size)
    # Four standard errors: those of the ratio are sqrt(2 / 29 + ...) / sqrt(size).
    assert abs(class_separation(noise, labels).share) < 1.2 / each / size**0.5
    # A variance of 1/3 between classes and 1 within is a share of 1/4, whatever the images of each.
    found = class_separation(torch.randn(30, size)[labels] / 3**0.5 + noise, labels)
    assert found.share == pytest.approx(0.25, abs=0.25 / size**0.5)
    assert found.null_share.mean() == pytest.approx(0, abs=0.15 / size**0.5 / each**0.5)


def test_null_is_one_and_repeats_by_seed():
    x, labels = data(300, 50, classes=5, signal=0.7)
    first, again, other = (class_separation(x, labels, 50, seed) for seed in (1, 1, 2))
    assert first.ratio > 10 * first.null_ratio.max()
    assert first.null_ratio.mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(first.null_ratio, again.null_ratio)
    assert first.ratio == other.ratio
    assert (first.null_ratio != other.null_ratio).any()
    assert class_separation(x, labels, 0).null_ratio.shape == (0,)


def test_images_alike_in_each_class_and_bad_separations():
    x = torch.eye(3)[torch.tensor([0, 0, 1, 1, 2])]
    assert class_separation(x, torch.tensor([0, 0, 1, 1, 2])).share == pytest.approx(1)
    y = torch.tensor([0, 0, 1, 1, 2])
    for labels in (torch.zeros(5, dtype=torch.long), torch.arange(5)):
        with pytest.raises(ValueError, match="two classes or more"):
            class_separation(x, labels)
    with pytest.raises(ValueError, match="all 5 descriptors are the same"):
        class_separation(torch.ones(5, 3), y)
    with pytest.raises(ValueError, match="must be"):
        class_separation(x, y[1:])
    with pytest.raises(NonFiniteError, match="1 of the 5"):
        class_separation(x.masked_fill(torch.eye(5, 3, dtype=torch.bool) & (x == 1), math.nan), y)
