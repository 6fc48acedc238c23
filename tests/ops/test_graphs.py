"""Graphs of neighbours against slow oracles, and communities of made graphs."""

import numpy as np
import pytest
from scipy import sparse

from jaxclust.ops import graphs


def directions(n: int, width: int = 6, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def nearest_by_sorting(x: np.ndarray, k: int) -> np.ndarray:
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(("n", "k"), [(2, 1), (7, 6), (300, 1), (300, 15), (1501, 4)])
def test_neighbours_are_those_of_sorting_all_pairs(n, k, monkeypatch):
    monkeypatch.setattr(graphs, "BLOCK", 1000 * n)
    x = np.round(8 * directions(n)) / 8  # similarities are exact, so that many are equal
    np.testing.assert_array_equal(graphs.neighbours(x, k), nearest_by_sorting(x, k))


def test_copies_of_a_point_are_each_others_neighbours():
    x = directions(400)
    x[100:] = x[0]
    np.testing.assert_array_equal(graphs.neighbours(x, 5), nearest_by_sorting(x, 5))


def test_more_neighbours_than_other_points_are_refused():
    with pytest.raises(ValueError, match="neighbours is 4, of 4 points; give 1 to 3"):
        graphs.neighbours(directions(4), 4)


def test_a_search_for_neighbours_can_be_stopped(monkeypatch):
    monkeypatch.setattr(graphs, "BLOCK", 100)
    asked = []

    def held():
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        graphs.neighbours(directions(100), 2, held)


def test_edges_are_weighted_by_the_jaccard_index_of_the_neighbourhoods(monkeypatch):
    monkeypatch.setattr(graphs, "BLOCK", 1000)
    nearest = graphs.neighbours(directions(40), 5)
    sets = [{i, *row} for i, row in enumerate(nearest.tolist())]
    want = np.zeros((40, 40))
    for i in range(40):
        for j in nearest[i]:
            want[i, j] = want[j, i] = len(sets[i] & sets[j]) / len(sets[i] | sets[j])
    np.testing.assert_allclose(graphs.jaccard(nearest).toarray(), want, rtol=1e-6)
    np.testing.assert_array_equal(graphs.union(nearest).toarray(), want > 0)


def test_the_majority_is_counted_with_oneself_and_ties_keep_ones_own():
    labels = np.array([0, 0, 1, 1, 2])
    nearest = np.array([[1, 2], [2, 3], [0, 1], [2, 4], [0, 2]])
    np.testing.assert_array_equal(graphs.majority(labels, nearest), [0, 1, 0, 1, 2])


def test_modularity_is_that_of_its_definition():
    graph = graphs.jaccard(graphs.neighbours(directions(30), 4))
    labels = np.arange(30) % 4
    a = graph.toarray().astype(np.float64)
    degree = a.sum(axis=1)
    same = labels[:, None] == labels
    want = ((a - np.outer(degree, degree) / a.sum()) * same).sum() / a.sum()
    assert graphs.modularity(graph, labels) == pytest.approx(want, abs=1e-6)
    assert graphs.modularity(graph, np.zeros(30, int)) == pytest.approx(0, abs=1e-6)


def test_cliques_are_communities_and_a_high_resolution_takes_them_apart():
    clique = np.ones((6, 6)) - np.eye(6)
    a = np.kron(np.eye(4), clique)
    a[0, 6] = a[6, 0] = 1
    graph = sparse.csr_array(a.astype(np.float32))
    found = graphs.communities(graph, 1.0, seed=0)
    assert [len(set(found[i : i + 6])) for i in range(0, 24, 6)] == [1, 1, 1, 1]
    assert len(set(found)) == 4
    assert len(set(graphs.communities(graph, 100.0, seed=0))) == 24


def test_communities_of_one_seed_are_always_the_same():
    graph = graphs.jaccard(graphs.neighbours(directions(300), 8))
    first = graphs.communities(graph, 1.0, seed=3)
    for _ in range(3):
        np.testing.assert_array_equal(graphs.communities(graph, 1.0, seed=3), first)
