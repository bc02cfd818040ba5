"""How far evidence spreads, as notebook 11 measures it: closed forms and invariances."""

import math

import pytest
import torch
from notebook_code import definitions

from gcplib.lab.analysis import attention_entropy, positions_holding
from gcplib.models import Head
from gcplib.nn import create_pool

class_evidence = definitions("11").class_evidence


def head_of(pool="gap", classes=5):
    return Head(create_pool(pool, 6, reduction=4), classes).eval()


def test_the_mean_of_the_evidence_is_the_difference_of_the_logits():
    head, features, classes = head_of(), torch.rand(3, 6, 7, 5), torch.tensor([0, 4, 2])
    maps, logits = head.class_maps(features), head(features)
    evidence = class_evidence(maps, classes)
    assert evidence.shape == (3, 7, 5)
    for i, own in enumerate(classes.tolist()):
        others = torch.cat([logits[i, :own], logits[i, own + 1 :]])
        torch.testing.assert_close(evidence[i].mean(), logits[i, own] - others.mean())
    rival = torch.tensor([1, 1, 0])
    against = class_evidence(maps, classes, rival)
    rows = torch.arange(3)
    torch.testing.assert_close(against.mean((1, 2)), logits[rows, classes] - logits[rows, rival])
    torch.testing.assert_close(class_evidence(maps, rival, classes), -against)


def test_what_all_maps_share_is_no_evidence():
    head, features, classes = head_of(), torch.rand(3, 6, 7, 5), torch.tensor([0, 4, 2])
    before = class_evidence(head.class_maps(features), classes)
    with torch.no_grad():
        head.classifier.weight += torch.randn(4)
        head.classifier.bias += 3
    torch.testing.assert_close(class_evidence(head.class_maps(features), classes), before)


def test_only_average_pooling_has_class_maps():
    with pytest.raises(TypeError, match="only average pooling has class maps, got CovariancePool"):
        head_of("cov").class_maps(torch.rand(2, 6, 3, 3))


def test_closed_forms_of_the_entropy():
    even, one = torch.full((4, 4), 0.3), torch.zeros(4, 4)
    one[2, 1] = 5
    half = torch.cat([torch.ones(2, 4), -torch.ones(2, 4)])
    found = attention_entropy(torch.stack([even, one, half]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, math.log(8) / math.log(16)], dtype=torch.float64))
    p = torch.tensor([[0.5, 0.25], [0.125, 0.125]])
    assert attention_entropy(p).item() == pytest.approx(1.75 * math.log(2) / math.log(4))


def test_the_spread_knows_neither_scale_nor_places():
    maps = torch.randn(5, 6, 7)
    shuffled = maps.flatten(1)[:, torch.randperm(42)].view_as(maps)
    for measure in (attention_entropy, positions_holding):
        found = measure(maps)
        assert ((found > 0) & (found < 1)).all()
        torch.testing.assert_close(measure(100 * maps), found)
        torch.testing.assert_close(measure(shuffled), found)
        torch.testing.assert_close(measure(maps[:, None]), found[:, None])


def test_flatter_is_more_spread():
    maps = torch.rand(5, 6, 7)
    assert (attention_entropy(maps.sqrt()) > attention_entropy(maps)).all()
    assert (positions_holding(maps.sqrt()) > positions_holding(maps)).all()


def test_closed_forms_of_the_positions_that_hold_a_share():
    even = torch.ones(1, 2, 5)
    for share in (0.05, 0.5, 0.77, 0.999):
        assert positions_holding(even, share).item() == pytest.approx(share)
    steps = torch.tensor([[6.0, -2.0], [3.0, 1.0]])
    for share, want in ((0.3, 0.125), (0.6, 0.25), (0.75, 0.375), (0.9, 0.5), (0.95, 0.625)):
        assert positions_holding(steps, share).item() == pytest.approx(want)


def test_only_what_is_within_counts():
    maps = torch.rand(3, 4, 4)
    within = torch.zeros(4, 4, dtype=torch.bool)
    within[1:3] = True
    for measure in (attention_entropy, positions_holding):
        torch.testing.assert_close(measure(maps, within=within), measure(maps[:, 1:3]))
        own = torch.stack([within, ~within, within.roll(1, 0)])
        torch.testing.assert_close(measure(maps, within=own)[0], measure(maps[0, 1:3]))


@pytest.mark.parametrize("measure", [attention_entropy, positions_holding])
def test_maps_without_a_spread(measure):
    good = torch.ones(2, 3, 3)
    for maps, within in ((-good, None), (good[:, :1, :1], None), (good, torch.zeros(3, 3, dtype=torch.bool))):
        with pytest.raises(ValueError, match="a spread needs two positions, and a positive value in each map"):
            measure(maps, within=within)
