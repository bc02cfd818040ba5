"""What notebook 09 asks of a gate: its factors, what they know, and what they cost."""

import pytest
import torch
from notebook_code import definitions
from torch import nn

from gcplib.lab.analysis import overhead
from gcplib.nn import ChannelGate, PositionGate, SqueezeExcitation

notebook = definitions("09")


@pytest.mark.parametrize("gate", [ChannelGate(6), PositionGate(6, grid=2), SqueezeExcitation(6)], ids=lambda g: type(g))
def test_factors_are_replaced_within_the_block_only(gate):
    x = torch.randn(4, 6, 5, 5)
    network = nn.Sequential(gate.eval(), nn.Flatten())
    for parameter in gate.parameters():
        nn.init.normal_(parameter)
    own = gate.factors(x)
    with notebook.factors_replaced(gate, lambda s: s.flip(0)):
        torch.testing.assert_close(network(x), (x * own.flip(0)).flatten(1))
    with pytest.raises(RuntimeError), notebook.factors_replaced(gate, lambda s: s[:, :, :0, :0].expand(7, 7, 7, 7)):
        network(x)
    torch.testing.assert_close(network(x), (x * own).flatten(1))


def test_share_between_classes():
    labels = torch.arange(20).repeat_interleave(10)
    by_class = labels[:, None] + torch.zeros(1, 3)
    noise = torch.randn(200, 400)
    share = notebook.between_classes(torch.cat([by_class, noise, torch.ones(200, 1)], 1), labels)
    torch.testing.assert_close(share[:3], torch.ones(3))
    assert share[3:-1].mean().item() == pytest.approx(19 / 199, rel=0.1)
    assert share[-1].isnan()
    # Names of classes do not matter, nor do scale and offset.
    torch.testing.assert_close(
        notebook.between_classes(5 - 3 * noise, 7 * labels + 2), share[3:-1], rtol=1e-3, atol=1e-5
    )


def test_participation_ratio_counts_directions():
    one, many = torch.randn(500, 1) * torch.randn(1, 8), torch.linalg.qr(torch.randn(500, 9)).Q
    assert notebook.participation_ratio(one) == pytest.approx(1, abs=1e-4)
    assert notebook.participation_ratio(many - many.mean(0)) == pytest.approx(9, abs=0.2)


def test_overhead_counts_and_times_and_leaves_networks_alone():
    networks = {
        "plain": nn.Sequential(nn.Flatten(), nn.Linear(64, 8)),
        "gated": nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 8)),
        "heavy": nn.Sequential(*(nn.Conv2d(4, 4, 7, padding=3) for _ in range(9)), nn.Flatten(), nn.Linear(64, 8)),
    }
    table = overhead(networks, torch.randn(8, 4, 4, 4), rounds=3)
    assert table.index.tolist() == list(networks)
    assert table.parameters.tolist() == [520, 528, 520 + 9 * (4 * 4 * 49 + 4)]
    assert table["more than the first"].tolist() == [0, 8, 9 * (4 * 4 * 49 + 4)]
    assert (table.loc["plain", ["over the first", "at least", "at most"]] == 1).all()
    assert table["over the first"].heavy > 1.5
    assert (table["at least"] <= table["over the first"]).all()
    assert (table["over the first"] <= table["at most"]).all()
    assert networks["gated"][0].num_batches_tracked == 0
    assert networks["plain"][1].weight.grad is None
