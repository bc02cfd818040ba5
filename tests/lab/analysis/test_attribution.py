"""Maps at the features: exact sums, the sets' linear algebra, oracles by other routes, and refusals."""

import pytest
import torch
from captum.attr import LayerGradCam
from notebook_code import definitions
from torch import nn

from gcplib.lab.analysis import class_matrices, differentiable_scores, set_scores
from gcplib.linalg import covariance, get_eigenvalue_set, sqrtm
from gcplib.models import Head
from gcplib.nn import create_pool

CODE = definitions("05")
position_map, gradient_map, grad_cam_map = CODE.position_map, CODE.gradient_map, CODE.grad_cam_map
eigenvalue_evidence, class_specificity = CODE.eigenvalue_evidence, CODE.class_specificity
shuffle_classifier = CODE.shuffle_classifier
POOLS = ["mpn_cov", "isqrt_cov", "cov", "mpa", "mtp", "svd_original"]
OPTIONS = [
    {"amplify": "released"},
    {"keep": "top(5)"},
    {"keep": "bottom(6)", "where": "forward"},
    {"keep": "top(5)", "where": "backward"},
]
PARTITION = ["top(3)", "band(3, 5)", "bottom(3)"]
CLASSES, OTHERS = [0, 4, 2], [1, 1, 3]


def make(name="mpn_cov", channels=10, reduction=8, **options):
    head = Head(create_pool(name, channels, reduction=reduction, **options), 5).double().eval()
    return head, torch.randn(3, channels, 5, 6, dtype=torch.float64)


@pytest.mark.parametrize("name", POOLS)
def test_a_partition_sums_to_the_logit(name):
    head, features = make(name)
    logits = head(features) - head.classifier.bias
    scores = set_scores(head, features, PARTITION, CLASSES)
    torch.testing.assert_close(scores.sum(1), logits[range(3), CLASSES], rtol=0, atol=1e-10)
    against = set_scores(head, features, PARTITION, CLASSES, OTHERS)
    torch.testing.assert_close(against.sum(1), (logits[range(3), CLASSES] - logits[range(3), OTHERS]))
    torch.testing.assert_close(CODE.scores_by_set(head, features, PARTITION, CLASSES, OTHERS), against)
    torch.testing.assert_close(eigenvalue_evidence(head, features, CLASSES).sum(1), scores.sum(1))
    torch.testing.assert_close(eigenvalue_evidence(head, features, CLASSES)[:, :3].sum(1), scores[:, 0])


@pytest.mark.parametrize("name", POOLS)
def test_position_map_is_complete_and_additive(name):
    head, features = make(name)
    maps = position_map(head, features, PARTITION, CLASSES, OTHERS)
    assert maps.shape == (3, 3, 5, 6)
    scores = set_scores(head, features, PARTITION, CLASSES, OTHERS)
    torch.testing.assert_close(maps.sum((2, 3)), scores, rtol=0, atol=1e-10)
    whole = position_map(head, features, ["top(8)"], CLASSES, OTHERS)
    torch.testing.assert_close(maps.sum(1), whole[:, 0], rtol=0, atol=1e-10)


def test_one_position_of_the_map_is_its_term():
    head, features = make()
    x = head.pool.reduction(features).flatten(2)[1]
    x = x - x.mean(1, keepdim=True)
    lam, u = torch.linalg.eigh(x @ x.T / 30)
    found = CODE.terms(x, u, lam.rsqrt(), class_matrices(head, CLASSES)[1])
    torch.testing.assert_close(found.sum(1).flip(0), eigenvalue_evidence(head, features, CLASSES)[1])
    b = u[:, :3] / lam[:3].sqrt() @ u[:, :3].T
    w = class_matrices(head, CLASSES)[1]
    got = position_map(head, features, ["bottom(3)"], CLASSES)[1, 0].flatten()
    torch.testing.assert_close(got[7], x[:, 7] @ w @ b @ x[:, 7] / 30)


def test_class_matrix_is_the_classifiers_row():
    head, features = make()
    c = sqrtm(covariance(head.pool.reduction(features).flatten(2)))
    logits = head(features) - head.classifier.bias
    got = (class_matrices(head, CLASSES, OTHERS) * c).sum((1, 2))
    torch.testing.assert_close(got, logits[range(3), CLASSES] - logits[range(3), OTHERS])


def test_float32_in_float32_out_computed_in_float64():
    head, features = make()
    exact = position_map(head, features, PARTITION, CLASSES)
    single = position_map(head.float(), features.float(), PARTITION, CLASSES)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*POOLS, "svd_top_n"])
def test_gradient_is_that_of_the_score(name):
    head, features = make(name)
    sets = ["bottom(3)", "top(5)", "energy_bottom(0.5)"]
    scores = set_scores(head, features, sets, CLASSES, OTHERS)
    torch.testing.assert_close(differentiable_scores(head, features, sets, CLASSES, OTHERS), scores, rtol=0, atol=1e-7)
    step = 1e-6 * torch.randn_like(features)
    ahead, behind = (set_scores(head, features + s, sets, CLASSES, OTHERS) for s in (step, -step))
    x = features.clone().requires_grad_()
    for i, s in enumerate(differentiable_scores(head, x, sets, CLASSES, OTHERS).sum(0)):
        (gradient,) = torch.autograd.grad(s, x, retain_graph=True)
        slope = (gradient * step).sum((1, 2, 3))
        torch.testing.assert_close(slope, (ahead - behind)[:, i] / 2, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["mpn_cov", "isqrt_cov"])
def test_what_the_pool_does_to_eigenvalues_is_in_the_scores(name, options):
    head, features = make(name, **options)
    logits = head(features) - head.classifier.bias
    scores = set_scores(head, features, PARTITION, CLASSES)
    torch.testing.assert_close(scores.sum(1), logits[range(3), CLASSES], rtol=0, atol=1e-10)
    torch.testing.assert_close(position_map(head, features, PARTITION, CLASSES).sum((2, 3)), scores)
    x = features.clone().requires_grad_()
    smooth = differentiable_scores(head, x, PARTITION, CLASSES)
    torch.testing.assert_close(smooth, scores)
    step = 1e-6 * torch.randn_like(features)
    (gradient,) = torch.autograd.grad(smooth[:, 1].sum(), x)
    ahead, behind = (set_scores(head, features + s, PARTITION, CLASSES)[:, 1] for s in (step, -step))
    torch.testing.assert_close((gradient * step).sum((1, 2, 3)), (ahead - behind) / 2, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("name", "degree"), [("mpn_cov", 1), ("isqrt_cov", 1), ("mpa", 1), ("cov", 2)])
def test_gradient_map_is_complete_for_homogeneous_functions(name, degree):
    head, features = make(name)
    maps = gradient_map(head, features, PARTITION, CLASSES)
    scores = set_scores(head, features, PARTITION, CLASSES)
    torch.testing.assert_close(maps.sum((2, 3)), degree * scores, rtol=1e-8, atol=1e-10)


def test_grad_cam_is_captums():
    head, features = make()
    layer = nn.Identity()
    forward = nn.Sequential(layer, head)
    want = LayerGradCam(forward, layer).attribute(features, target=3)
    got = grad_cam_map(head, features, ["top(8)"], [3, 3, 3])
    torch.testing.assert_close(got, want.detach())


def test_grad_cam_right_before_the_covariance_is_zero():
    head, features = make(reduction=None, channels=8)
    x = features.clone().requires_grad_()
    head(x)[:, 0].sum().backward()
    assert x.grad.abs().mean() > 1e-4
    assert x.grad.mean((2, 3)).abs().max() < 1e-12
    assert grad_cam_map(head, features, ["top(3)"], CLASSES).abs().max() < 1e-10


def test_sets_are_of_eigenvalues_that_are_not_zero():
    head, features = make(reduction=None, channels=8)
    features[:, 5:7] = 0
    features[1, 7] = 0
    # Six, five and six are left: the smallest three are those above the zeros.
    evidence = eigenvalue_evidence(head, features, CLASSES)
    want = torch.stack([evidence[0, 3:6].sum(), evidence[1, 2:5].sum(), evidence[2, 3:6].sum()])
    torch.testing.assert_close(set_scores(head, features, ["bottom(3)"], CLASSES)[:, 0], want)
    torch.testing.assert_close(differentiable_scores(head, features, ["bottom(3)"], CLASSES)[:, 0], want)
    torch.testing.assert_close(position_map(head, features, ["bottom(3)"], CLASSES).sum((1, 2, 3)), want)
    for function in (set_scores, position_map, gradient_map):
        with pytest.raises(ValueError, match=r"top\(6\) needs 6.*more than the rank.*only 5 are not zero"):
            function(head, features, ["top(6)"], CLASSES)


def test_shuffled_eigenvectors_keep_the_eigenvalues_only():
    head, features = make()
    trace = torch.eye(8, dtype=torch.float64)
    with torch.no_grad():
        row, column = torch.triu_indices(8, 8)
        head.classifier.weight[0] = trace[row, column]
    # The trace does not see eigenvectors; any other class does.
    true, shuffled = (set_scores(head, features, ["top(3)"], [0, 0, 1], shuffle=s) for s in (None, 4))
    torch.testing.assert_close(true[:2], shuffled[:2])
    assert (true[2] - shuffled[2]).abs() > 1e-4
    assert torch.allclose(CODE.scores_by_set(head, features, ["top(3)"], [0, 0, 1], shuffle=4), shuffled)
    again = position_map(head, features, ["top(3)"], CLASSES, shuffle=4)
    torch.testing.assert_close(again, position_map(head, features, ["top(3)"], CLASSES, shuffle=4), rtol=0, atol=0)
    assert (again - position_map(head, features, ["top(3)"], CLASSES)).abs().max() > 1e-4


def test_shuffled_classifier_has_the_same_weights_elsewhere():
    head, _ = make()
    before = head.classifier.weight.detach().clone()
    shuffled = shuffle_classifier(head, 3)
    assert torch.equal(head.classifier.weight, before)
    assert not torch.equal(shuffled.classifier.weight, before)
    assert torch.equal(shuffled.classifier.weight.sort(1).values, before.sort(1).values)
    assert torch.equal(shuffled.classifier.weight, shuffle_classifier(head, 3).classifier.weight)


def test_class_specificity():
    maps = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(class_specificity(maps, 3 * maps + 1), torch.zeros(2, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(class_specificity(maps, -maps), torch.full((2, 3), 2.0))


FUNCTIONS = [set_scores, position_map, differentiable_scores, CODE.scores_by_set]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bad_input(function):
    head, features = make()
    with pytest.raises(ValueError, match="no set of eigenvalues given"):
        function(head, features, [], CLASSES)
    with pytest.raises(ValueError, match=r"band\(3, 3\) is empty|cannot read the set"):
        function(head, features, ["band(3, 3)"], CLASSES)
    with pytest.raises(ValueError, match=r"needs 9 eigenvalues"):
        function(head, features, ["top(9)"], CLASSES)
    with pytest.raises(ValueError, match=r"numbers from 0 to 4.*\[0, 5, 1\]"):
        function(head, features, ["top(3)"], [0, 5, 1])
    with pytest.raises(ValueError, match="numbers from 0 to 4"):
        function(head, features, ["top(3)"], CLASSES, [0, -1, 1])
    with pytest.raises(ValueError, match="2 classes for 3 images"):
        function(head, features, ["top(3)"], [0, 1])
    with pytest.raises(ValueError, match="3 classes against 1"):
        function(head, features, ["top(3)"], CLASSES, [0])
    with pytest.raises(ValueError, match=r"expected features \(B, 10, H, W\).*\(3, 9, 5, 6\)"):
        function(head, features[:, :9], ["top(3)"], CLASSES)
    with pytest.raises(ValueError, match="head is in training mode"):
        function(head.train(), features, ["top(3)"], CLASSES)


@pytest.mark.parametrize("name", ["gap", "bcnn", "cbp", "log", "gaussian", "idccp", "blocks", "gate"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_other_pools_are_refused(function, name):
    head, features = make(name) if name not in ("blocks", "gate") else make()
    if name == "blocks":
        head.pool = create_pool("mpn_cov", 10, reduction=6, blocks=2)
    if name == "gate":
        head.gate = torch.nn.Identity()
    with pytest.raises(ValueError, match="no covariance pool"):
        function(head, features, ["top(3)"], CLASSES)


def test_too_few_positions_for_the_set():
    head, features = make()
    with pytest.raises(ValueError, match=r"bottom\(4\) needs 4 eigenvalues.*at most 3"):
        position_map(head, features[..., :2, :2], [get_eigenvalue_set("bottom(4)")], CLASSES)
