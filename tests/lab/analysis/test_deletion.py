"""Curves of deletion and insertion against closed forms, on a network whose score is a sum over pixels."""

import numpy as np
import pytest
import torch
from torch import nn

from gcplib.lab.analysis import blurred, deletion_insertion
from gcplib.models import Head
from gcplib.nn import create_pool

CELLS, STEPS, OWN, RIVAL = 4, 5, [0, 1, 0], [1, 0, 1]


class Pixels(nn.Module):
    """Features that are the pixels themselves; remembers how many images passed."""

    passed = 0

    def prepare(self, images):
        return torch.as_tensor(images).permute(0, 3, 1, 2).double() / 255

    def forward(self, x):
        self.passed += len(x)
        return x


@pytest.fixture
def network():
    """Average pooling of pixels: the score of a class is a sum over pixels, and so over cells."""
    torch.manual_seed(0)
    head = Head(create_pool("gap", 3), 2).double().eval()
    with torch.no_grad():
        weight = head.classifier.weight.normal_(0, 50)
        weight -= weight.mean(1, keepdim=True)  # gray says nothing, so that no score is far from zero
    return Pixels().eval(), head


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 255, size=(3, 16, 16, 3), dtype=np.uint8)


def parts(network, images):
    """What the blur of each cell takes from the score, (B, h, w), and the score of the whole image, (B,)."""
    backbone, head = network
    x, rows = backbone.prepare(images), head.classifier.weight.detach()
    weight, bias = rows[OWN] - rows[RIVAL], head.classifier.bias.detach()
    lost = torch.einsum("bchw,bc->bhw", x - blurred(x), weight) / x[0, 0].numel()
    lost = lost.unflatten(1, (CELLS, -1)).unflatten(3, (CELLS, -1)).sum((2, 4))
    whole = (x.mean((2, 3)) * weight).sum(1) + bias[OWN] - bias[RIVAL]
    return lost, whole


def area(curves):
    return torch.trapezoid(curves, dx=1 / (curves.shape[-1] - 1))


def test_curves_of_a_sum_over_cells_are_cumulated_sums(network, images):
    lost, whole = parts(network, images)
    deletion, insertion = deletion_insertion(*network, images, lost.unsqueeze(1), OWN, RIVAL, STEPS)
    assert deletion.shape == insertion.shape == (3, 1, STEPS + 1)
    for i in range(3):
        cumulated = np.concatenate([[0], np.sort(lost[i].flatten())[::-1].cumsum()])
        # 16 cells in 5 steps: the cell at the edge counts by the part of it that is covered.
        taken = np.interp(np.linspace(0, CELLS**2, STEPS + 1), np.arange(CELLS**2 + 1), cumulated)
        taken = torch.from_numpy(taken)
        torch.testing.assert_close(deletion[i, 0], (whole[i] - taken).sigmoid())
        torch.testing.assert_close(insertion[i, 0], (whole[i] - lost[i].sum() + taken).sigmoid())


def test_areas_of_a_map_and_of_its_negative_complement_each_other(network, images):
    lost, whole = parts(network, images)
    # The scores of the first image and of its blur now have equal size and opposite sign.
    network[1].classifier.bias.data[OWN[0]] -= whole[0] - lost[0].sum() / 2
    maps = torch.stack([lost, -lost], 1)
    deletion, insertion = deletion_insertion(*network, images, maps, OWN, RIVAL, STEPS)
    torch.testing.assert_close(deletion[:, 1], insertion[:, 0].flip(-1))
    torch.testing.assert_close(area(deletion)[:, 1], area(insertion)[:, 0])
    torch.testing.assert_close(area(deletion)[0].sum(), torch.tensor(1.0, dtype=torch.float64))


def test_random_orders_lie_between_the_map_and_its_negative(network, images):
    lost, _ = parts(network, images)
    maps = torch.cat([lost.unsqueeze(1), torch.rand(3, 20, CELLS, CELLS), -lost.unsqueeze(1)], 1)
    deletion, insertion = map(area, deletion_insertion(*network, images, maps, OWN, RIVAL, STEPS))
    assert (deletion[:, :1] < deletion[:, 1:-1]).all()
    assert (deletion[:, 1:-1] < deletion[:, -1:]).all()
    assert (insertion[:, :1] > insertion[:, 1:-1]).all()
    assert (insertion[:, 1:-1] > insertion[:, -1:]).all()


def test_only_the_order_counts_and_nothing_is_changed(network, images):
    maps, before = torch.randn(3, 2, CELLS, CELLS), images.copy()
    kept = maps.clone()
    found = deletion_insertion(*network, images, maps, OWN, RIVAL, STEPS)
    assert np.array_equal(images, before)
    assert torch.equal(maps, kept)
    again = deletion_insertion(*network, images, maps.exp(), OWN, RIVAL, STEPS)
    assert all(map(torch.equal, found, again))
    # Each image and its blur once for all curves, and the other steps of both curves of every map.
    assert network[0].passed == 2 * 3 * (2 + 2 * 2 * (STEPS - 1))


def test_bad_input(network, images):
    backbone, head = network
    maps = torch.zeros(3, 2, CELLS, CELLS)
    with pytest.raises(ValueError, match=r"expected maps \(3, maps, h, w\), some for every image, got \(2, 2, 4, 4\)"):
        deletion_insertion(backbone, head, images, maps[:2], OWN, RIVAL)
    with pytest.raises(ValueError, match=r"got \(3, 4, 4\)"):
        deletion_insertion(backbone, head, images, maps[:, 0], OWN, RIVAL)
    with pytest.raises(ValueError, match="96 values of the maps"):
        deletion_insertion(backbone, head, images, maps / 0, OWN, RIVAL)
    with pytest.raises(ValueError, match="at least 2 steps, got 1"):
        deletion_insertion(backbone, head, images, maps, OWN, RIVAL, 1)
    with pytest.raises(ValueError, match=r"one class from 0 to 1 for each of 3 images, got \[0, 1\]"):
        deletion_insertion(backbone, head, images, maps, OWN[:2], RIVAL)
    with pytest.raises(ValueError, match=r"got \[1, 0, -1\]"):
        deletion_insertion(backbone, head, images, maps, OWN, [1, 0, -1])
    for part in network:
        part.train()
        with pytest.raises(ValueError, match="training mode"):
            deletion_insertion(backbone, head, images, maps, OWN, RIVAL)
        part.eval()
