import math
import re

import pytest
import torch

from gcplib.lab.analysis.spread import attention_entropy, class_evidence, positions_holding
from gcplib.models import Head
from gcplib.nn import create_pool


def head_of(pool="gap", classes=5):
    return Head(create_pool(pool, 6, reduction=4), classes).eval()


def test_the_mean_of_the_evidence_is_the_difference_of_the_logits():
    head, features, classes = head_of(), torch.rand(3, 6, 7, 5), torch.tensor([0, 4, 2])
    evidence, logits = class_evidence(head, features, classes), head(features)
    assert evidence.shape == (3, 7, 5)
    for i, own in enumerate(classes.tolist()):
        others = torch.cat([logits[i, :own], logits[i, own + 1 :]])
        torch.testing.assert_close(evidence[i].mean(), logits[i, own] - others.mean())
    rival = torch.tensor([1, 1, 0])
    against = class_evidence(head, features, classes, rival)
    rows = torch.arange(3)
    torch.testing.assert_close(against.mean((1, 2)), logits[rows, classes] - logits[rows, rival])
    torch.testing.assert_close(class_evidence(head, features, rival, classes), -against)


def test_what_all_maps_share_is_no_evidence():
    head, features, classes = head_of(), torch.rand(3, 6, 7, 5), torch.tensor([0, 4, 2])
    before = class_evidence(head, features, classes)
    with torch.no_grad():
        head.classifier.weight += torch.randn(4)
        head.classifier.bias += 3
    torch.testing.assert_close(class_evidence(head, features, classes), before)


def test_evidence_is_refused_where_it_is_not_defined():
    features = torch.rand(2, 6, 3, 3)
    with pytest.raises(TypeError, match="only average pooling has class maps, got CovariancePool"):
        class_evidence(head_of("cov"), features, torch.tensor([0, 1]))
    for classes, against, message in (
        ([0], None, "features (2, 6, 3, 3) and classes (1,) must be"),
        ([0, 1], [0], "and against (1,) must be"),
        ([0, 5], None, "classes holds 0 to 5, there are 5 classes"),
        ([0, 1], [-1, 2], "against holds -1 to 2, there are 5 classes"),
    ):
        against = None if against is None else torch.tensor(against)
        with pytest.raises(ValueError, match=re.escape(message)):
            class_evidence(head_of(), features, torch.tensor(classes), against)


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
def test_bad_maps(measure):
    good = torch.ones(2, 3, 3)
    for maps, within, message in (
        (torch.ones(3), None, "expected maps (..., h, w), got (3,)"),
        (good * torch.nan, None, "18 values of the maps (2, 3, 3) are not finite"),
        (-good, None, "2 of 2 maps have no positive value"),
        (good[:, :1, :1], None, "at least two positions, got 1"),
        (good, torch.ones(3, 2, dtype=torch.bool), "within must be bool (..., h, w) like the maps (2, 3, 3)"),
        (good, torch.ones(3, 3), "got torch.float32 (3, 3)"),
        (good, torch.zeros(3, 3, dtype=torch.bool), "at least two positions, got 0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            measure(maps, within=within)


@pytest.mark.parametrize("share", [0, 1, -0.5, math.nan])
def test_bad_shares(share):
    with pytest.raises(ValueError, match=f"share must lie between 0 and 1, got {share}"):
        positions_holding(torch.ones(2, 2), share)
