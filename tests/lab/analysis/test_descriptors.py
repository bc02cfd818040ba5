from itertools import pairwise

import pytest
import torch
from notebook_code import definitions

from gcplib.lab.analysis import nearest, spectra
from gcplib.lab.course.tasks.notebook_01 import upper
from gcplib.linalg import covariance, powm

CODE = definitions("01")


def test_power_descriptors_are_unit_vectors_of_powers():
    x = torch.randn(5, 6, 4, 5)
    found = CODE.powers_of(x, [0.5, 1.0])
    roots = powm(covariance(x.flatten(2)), 0.5).flatten(1)
    roots = roots / roots.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found[0.5] @ found[0.5].T, roots @ roots.T, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1.0].norm(dim=1), torch.ones(5))


def test_vectors_of_a_pool_have_the_angles_of_the_matrices():
    x = torch.randn(5, 6, 4, 5)
    vectors = CODE.PowerPool(6)(x)
    matrices = powm(covariance(x.flatten(2)), 0.5)
    torch.testing.assert_close(vectors, upper(matrices), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(vectors @ vectors.T, matrices.flatten(1) @ matrices.flatten(1).T)


def test_spectra_fall_and_sum_to_the_variance():
    x = torch.randn(3, 6, 2, 2)
    lam = spectra(x)
    assert (lam.diff(dim=1) <= 0).all()
    assert (lam[:, 3:] < 1e-12).all()  # four positions leave rank three
    torch.testing.assert_close(lam.sum(1), covariance(x.flatten(2).double()).diagonal(dim1=1, dim2=2).sum(1))


def test_nearest_neighbors_are_found_by_angle_whatever_fits_into_memory():
    x = torch.randn(40, 6, 4, 4)
    known, asked = torch.arange(0, 40, 2), torch.arange(1, 40, 2)
    vectors = CODE.powers_of(x, [0.5, 1.0])
    for room in (2**30, 3000, 1):
        found = nearest(x, known, asked, lambda x: CODE.powers_of(x, [0.5, 1.0]), room)
        for p, places in found.items():
            assert places.tolist() == known[(vectors[p][asked] @ vectors[p][known].T).argmax(1)].tolist(), (p, room)


def test_nearest_neighbors_are_described_in_blocks():
    x, sizes = torch.rand(64, 6, 4, 4), []

    def describe(x):
        sizes.append(len(x))
        return {"x": CODE.unit(x)}

    room = 10 * (x[0].nbytes + 4 * 6 * 16)
    assert nearest(x, torch.arange(32), torch.arange(32, 64), describe, room)["x"].shape == (32,)
    assert max(sizes) == 10


def test_halves_of_distinct_images_find_each_other_and_need_enough_positions():
    scales = torch.logspace(-1, 1, 6)
    x = torch.stack([torch.randn(6, 10, 10) * scales.roll(shift)[:, None, None] for shift in range(6)])
    found = CODE.same_image_hits(x, 40, CODE.powers_and_shrunk, seed=0)
    assert found["power 0.5"].all()
    assert found["Ledoit-Wolf"].all()


BOTH = {"best multiple", "as it comes"}
MEASURES = [measure for measure, _ in CODE.LOSSES.values()]
NAMED = pytest.mark.parametrize("measure", MEASURES, ids=list(CODE.LOSSES))


def positive(size, rank=None):
    x = torch.randn(size, rank or 2 * size, dtype=torch.float64)
    return x @ x.T


@NAMED
def test_a_loss_is_zero_for_the_truth_alone_and_finite_for_singular_estimates(measure):
    truth = positive(6)
    found = measure(torch.stack([truth, 3 * truth, positive(6, 1), torch.zeros_like(truth)]), truth)
    assert set(found) == BOTH
    best, own = found["best multiple"], found["as it comes"]
    torch.testing.assert_close(best[:2], torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(own[0], own[0] * 0, atol=1e-9, rtol=0)
    assert 0 < best[2] < 100
    assert own[1] > 1
    assert own[2] >= best[2]
    assert own[3] == 100  # no estimate at all


@NAMED
def test_a_loss_does_not_depend_on_the_axes_or_the_unit(measure):
    truth, estimate = positive(6), positive(6, 3)
    q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    want, turned = measure(estimate, truth), measure(5 * q @ estimate @ q.T, 5 * q @ truth @ q.T)
    scaled = measure(7 * estimate, truth)
    for scale in BOTH:
        torch.testing.assert_close(turned[scale], want[scale])
    torch.testing.assert_close(scaled["best multiple"], want["best multiple"])
    assert abs(scaled["as it comes"] - want["as it comes"]) > 1


@NAMED
def test_the_best_multiple_is_the_best(measure):
    truth, estimate = positive(6), positive(6, 3)
    multiples = torch.logspace(-3, 2, 2001, dtype=torch.float64)[:, None, None] * estimate
    found = measure(multiples, truth)["as it comes"].min()
    torch.testing.assert_close(found, measure(estimate, truth)["best multiple"], rtol=1e-4, atol=0)


def test_losses_of_scaled_identities_and_of_diagonals_have_closed_forms():
    eye = torch.eye(4, dtype=torch.float64)
    own = {name: measure(9 * eye, 4 * eye)["as it comes"].item() for name, (measure, _) in CODE.LOSSES.items()}
    # (sqrt 9 - sqrt 4)^2 d over 4 d, (9 - 4)^2 d over 4^2 d, and (9/4 - 1)^2 d over d.
    assert own == pytest.approx({"distance": 25, "Frobenius loss": 100 * 25 / 16, "whitened loss": 100 * 25 / 16})
    a, b = torch.tensor([4.0, 1.0, 0.0]).double(), torch.tensor([1.0, 4.0, 9.0]).double()
    best = {name: measure(a.diag(), b.diag())["best multiple"].item() for name, (measure, _) in CODE.LOSSES.items()}
    cosines = {"distance": (2 + 2) ** 2 / (5 * 14), "Frobenius loss": 8**2 / (17 * 98)}
    cosines["whitened loss"] = (4 + 1 / 4) ** 2 / (3 * (16 + 1 / 16))
    assert best == pytest.approx({name: 100 * (1 - cosine) for name, cosine in cosines.items()})


def test_the_distance_is_that_of_optimal_transport_between_gaussians():
    """Of all ways to move one to the other the linear map S^-1/2 (S^1/2 E S^1/2)^1/2 S^-1/2 is the shortest."""
    truth, estimate = positive(5), positive(5)
    root, inverse = powm(truth, 0.5), powm(truth, -0.5)
    move = inverse @ powm(root @ estimate @ root, 0.5) @ inverse
    torch.testing.assert_close(move @ truth @ move, estimate)
    away = move - torch.eye(5, dtype=torch.float64)
    want = 100 * (away @ truth @ away).trace() / truth.trace()
    torch.testing.assert_close(CODE.bures_wasserstein(estimate, truth)["as it comes"], want)


def losses(population, positions, draws=20, scale="best multiple"):
    """Mean losses of a population's estimates: by loss, then by estimate."""
    found = CODE.estimate_losses(population, positions, draws, seed=0)
    return found[found.scale == scale].pivot(index="loss", columns="estimate", values="value")


def test_the_sample_of_everything_is_the_truth_and_more_positions_come_nearer():
    population = torch.logspace(0, -1, 8)[:, None] * torch.randn(8, 4000)
    for scale in BOTH:
        assert losses(population, 4000, 1, scale)["sample"].abs().max() < 1e-9
        found = [losses(population, count, 20, scale) for count in (4, 16, 64, 256)]
        for name in ("sample", "Ledoit-Wolf"):
            for fewer, more in pairwise(found):
                assert (more.loc["distance", name] < fewer.loc["distance", name]).all()


def test_the_root_wins_where_the_truth_is_flat_and_loses_where_it_is_steep():
    population = torch.randn(8, 4000)
    # The truth is nearly the identity, to which the root is drawn.
    few = losses(population, 10)
    assert (few["root"] < few["sample"]).all()
    assert (few["Ledoit-Wolf"] < few["root"]).all()
    # Eigenvalues over four decades with many samples: the root is far too flat.
    steep = losses(torch.logspace(0, -4, 8)[:, None] * population, 2000, 5)
    assert (steep["root"] > 10 * steep["sample"]).all()


@pytest.mark.parametrize("positions", [5, 40])
def test_the_estimates_are_scikit_learns_and_the_root_of_mean_variance_one(positions):
    covariances = pytest.importorskip("sklearn.covariance")
    x = torch.randn(8, positions, dtype=torch.float64) * torch.arange(1, 9)[:, None] + 3
    found, samples = CODE.estimates(x), x.T.numpy()
    want = {"sample": covariances.empirical_covariance(samples), "Ledoit-Wolf": covariances.ledoit_wolf(samples)[0]}
    for name, matrix in want.items():
        torch.testing.assert_close(found[name], torch.from_numpy(matrix))
    mean = found["sample"].diagonal().mean()
    torch.testing.assert_close(found["root"] @ found["root"], found["sample"] * mean)
    # In any unit of the features.
    torch.testing.assert_close(CODE.estimates(3 * x)["root"], 9 * found["root"])


def test_the_root_minimizes_the_objective_of_the_paper():
    """Over eigenvalues: the likelihood and the divergence of the identity, with mean variance one."""
    found = CODE.estimates(torch.randn(4, 50, dtype=torch.float64))
    mean = found["sample"].diagonal().mean()
    lam, mu = (torch.linalg.eigvalsh(found[name] / mean) for name in ("sample", "root"))

    def objective(mu):
        return mu.log() + lam / mu + (mu - mu.log() - 1)

    for factor in (0.9, 0.99, 1.01, 1.1):
        assert (objective(mu) < objective(factor * mu)).all()
