import pytest
import torch
from notebook_code import definitions

from gcplib.lab.analysis import spectra
from gcplib.linalg import covariance, powm

CODE = definitions("01")


def test_power_descriptors_are_unit_vectors_of_powers():
    x = torch.randn(5, 6, 4, 5)
    found = CODE.power_vectors(x, [0.5, 1.0])
    roots = powm(covariance(x.flatten(2)), 0.5).flatten(1)
    roots = roots / roots.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found[0.5] @ found[0.5].T, roots @ roots.T, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1.0].norm(dim=1), torch.ones(5))
    assert found[0.5].shape == (5, 21)


def test_spectra_fall_and_sum_to_the_variance():
    x = torch.randn(3, 6, 2, 2)
    lam = spectra(x)
    assert (lam.diff(dim=1) <= 0).all()
    assert (lam[:, 3:] < 1e-12).all()  # four positions leave rank three
    torch.testing.assert_close(lam.sum(1), covariance(x.flatten(2).double()).diagonal(dim1=1, dim2=2).sum(1))


def test_nearest_neighbor():
    reference, labels = torch.eye(3), torch.tensor([7, 8, 9])
    hits = CODE.nearest_hits(reference, labels, torch.eye(3)[[2, 0]], torch.tensor([9, 8]))
    assert hits.tolist() == [True, False]


def test_halves_of_distinct_images_find_each_other_and_need_enough_positions():
    scales = torch.logspace(-1, 1, 6)
    x = torch.stack([torch.randn(6, 10, 10) * scales.roll(shift)[:, None, None] for shift in range(6)])
    assert CODE.same_image_hits(x, 40, [0.5], seed=0)[0.5].all()


def test_estimates_from_everything_are_the_truth_and_the_root_wins_where_it_should():
    population = torch.randn(8, 4000)
    assert CODE.estimate_losses(population, 4000, 1, seed=0)["sample"] < 1e-9
    # The truth is nearly the identity, to which the root shrinks.
    few = CODE.estimate_losses(population, 10, 20, seed=0)
    assert few["Ledoit-Wolf"] < few["root"] < few["sample"]
    # Eigenvalues over four decades with many samples: the root is far too flat.
    steep = CODE.estimate_losses(torch.logspace(0, -4, 8)[:, None] * population, 2000, 5, seed=0)
    assert steep["root"] > 10 * steep["sample"]


def test_only_a_singular_estimate_depends_on_the_tolerance():
    population = torch.randn(8, 400)
    for positions, depends in ((4, True), (200, False)):
        coarse, fine = (CODE.estimate_losses(population, positions, 2, 0, t)["sample"] for t in (1e-4, 1e-8))
        assert (abs(coarse - fine) > 0.1) == depends


@pytest.mark.parametrize("positions", [5, 40])
def test_the_shrunk_estimate_is_scikit_learns(positions):
    covariances = pytest.importorskip("sklearn.covariance")
    x = torch.randn(8, positions, dtype=torch.float64) * torch.arange(1, 9)[:, None] + 3
    want = torch.from_numpy(covariances.ledoit_wolf(x.T.numpy())[0])
    torch.testing.assert_close(CODE.ledoit_wolf(x), want)
