import numpy as np
import pytest
import torch
from notebook_code import definitions

from gcplib.lab.analysis import all_but as complement
from gcplib.lab.analysis import band_roots, bands, ridge_probe
from gcplib.linalg import covariance, covariance_map, get_eigenvalue_set, get_rule, top, truncate

CODE = definitions("04")

BANDS = ["band(0, 4)", "band(4, 8)", "band(8, 12)"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def all_but(name):
    return complement(get_eigenvalue_set(name))


def described(x, sets):
    """Vectors of sets of eigenvalues of features, by name."""
    return dict(band_roots(x, {str(s): get_eigenvalue_set(s) for s in sets}))


def hits(train, train_labels, validation, validation_labels, test, test_labels):
    """Which test images the probe gets right."""
    values = {"train": train, "validation": validation, "test": test}
    labels = {"train": train_labels, "validation": validation_labels, "test": test_labels}
    return ridge_probe(values, labels)


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
    found = described(x, sets)
    for i, (name, vectors) in enumerate(found.items()):
        accuracy = hits(*parts(vectors, labels)).mean()
        fraction = CODE.fraction_between(vectors, labels)
        if i == carrier:
            assert accuracy == 1, name
            assert fraction > 0.99
        else:
            assert accuracy < 0.55, name  # of 120 images; chance is a third
            assert fraction < 0.05


def test_bands_sum_to_the_root_and_are_the_truncated_ones():
    x = torch.randn(5, 6, 4, 5)
    found = described(x, ["top(2)", "band(2, 5)", "bottom(1)", "top(6)", all_but("band(2, 5)"), "random(3, 1)"])
    torch.testing.assert_close(found["top(2)"] + found["band(2, 5)"] + found["bottom(1)"], found["top(6)"])
    torch.testing.assert_close(found["all but band(2, 5)"] + found["band(2, 5)"], found["top(6)"])
    torch.testing.assert_close(
        found["top(6)"].norm(dim=1) ** 2, covariance(x.flatten(2)).diagonal(dim1=1, dim2=2).sum(1)
    )
    entries = covariance_map(x.flatten(2), "sqrt")[:, *torch.triu_indices(6, 6)]
    root = entries * torch.where(torch.eq(*torch.triu_indices(6, 6)), 1, 2**0.5)
    torch.testing.assert_close(found["top(6)"], root)
    roots = covariance_map(x.flatten(2), "sqrt", truncate(get_rule("exact"), top(2))).flatten(1)
    torch.testing.assert_close(found["top(2)"] @ found["top(2)"].T, roots @ roots.T)
    assert found["random(3, 1)"].shape == (5, 21)


def test_more_images_than_a_block_and_sets_that_differ_between_images():
    x = torch.randn(300, 4, 3, 3) * torch.rand(300, 4, 1, 1)
    found = described(x, ["energy_top(0.7)", all_but("energy_top(0.7)"), "top(4)"])
    one, rest, whole = found.values()
    torch.testing.assert_close(one + rest, whole)
    torch.testing.assert_close(described(x[290:], ["energy_top(0.7)"])["energy_top(0.7)"], one[290:])
    assert (one.norm(dim=1) ** 2 >= 0.7 * whole.norm(dim=1) ** 2 * (1 - 1e-5)).all()


def test_null_eigenvalues_are_zero_and_not_rounding_noise():
    x = torch.randn(4, 6, 5, 5)
    x[:, 4] = x[:, 0]  # leaves an eigenvalue of rounding noise
    x[:, 5] = 0  # a channel that is off
    assert described(x, ["band(4, 6)"])["band(4, 6)"].abs().max() == 0


def data(count, size, classes=3, signal=1.0):
    labels = torch.arange(count) % classes
    return signal * torch.randn(classes, size)[labels] + torch.randn(count, size), labels


@pytest.mark.parametrize(("count", "size"), [(60, 10), (20, 50)])
def test_probe_is_ridge_regression(count, size, monkeypatch):
    (x, y), (q, truth) = data(count, size), data(40, size)
    q += x.mean(0)
    for ridge in (0.1, 10.0):
        monkeypatch.setattr(bands, "RIDGES", [ridge])
        got = hits(x.double(), y, x.double(), y, q.double(), truth)
        # The textbook formula, in NumPy and in the primal whatever the shape.
        mean, spread = x.double().numpy().mean(0), x.double().numpy().std(0)
        a, b = (x.numpy() - mean) / spread, np.eye(3)[y.numpy()]
        w = np.linalg.solve(a.T @ a + ridge * size * np.eye(size), a.T @ (b - b.mean(0)))
        guess = ((q.numpy() - mean) / spread @ w + b.mean(0)).argmax(1)
        np.testing.assert_array_equal(got, guess == truth.numpy())


def test_probe_is_the_same_at_any_scale_and_shift():
    sets = [data(30, 40), data(20, 40), data(25, 40)]
    plain = hits(*[value for pair in sets for value in pair])
    scale, shift = torch.logspace(-3, 3, 40), torch.randn(40)
    moved = hits(*[value for x, y in sets for value in ((x * scale + shift * scale).double(), y)])
    np.testing.assert_array_equal(plain, moved)
    assert plain.dtype == bool


def test_ridge_is_chosen_on_validation_and_the_largest_of_equals(monkeypatch):
    (x, y), (q, truth) = data(40, 200, signal=0.3), data(300, 200, signal=0.3)
    q = q - q.mean(0)
    found = {}
    for ridges in ([1e-3], [1.0], [1e3], [1e-3, 1.0, 1e3]):
        monkeypatch.setattr(bands, "RIDGES", ridges)
        found[tuple(ridges)] = hits(x, y, q, truth, q, truth)
    *single, chosen = found.values()
    best = max(right.mean() for right in single)
    assert chosen.mean() == best
    np.testing.assert_array_equal(chosen, [right for right in single if right.mean() == best][-1])


def test_dust_does_not_drown_what_varies():
    # As channels that are off in nearly every image leave it: next to nothing in training, something in a test.
    (x, y), (q, truth) = data(30, 40, signal=5), data(20, 40, signal=0)
    means = torch.stack([x[y == c].mean(0) for c in range(3)])
    q = means[truth] + 0.1 * q
    clean = hits(x, y, q, truth, q, truth)
    dust, constant = 1e-26 * torch.rand(30, 1), torch.full((30, 1), 0.1)
    dusty = hits(
        torch.cat([x, dust, constant], 1),
        y,
        *[torch.cat([q, torch.rand(20, 1), torch.rand(20, 1)], 1), truth] * 2,
    )
    assert clean.all()
    np.testing.assert_array_equal(dusty, clean)


def test_fraction_between_classes_is_that_of_the_f_statistic():
    from scipy import stats

    groups = [np.array([1.0, 2.0, 4.0]), np.array([5.0, 7.0, 6.0]), np.array([2.0, 3.0, 9.0])]
    x = torch.as_tensor(np.concatenate(groups))[:, None]
    f = stats.f_oneway(*groups).statistic
    # b + W in units of W, with b = (F - 1) W / n of n = 3 images of each class.
    assert CODE.fraction_between(x, torch.tensor([1, 1, 1, 0, 0, 0, 2, 2, 2])) == pytest.approx((f - 1) / (f + 2))


def test_fraction_adds_up_over_entries_and_uneven_classes():
    x, labels = torch.randn(30, 2, dtype=torch.float64), torch.tensor([0] * 5 + [1] * 10 + [2] * 15)
    rows = [x[labels == c] for c in range(3)]
    within = sum(((part - part.mean(0)) ** 2).sum() for part in rows) / 27
    between = sum(len(part) * ((part.mean(0) - x.mean(0)) ** 2).sum() for part in rows) / 2
    component = (between - within) / ((30 - (25 + 100 + 225) / 30) / 2)
    assert CODE.fraction_between(x, labels) == pytest.approx(float(component / (component + within)))


@pytest.mark.parametrize("size", [30, 3000])
@pytest.mark.parametrize("each", [4, 40])
def test_noise_has_no_fraction_at_any_size_and_a_known_one_is_found(size, each):
    labels = torch.arange(30).repeat(each)
    noise = torch.randn(30 * each, size)
    # Four standard errors: those of the ratio are sqrt(2 / 29 + ...) / sqrt(size).
    assert abs(CODE.fraction_between(noise, labels)) < 1.2 / each / size**0.5
    # A variance of 1/3 between classes and 1 within is a fraction of 1/4, whatever the images of each.
    planted = torch.randn(30, size)[labels] / 3**0.5 + noise
    assert CODE.fraction_between(planted, labels) == pytest.approx(0.25, abs=0.25 / size**0.5)
    null = [CODE.fraction_between(planted, labels[torch.randperm(len(labels))]) for _ in range(20)]
    assert np.mean(null) == pytest.approx(0, abs=0.15 / size**0.5 / each**0.5)


def test_images_alike_in_each_class():
    labels = torch.tensor([0, 0, 1, 1, 2])
    assert CODE.fraction_between(torch.eye(3)[labels], labels) == pytest.approx(1)
