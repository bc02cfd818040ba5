"""Probes: scikit-learn's own checks, closed forms, and independent fits."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from trees import make_folder

from gcplib import create_backbone
from gcplib.decoding import decode
from gcplib.probe import AttentionPool, LinearProbe, TrainedProbe
from gcplib.probe.base import held_out, search


@parametrize_with_checks([LinearProbe(), TrainedProbe(epochs=15, least_steps=0, rates=(1e-2, 1e-1))])
def test_it_is_an_estimator(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def maps():
    """Classes of equal means and other covariances: only second order tells them apart."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(120, 12, 6, 6, generator=generator)
    y = np.arange(120) % 3
    mixing = torch.randn(3, 12, 12, generator=generator)
    return torch.einsum("nkc,nchw->nkhw", mixing[y], X), np.array(["a", "b", "c"])[y]


def test_second_order_tells_classes_of_equal_means_apart(maps):
    X, y = maps
    first, second = (LinearProbe(pool, width=None).fit(X[:90], y[:90]).score(X[90:], y[90:]) for pool in ("gap", "cov"))
    assert second == 1
    assert first < 0.7


@pytest.mark.parametrize("probe", [LinearProbe("cov"), TrainedProbe(epochs=2, least_steps=0)])
def test_maps_tokens_arrays_and_tensors_are_the_same(maps, probe):
    X, y = maps
    tokens = X.flatten(2).transpose(1, 2)
    want = clone(probe).fit(X, y).predict_proba(X)
    for other in (X.numpy(), tokens, tokens.contiguous().numpy()):
        np.testing.assert_allclose(clone(probe).fit(other, y).predict_proba(other), want, atol=1e-3)


def test_a_weak_penalty_is_fitted_to_the_end():
    # From a stronger one's solution a looser tolerance stops at once, and both would seem equally good.
    X, y = load_digits(return_X_y=True)
    X, V, y, labels = X[:500].astype(np.float32), X[500:700].astype(np.float32), y[:500], y[500:700]
    probe = LinearProbe(C=[0.1, 1.0, 10.0]).fit(X, y, validation=(V, labels))
    rows, more = ((part - probe.mean_.numpy()) / probe.scale_ for part in (X, V))
    cold = LogisticRegression(C=1.0, max_iter=10_000, tol=1e-8).fit(rows.astype(float), y)
    want = log_loss(labels, cold.predict_proba(more.astype(float)))
    assert -dict(probe.search_)[1.0][1] == pytest.approx(want, rel=0.003)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 20])
def test_a_training_of_few_steps_is_a_training(maps, steps):
    X, y = maps
    TrainedProbe(epochs=steps, least_steps=0, rates=[1e-3]).fit(X[:30], y[:30]).predict(X[:3])


def test_the_regression_is_scikit_learns_whether_rotated_or_not():
    X, y = load_digits(return_X_y=True)
    few = np.random.default_rng(0).permutation(len(X))[:50]
    for places in (few, slice(None)):  # 64 entries: more than images, and fewer
        V, labels = X[places].astype(np.float32), y[places]
        probe = LinearProbe(C=[1e-2]).fit(V, labels)
        mean, scale = np.asarray(probe.mean_), probe.scale_
        want = LogisticRegression(C=probe.C_, max_iter=2000, tol=1e-6).fit((V - mean) / scale, labels)
        got, expected = probe.predict_proba(V), want.predict_proba((V - mean) / scale)
        np.testing.assert_allclose(got, expected, atol=0.02)


def test_projected_channels_are_the_principal_ones(maps):
    X, y = maps
    probe = LinearProbe("cov", width=5).fit(X, y)
    assert probe.vectors(X).shape == (120, 15)
    flat = X.transpose(0, 1).flatten(1)
    kept = torch.linalg.eigvalsh(torch.cov(probe.directions_ @ flat)).sum()
    assert kept >= 0.97 * torch.linalg.eigvalsh(torch.cov(flat))[-5:].sum()  # it saw nine tenths of the images


def test_a_search_goes_on_beyond_the_end_of_its_list():
    best, tried, at_end = search([1, 10], lambda value: -abs(np.log10(value) - 3))
    assert (best, at_end) == (1000, False)
    assert [value for value, _ in tried] == [1, 10, 100, 1000, 10000]
    assert search([1, 10], lambda value: value)[2]  # no end in sight is said
    assert search([1, 10, 100], lambda value: 0.5)[2]


def test_every_class_is_held_out_and_none_is_lost():
    codes = np.repeat([0, 1, 2], [50, 30, 4])
    inner, outer = held_out(codes, 0.1, seed=0)
    assert sorted([*inner, *outer]) == list(range(84))
    assert set(codes[inner]) == set(codes[outer]) == {0, 1, 2}
    assert not np.array_equal(outer, held_out(codes, 0.1, seed=1)[1])


def test_given_validation_images_choose_and_are_refitted_to(maps):
    X, y = maps
    probe = LinearProbe("cov").fit(X[:60], y[:60], validation=(X[60:90], y[60:90]))
    assert probe.score(X[90:], y[90:]) == 1
    with pytest.raises(ValueError, match=r"validation images are of classes that training has not: \['z'\]"):
        LinearProbe("cov").fit(X[:60], y[:60], validation=(X[60:90], np.array(["z"] * 30)))


def test_attention_finds_the_place_that_matters():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(200, 8, 4, 4, generator=generator)
    y = torch.arange(200) % 2
    X[torch.arange(200), 0, y * 2, y] += 9  # a mark,
    X[torch.arange(200), 1, y * 2, y] = 6.0 * y - 3  # and beside it what it says
    probe = TrainedProbe(epochs=15, least_steps=0).fit(X[:150], y[:150])
    assert probe.score(X[150:], y[150:]) > 0.95
    with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
        AttentionPool(8, heads=3)


def test_a_trained_probe_repeats_itself_and_leaves_the_callers_generator(maps):
    X, y = maps
    state = torch.get_rng_state()
    first, second, other = (
        TrainedProbe(epochs=2, least_steps=0, seed=seed).fit(X, y).decision_function(X) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3
    assert torch.equal(torch.get_rng_state(), state)


def test_pipelines_and_parameters(maps):
    X, y = maps
    pipeline = make_pipeline(FunctionTransformer(lambda features: features * 2), LinearProbe("cov", width=None))
    assert pipeline.fit(X.numpy(), y).score(X.numpy(), y) == 1
    assert pipeline.set_params(linearprobe__pool="gap")[-1].get_params()["pool"] == "gap"


def test_paths_of_pictures_go_through_a_network(tmp_path):
    make_folder(tmp_path, {"a": 4, "b": 4})
    paths = sorted(tmp_path.rglob("*.png"))
    y = [path.parent.name for path in paths]
    probe = LinearProbe("gap", pixels=64).fit(paths, y)
    network = create_backbone(pixels=64).eval()
    with torch.no_grad():
        features = network(network.prepare(np.stack([decode(path, 64, "shorter") for path in paths])))
    np.testing.assert_allclose(probe.decision_function(paths), probe.decision_function(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("probe", "X", "message"),
    [
        (LinearProbe("moment_probing", width=None), torch.randn(8, 64, 3, 3), "has weights of its own; a TrainedProbe"),
        (LinearProbe("mpn"), torch.randn(8, 4, 3, 3), "unknown pool 'mpn'"),
        (LinearProbe(), torch.full((8, 4, 3, 3), torch.nan), "values that are not finite, in its rows 0 to 7"),
        (
            LinearProbe(validation=1.5),
            torch.randn(8, 4, 3, 3),
            "validation is 1.5; give a fraction above 0 and below 1",
        ),
    ],
)
def test_bad_input_is_named(probe, X, message):
    with pytest.raises(ValueError, match=message):
        probe.fit(X, [0, 1] * 4)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (LinearProbe(width=0), "width must be a positive integer, got 0"),
        (LinearProbe(width=3.5), "width must be a positive integer, got 3.5"),
        (LinearProbe(C=()), "positive numbers, at least one"),
        (TrainedProbe(rates=(0, 1)), "positive numbers, at least one"),
    ],
)
def test_settings_out_of_range_are_named(probe, message, maps):
    with pytest.raises(ValueError, match=message):
        probe.fit(*maps)


@pytest.mark.parametrize("probe", [LinearProbe("cov"), TrainedProbe(epochs=1, least_steps=0)])
def test_classes_must_be_one_for_each_image(probe, maps):
    X, y = maps
    with pytest.raises(ValueError, match="115 images, but 120 classes"):
        probe.fit(X[:115], y)
    with pytest.raises(ValueError, match="30 images, but 29 classes"):
        probe.fit(X[30:], y[30:], validation=(X[:30], y[:29]))
    with pytest.raises(ValueError, match=r"have shape \(12, 5, 6\), those of training \(12, 6, 6\)"):
        probe.fit(X[30:], y[30:], validation=(X[:30, :, 1:], y[:30]))


def test_features_may_need_gradients_and_one_strength_may_be_given(maps):
    X, y = maps
    want = LinearProbe("cov", C=(1.0,)).fit(X, y).predict_proba(X)
    found = LinearProbe("cov", C=1.0).fit(X.clone().requires_grad_(), y).predict_proba(X.clone().requires_grad_())
    np.testing.assert_array_equal(found, want)
    tokens = X.flatten(2).transpose(1, 2)
    assert LinearProbe("cov").fit(tokens.numpy(), y).n_features_in_ == 12
    vectors = X.mean((2, 3)).bfloat16().requires_grad_()
    assert LinearProbe("gap").fit(vectors, y).predict(vectors).shape == y.shape


def test_other_channels_than_it_was_fitted_to(maps):
    X, y = maps
    with pytest.raises(ValueError, match="X has 11 channels, but LinearProbe was fitted with 12"):
        LinearProbe("cov").fit(X, y).predict(X[:, :11])
