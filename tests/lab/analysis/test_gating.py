import pytest
import torch
from torch import nn

from gcplib.lab.analysis import between_share, factors_replaced, gate_overhead, participation_ratio
from gcplib.nn import ChannelGate, PositionGate, SqueezeExcitation


@pytest.mark.parametrize("gate", [ChannelGate(6), PositionGate(6, grid=2), SqueezeExcitation(6)], ids=lambda g: type(g))
def test_factors_are_replaced_within_the_block_only(gate):
    x = torch.randn(4, 6, 5, 5)
    network = nn.Sequential(gate.eval(), nn.Flatten())
    for parameter in gate.parameters():
        nn.init.normal_(parameter)
    own = gate.factors(x)
    with factors_replaced(gate, lambda s: s.flip(0)):
        torch.testing.assert_close(network(x), (x * own.flip(0)).flatten(1))
    with pytest.raises(RuntimeError), factors_replaced(gate, lambda s: s[:, :, :0, :0].expand(7, 7, 7, 7)):
        network(x)
    torch.testing.assert_close(network(x), (x * own).flatten(1))


def test_share_between_classes():
    labels = torch.arange(20).repeat_interleave(10)
    by_class = labels[:, None] + torch.zeros(1, 3)
    noise = torch.randn(200, 400)
    share, chance = between_share(torch.cat([by_class, noise, torch.ones(200, 1)], 1), labels)
    assert chance == pytest.approx(19 / 199)
    torch.testing.assert_close(share[:3], torch.ones(3))
    assert share[3:-1].mean().item() == pytest.approx(chance, rel=0.1)
    assert share[-1].isnan()
    # Names of classes do not matter, nor do scale and offset.
    torch.testing.assert_close(between_share(5 - 3 * noise, 7 * labels + 2)[0], share[3:-1], rtol=1e-3, atol=1e-5)


def test_participation_ratio_counts_directions():
    one, many = torch.randn(500, 1) * torch.randn(1, 8), torch.linalg.qr(torch.randn(500, 9)).Q
    assert participation_ratio(one) == pytest.approx(1, abs=1e-4)
    assert participation_ratio(many - many.mean(0)) == pytest.approx(9, abs=0.2)


def test_overhead_counts_and_times_and_leaves_networks_alone():
    networks = {
        "plain": nn.Sequential(nn.Flatten(), nn.Linear(64, 8)),
        "gated": nn.Sequential(nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 8)),
        "heavy": nn.Sequential(*(nn.Conv2d(4, 4, 7, padding=3) for _ in range(9)), nn.Flatten(), nn.Linear(64, 8)),
    }
    table = gate_overhead(networks, torch.randn(8, 4, 4, 4), rounds=3)
    assert table.index.tolist() == list(networks)
    assert table.parameters.tolist() == [520, 528, 520 + 9 * (4 * 4 * 49 + 4)]
    assert table.added.tolist() == [0, 8, 9 * (4 * 4 * 49 + 4)]
    assert (table.loc["plain", ["ratio", "low", "high"]] == 1).all()
    assert table.ratio.heavy > 1.5
    assert (table.low <= table.ratio).all()
    assert (table.ratio <= table.high).all()
    assert networks["gated"][0].num_batches_tracked == 0
    assert networks["plain"][1].weight.grad is None


def test_errors():
    with pytest.raises(ValueError, match=r"values \(n, C\) and labels \(n,\), got \(4, 2\), \(3,\)"):
        between_share(torch.zeros(4, 2), torch.zeros(3))
    with pytest.raises(ValueError, match="two classes and three values at least, got 1 and 4"):
        between_share(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(ValueError, match="do not vary have no directions"):
        participation_ratio(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"expected values \(n, C\), got \(3,\)"):
        participation_ratio(torch.ones(3))
    with pytest.raises(ValueError, match="at least one head and one round, got 0 and 5"):
        gate_overhead({}, torch.zeros(1, 1))
    with pytest.raises(ValueError, match="got 1 and 0"):
        gate_overhead({"plain": nn.Identity()}, torch.zeros(1, 1), rounds=0)
