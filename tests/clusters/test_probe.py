"""The linear probe: the published optimizer, and nothing learnt from the images it is tested on."""

import jax
import numpy as np
import pytest

from jaxclust.clusters import probe
from jaxclust.data import Source
from jaxclust.run.errors import ConfigError

N, D, C, HELD_OUT = 300, 5, 3, 50


@pytest.fixture
def separable():
    """Features f32[N, D] and the classes that three planes through the origin cut them into, with a margin."""
    rng = np.random.default_rng(0)
    x, planes = rng.normal(size=(4 * N, D)), rng.normal(size=(D, C))
    scores = np.sort(x @ planes, axis=1)
    clear = np.flatnonzero(scores[:, -1] - scores[:, -2] > 0.5)[:N]
    return x[clear].astype(np.float32), np.argmax(x[clear] @ planes, axis=1)


def test_fit_takes_the_published_steps(separable):
    """Against SGD written out in float64 on the same order of batches."""
    x, y = separable
    key = jax.random.key(1)
    orders = np.asarray(jax.vmap(lambda k: jax.random.permutation(k, N))(jax.random.split(key, 100)))
    w, total, taken = np.zeros((D + 1, C)), np.zeros((D + 1, C)), 0  # the bias is the weight of a constant feature
    for order in orders:
        for rows in (order[:128], order[128:256]):  # 300 images are two batches, and 44 that are left out
            features = np.concatenate([x[rows], np.ones((128, 1))], axis=1)
            p = np.exp(features @ w)
            p /= p.sum(axis=1, keepdims=True)
            gradient = features.T @ (p - np.eye(C)[y[rows]]) / 128 + 1e-5 * w
            total = gradient + 0.9 * total
            w -= 0.1 * (1 + np.cos(np.pi * taken / 200)) / 2 * total
            taken += 1
    weights, bias = probe.fit(key, x, y, C)
    np.testing.assert_allclose(weights, w[:-1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(bias, w[-1], rtol=1e-3, atol=1e-4)


def test_a_linearly_separable_labelling_is_recovered(separable):
    x, labels = separable
    names = np.array([30, 10, 20])[labels]  # classes may have any numbers
    scores = probe.score(x, names, HELD_OUT, seed=0)
    assert scores["accuracy"] > 0.95
    assert scores["train_accuracy"] > 0.98
    assert scores == probe.score(x, names, HELD_OUT, seed=0)


def test_what_is_held_out_is_scored_and_not_learnt_from(separable):
    x, labels = separable
    scores = probe.score(x, labels, HELD_OUT, seed=0)
    wrong = labels.copy()
    wrong[-HELD_OUT:] = (labels[-HELD_OUT:] + 1) % C
    misled = probe.score(x, wrong, HELD_OUT, seed=0)
    assert misled["train_accuracy"] == scores["train_accuracy"]
    assert misled["accuracy"] <= 1 - scores["accuracy"]
    noise = x.copy()
    noise[-HELD_OUT:] = 0
    assert probe.score(noise, labels, HELD_OUT, seed=0)["train_accuracy"] == scores["train_accuracy"]


def test_labels_that_features_do_not_hold_are_not_found():
    rng = np.random.default_rng(0)
    scores = probe.score(rng.normal(size=(900, D)).astype(np.float32), rng.integers(0, C, 900), 600, seed=0)
    assert scores["accuracy"] == pytest.approx(1 / C, abs=0.08)


@pytest.mark.parametrize("held_out", [0, 10])
def test_a_probe_needs_images_to_train_and_to_test_on(held_out):
    source = Source(np.zeros((10, 2, 2, 1), np.uint8), np.zeros(10, np.int32))
    with pytest.raises(ConfigError, match=f"eval.held_out is {held_out}; .* at least 1 and at most 9"):
        probe.check(source, held_out)
    for fine in (1, 9):
        probe.check(source, fine)


def test_a_probe_needs_every_class_among_the_images_it_trains_on():
    source = Source(np.zeros((9, 2, 2, 1), np.uint8), np.repeat(np.arange(3), 3))
    probe.check(source, 2)
    with pytest.raises(ConfigError, match="class 2 is only among the last 3 images"):
        probe.check(source, 3)


def test_a_probe_needs_labels():
    with pytest.raises(ConfigError, match="needs labels"):
        probe.check(Source(np.zeros((10, 2, 2, 1), np.uint8), None), 2)
