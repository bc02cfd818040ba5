import numpy as np
import pytest
import torch

from gcplib.lab.analysis import (
    average_descriptors,
    nearest_neighbor_hits,
    power_descriptors,
    root_estimate_error,
    same_image_hits,
    spectra,
)
from gcplib.linalg import covariance, powm


def test_power_descriptors_are_unit_vectors_of_powers():
    x = torch.randn(5, 6, 4, 5)
    found = power_descriptors(x, [0.5, 1.0])
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
    hits = nearest_neighbor_hits(reference, labels, torch.eye(3)[[2, 0]], torch.tensor([9, 8]))
    assert hits.tolist() == [True, False]


def test_average_descriptors():
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(average_descriptors(x), torch.nn.functional.normalize(x.mean((2, 3))))


def test_halves_of_distinct_images_find_each_other_and_need_enough_positions():
    scales = torch.logspace(-1, 1, 6)
    x = torch.stack([torch.randn(6, 10, 10) * scales.roll(shift)[:, None, None] for shift in range(6)])
    assert same_image_hits(x, 40, [0.5], seed=0)[0.5].all()
    with pytest.raises(ValueError, match="two sets of 51 positions do not fit into 100"):
        same_image_hits(x, 51, [0.5], seed=0)


def test_estimates_from_everything_are_the_truth_and_the_root_wins_where_it_should():
    population = torch.randn(8, 4000)
    assert root_estimate_error(population, 4000, 1, seed=0)["sample"] < 1e-9
    # The truth is nearly the identity, to which the root shrinks.
    few = root_estimate_error(population, 10, 20, seed=0)
    assert np.mean(few["root"]) < np.mean(few["sample"])
    # Eigenvalues over four decades with many samples: the root is far too flat.
    steep = root_estimate_error(torch.logspace(0, -4, 8)[:, None] * population, 2000, 5, seed=0)
    assert np.mean(steep["root"]) > 10 * np.mean(steep["sample"])
