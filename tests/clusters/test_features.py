"""Clusters of features: made heaps are found and counted, new images join them, and odd piles get a right answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster

from jaxclust.clusters import features
from jaxclust.ops.metrics import ari
from jaxclust.run.errors import ConfigError
from jaxclust.run.preemption import Preempted


def heaps(sizes: list[int], width: int = 32, spread: float = 0.15, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features above zero around one direction for each size, f32[N, width], shuffled, and the heap of each."""
    rng = np.random.default_rng(seed)
    centres = np.abs(rng.normal(size=(len(sizes), width)))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = np.abs(centres[labels] + spread * rng.normal(size=(len(labels), width)))
    return x.astype(np.float32), labels


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(features, "SAMPLES", 2)


@pytest.mark.parametrize("sizes", [[60] * 3, [50] * 8, [100, 60, 40]], ids=str)
def test_heaps_are_counted_and_found(sizes):
    x, labels = heaps(sizes)
    model, found = features.fit(x, None, seed=0)
    assert len(model.among.means) == len(sizes)
    assert ari(labels, found.labels) == 1
    assert not found.leftovers.any()
    assert np.bincount(found.labels).tolist() == sizes  # the largest first


@pytest.mark.parametrize("k", [1, 2, 7, 120, 200])
def test_a_given_number_of_clusters_is_kept(k):
    x, _ = heaps([50] * 4)
    model, found = features.fit(x, k, seed=0)
    assert len(np.unique(found.labels)) == len(model.among.means) == k
    assert found.probabilities.shape == (200, k)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_new_images_join_the_heaps_and_what_was_said_of_the_old_ones_stays():
    x, labels = heaps([80] * 5)
    model, found = features.fit(x[:200], None, seed=0)
    cluster_of = {label: found.labels[labels[:200] == label][0] for label in range(5)}
    new = features.predict(model, x[200:])
    np.testing.assert_array_equal(new.labels, [cluster_of[label] for label in labels[200:]])
    np.testing.assert_array_equal(features.predict(model, x[:200]).labels, found.labels)
    alone = features.predict(model, x[:1])
    np.testing.assert_allclose(alone.probabilities, found.probabilities[:1], atol=1e-5)
    assert features.predict(model, x[:0]).probabilities.shape == (0, 5)


def test_the_same_is_said_by_a_compiled_function_of_the_model():
    x, _ = heaps([40] * 4)
    model, found = features.fit(x, None, seed=0)
    q = jax.jit(lambda model, x: features.posterior(model, x, jnp))(model, x)
    np.testing.assert_allclose(q, found.probabilities, atol=1e-4)


def test_equal_arguments_give_equal_clusters_and_the_order_of_images_does_not_matter():
    x, _ = heaps([60] * 4, spread=0.6)
    first, again = features.fit(x, None, seed=1), features.fit(x, None, seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    backwards = features.fit(x[::-1], None, seed=1)
    np.testing.assert_array_equal(backwards[1].labels[::-1], first[1].labels)


def test_leftovers_are_images_that_lie_between_clusters():
    x, labels = heaps([150] * 4, spread=1.0)
    found = features.fit(x, 4, seed=0)[1]
    assert 0.01 < found.leftovers.mean() < 0.3
    right = np.array([np.bincount(labels[found.labels == c]).argmax() for c in range(4)])[found.labels] == labels
    assert right[found.leftovers].mean() < right[~found.leftovers].mean() - 0.1


def test_probabilities_are_those_with_which_neighbours_share_a_cluster():
    x, _ = heaps([150] * 4, spread=1.0)
    found = features.fit(x, 4, seed=0)[1]
    assert 0.5 < found.probabilities.max(axis=1).mean() < 0.98  # and not 1, though each is nearest to its own mean


def test_copies_count_once():
    x, _ = heaps([60] * 3)
    plain = features.fit(x, None, seed=0)[0]
    model, found = features.fit(np.concatenate([x, np.repeat(x[:1], 500, axis=0)]), None, seed=0)
    assert len(model.among.means) == len(plain.among.means) == 3
    assert (found.labels[180:] == found.labels[0]).all()


def test_the_tree_joins_the_halves_of_a_heap_first():
    x, labels = heaps([40] * 3)
    apart = 0.4 * np.abs(np.random.default_rng(1).normal(size=(3, 32)))[labels]
    model, found = features.fit(np.concatenate([x, x + apart]), 6, seed=0)
    assert model.tree.shape == (5, 4)
    three = fcluster(model.tree.astype(np.float64), 3, "maxclust")
    assert ari(np.concatenate([labels, labels]), three[found.labels]) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_few_images_are_one_cluster_or_as_many_as_are_asked_for(n):
    x, _ = heaps([n])
    assert len(features.fit(x, None, seed=0)[0].among.means) == 1
    assert sorted(features.fit(x, n, seed=0)[1].labels) == list(range(n))


@pytest.mark.parametrize(
    "x", [np.ones((300, 8)), np.zeros((50, 8)), 1 + 1e-7 * heaps([300])[0]], ids=["1", "0", "near"]
)
@pytest.mark.parametrize("k", [None, 3])
def test_images_that_are_all_the_same_are_one_cluster(x, k):
    model, found = features.fit(x, k, seed=0)
    assert len(model.among.means) == 1
    assert not found.leftovers.any()


def test_blank_images_among_others_are_no_fault():
    x, labels = heaps([60] * 3)
    x[:20] = 0
    found = features.fit(x, None, seed=0)[1]
    assert np.isfinite(found.probabilities).all()
    assert ari(labels[20:], found.labels[20:]) == 1


@pytest.mark.parametrize(
    ("x", "k", "sentence"),
    [
        (np.zeros(8), None, r"features have shape \(8,\); give a table"),
        (np.zeros((0, 8)), None, r"features have shape \(0, 8\); give a table"),
        (np.array([[0, 1], [np.nan, 0], [np.inf, 1]]), None, "the features of 2 of 3 images are not finite"),
        (np.eye(3), 0, "clusters is 0; it must be at least 1"),
        (np.eye(3), 4, "clusters is 4 but there are only 3 images"),
    ],
)
def test_what_cannot_be_clustered_is_refused(x, k, sentence):
    with pytest.raises(ConfigError, match=sentence):
        features.fit(x, k, seed=0)


def test_a_fit_stops_when_it_is_due():
    asked = iter([False, False, True])
    with pytest.raises(Preempted):
        features.fit(heaps([60] * 3)[0], None, seed=0, due=lambda: next(asked))
