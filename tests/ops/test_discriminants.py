"""Linear discriminants against scikit-learn's, and the nearest mean among them."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from jaxclust.ops import discriminants
from jaxclust.ops.discriminants import closeness, fisher, means, unit


def heaps(k: int = 3, n: int = 300, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Points of length one around k directions, f32[n, width], and the heap of each."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % k
    return unit(rng.normal(size=(k, width))[labels] + 0.3 * rng.normal(size=(n, width))).astype(np.float32), labels


def test_means_are_those_of_the_members():
    x, labels = heaps()
    want = np.stack([x[labels == c].mean(axis=0) for c in range(3)])
    np.testing.assert_allclose(means(x, labels, 3), want, atol=1e-6)
    assert not means(x, labels, 5)[3:].any()


def test_directions_without_shrinkage_are_scikit_learns(monkeypatch):
    monkeypatch.setattr(discriminants, "SHRINKAGE", 0)
    x, labels = heaps()
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(x, labels).scalings_[:, :2]
    ours = fisher(x, labels, 3).directions
    cosine = np.abs((unit(ours.T) * unit(theirs.T)).sum(axis=1))
    np.testing.assert_allclose(cosine, 1, atol=1e-4)


def test_the_closest_cluster_is_that_of_the_nearest_mean():
    x, labels = heaps(k=5)
    among = fisher(x, labels, 5)
    u = unit(x @ among.directions)
    distance = ((u[:, None] - among.means) ** 2).sum(axis=2)
    near = closeness(among, x)
    np.testing.assert_allclose((u**2).sum(axis=1)[:, None] / 2 - near, distance / 2, atol=1e-5)
    assert (near.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.parametrize("k", [1, 2, 9])
def test_there_are_as_many_directions_as_tell_the_clusters_apart(k):
    x, _ = heaps()
    among = fisher(x, np.arange(len(x)) % k, k)
    assert among.directions.shape == (6, min(k - 1, 6))
    assert closeness(among, x).shape == (len(x), k)


def test_clusters_of_copies_have_discriminants():
    x = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    labels = np.repeat(np.arange(4), 5)
    np.testing.assert_array_equal(closeness(fisher(x, labels, 4), x).argmax(axis=1), labels)
