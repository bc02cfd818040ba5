import pytest
import torch
from notebook_code import definitions

from gcplib import create_pool
from gcplib.lab.analysis import step_times
from gcplib.models import Head

entries = definitions("01").entries


def test_weights_are_those_of_its_parts():
    head = Head(create_pool("mpn_cov", 12, reduction=(8, 4), reduction_groups=2, blocks=2), 5)
    # Convolutions of 12 x 8 and 8 x 4, halved by the groups, and two numbers a channel of batch norm after each.
    assert head.pool.out_features == 2 * 3
    assert entries(head.pool) == 48 + 16 + 2 * (8 + 4)
    assert entries(head.classifier) == (6 + 1) * 5
    assert sum(p.numel() for p in head.parameters()) == entries(head.pool) + entries(head.classifier)
    assert entries(create_pool("gap", 12)) == 0


def test_heads_take_turns_and_keep_their_weights():
    steps = []
    heads = {name: Head(create_pool("mpn_cov", 6, reduction=4), 3).eval() for name in "ab"}
    for name, head in heads.items():
        head.classifier.weight.register_hook(lambda g, name=name: steps.append((name, bool(g.abs().max() > 0))))
    before = {name: [p.clone() for p in head.parameters()] for name, head in heads.items()}
    found = step_times(heads, torch.randn(8, 6, 3, 3), torch.arange(8) % 3, rounds=3)
    assert steps == [(name, True) for name in "ab" * 4]
    assert found["head"].tolist() == list("ab" * 3)
    assert found["round"].tolist() == [0, 0, 1, 1, 2, 2]
    assert (found.ms > 0).all()
    for name, head in heads.items():
        assert all(map(torch.equal, head.parameters(), before[name]))
        assert all(p.grad is None for p in head.parameters())


def test_nothing_to_time():
    with pytest.raises(ValueError, match="at least one head and one round, got 0 and 9"):
        step_times({}, torch.randn(1, 2, 2, 2), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="got 1 and 0"):
        step_times({"a": Head(create_pool("gap", 2), 2)}, torch.randn(1, 2, 2, 2), torch.zeros(1).long(), rounds=0)
