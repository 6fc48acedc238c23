"""Scores against brute force, against scikit-learn, and by hand."""

import itertools
import json
import math

import numpy as np
import pytest
from sklearn.metrics.cluster import expected_mutual_information

from jaxclust.ops import metrics

SHAPES = [(4, 4), (3, 5), (5, 3), (1, 4), (4, 1)]  # classes, clusters


def labellings(classes: int, clusters: int, n: int = 60):
    """Random labels of odd values, half of them in agreement."""
    rng = np.random.default_rng(classes * 10 + clusters)
    true = rng.integers(classes, size=n)
    pred = np.where(rng.random(n) < 0.5, true % clusters, rng.integers(clusters, size=n))
    return true * 3 - 2, pred * 7 + 5


def best_agreement(true, pred) -> float:
    """Accuracy under the best one-to-one matching, by trying them all."""
    classes, clusters = list(np.unique(true)), list(np.unique(pred))
    classes += [None] * (len(clusters) - len(classes))  # a cluster may stay unmatched
    matchings = itertools.permutations(classes, len(clusters))
    return max(sum((true == c)[pred == k].sum() for k, c in zip(clusters, m)) for m in matchings) / len(true)


@pytest.mark.parametrize(("classes", "clusters"), SHAPES)
def test_accuracy_is_the_best_over_all_matchings(classes, clusters):
    true, pred = labellings(classes, clusters)
    assert metrics.accuracy(true, pred) == pytest.approx(best_agreement(true, pred))


@pytest.mark.parametrize(("classes", "clusters"), SHAPES)
def test_match_is_one_to_one_and_attains_the_accuracy(classes, clusters):
    true, pred = labellings(classes, clusters)
    matched = metrics.match(true, pred)
    assert len(matched) == len(set(matched.values())) == min(classes, clusters)
    assert np.mean([matched.get(k) == c for k, c in zip(pred, true)]) == metrics.accuracy(true, pred)


@pytest.mark.parametrize(("classes", "clusters"), SHAPES)
def test_information_scores_follow_their_formulas(classes, clusters):
    true, pred = labellings(classes, clusters)
    joint = metrics.contingency(true, pred) / len(true)
    np.testing.assert_array_equal(
        joint * len(true), [[np.sum((true == c) & (pred == k)) for k in np.unique(pred)] for c in np.unique(true)]
    )
    rows, columns = joint.sum(1), joint.sum(0)
    information = sum(p * math.log(p / (rows[i] * columns[j])) for (i, j), p in np.ndenumerate(joint) if p)
    mean_entropy = -(rows @ np.log(rows) + columns @ np.log(columns)) / 2
    assert metrics.nmi(true, pred) == pytest.approx(information / mean_entropy, abs=1e-9)

    expected = expected_mutual_information(metrics.contingency(true, pred), len(true))
    ami = (information - expected) / (mean_entropy - expected)
    assert metrics.ami(true, pred) == pytest.approx(ami, abs=1e-9)


@pytest.mark.parametrize(("classes", "clusters"), SHAPES)
def test_ari_counts_pairs(classes, clusters):
    true, pred = labellings(classes, clusters)
    pairs = list(itertools.combinations(range(len(true)), 2))
    same_true, same_pred = (np.array([a[i] == a[j] for i, j in pairs]) for a in (true, pred))
    expected = same_true.mean() * same_pred.mean()
    ari = ((same_true & same_pred).mean() - expected) / ((same_true.mean() + same_pred.mean()) / 2 - expected)
    assert metrics.ari(true, pred) == pytest.approx(ari, abs=1e-9)


def test_renamed_clusters_score_one_and_go_into_json():
    true = np.arange(50) % 5
    scores = json.loads(json.dumps(metrics.labelled(true, np.array([9, -4, 0, 33, 2])[true])))
    assert scores == pytest.approx({"acc": 1.0, "nmi": 1.0, "ari": 1.0, "ami": 1.0})


def test_per_cluster_accuracy_by_hand():
    true = np.array([7, 7, 7, 8, 8, 8, 7, 8])
    pred = np.array([0, 0, 0, 0, 2, 2, 3, 3])
    # 0 is matched to 7 and 2 to 8; 1 is empty; 3 has no class left.
    np.testing.assert_array_equal(metrics.per_cluster_accuracy(true, pred, 4), [0.75, np.nan, 1.0, 0.0])


def test_sizes_count_empty_clusters():
    pred = np.array([0, 3, 3, 1])
    np.testing.assert_array_equal(metrics.cluster_sizes(pred, 5), [1, 1, 0, 2, 0])
    assert metrics.used_clusters(pred) == 3


@pytest.mark.parametrize(
    ("sizes", "balance"),
    [([5, 5, 5], 1.0), ([9, 0, 0], 0.0), ([4, 4, 0, 0], 0.5), ([7], 1.0)],
)
def test_balance_entropy_by_hand(sizes, balance):
    assert metrics.balance_entropy(np.array(sizes)) == pytest.approx(balance)


def test_mean_centre_distance_by_hand():
    assert metrics.mean_centre_distance(np.array([[0.0, 0], [3, 4], [0, 4]])) == pytest.approx((5 + 4 + 3) / 3)
    assert math.isnan(metrics.mean_centre_distance(np.zeros((1, 2))))


def test_silhouette_by_hand():
    x, pred = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([0, 0, 1, 1])
    # a is 1 for all; b is 10.5 for the outer two and 9.5 for the inner two.
    assert metrics.silhouette(x, pred) == pytest.approx((9.5 / 10.5 + 8.5 / 9.5) / 2)


def test_silhouette_samples_by_seed():
    rng = np.random.default_rng(0)
    x, pred = rng.normal(size=(300, 2)), rng.integers(3, size=300)
    assert metrics.silhouette(x, pred, sample=50) == metrics.silhouette(x, pred, sample=50, seed=0)
    assert metrics.silhouette(x, pred, sample=50) != metrics.silhouette(x, pred, sample=50, seed=1)


@pytest.mark.parametrize("pred", [[2, 2, 2], [0, 1, 2]], ids=["one cluster", "singletons"])
def test_silhouette_is_nan_where_it_is_not_defined(pred):
    assert math.isnan(metrics.silhouette(np.eye(3), np.array(pred)))


def test_confidence_by_hand():
    assert metrics.confidence(np.array([[0.5, 0.5], [0.1, 0.9]], np.float32)) == pytest.approx(0.7)


@pytest.mark.parametrize("score", [metrics.match, metrics.labelled, metrics.nmi, metrics.ari, metrics.ami])
@pytest.mark.parametrize(("true", "pred"), [([], []), ([0, 1], [0, 1, 1])])
def test_bad_lengths_are_named(score, true, pred):
    with pytest.raises(ValueError, match=f"labels_true and labels_pred have {len(true)} and {len(pred)} rows"):
        score(np.array(true, int), np.array(pred, int))


@pytest.mark.parametrize("pred", [[0, 4], [-1, 0]])
def test_clusters_out_of_range_are_named(pred):
    with pytest.raises(ValueError, match=rf"labels_pred runs {min(pred)}..{max(pred)}; with clusters 4 give 0..3"):
        metrics.cluster_sizes(np.array(pred), 4)


def test_empty_clusters_have_no_balance():
    with pytest.raises(ValueError, match="the 3 clusters have no members"):
        metrics.balance_entropy(np.zeros(3, int))


@pytest.mark.parametrize("clusters", [5, 300, 70_000])
def test_members_are_the_rows_of_each_cluster(clusters):
    labels = np.random.default_rng(0).integers(0, clusters, 1000)
    found = metrics.members(labels, clusters)
    assert len(found) == clusters
    for k in np.unique(labels):
        np.testing.assert_array_equal(found[k], np.flatnonzero(labels == k))
    assert sum(map(len, found)) == 1000


@pytest.mark.parametrize(("n", "classes", "clusters", "skew"), [(3000, 40, 60, 0), (5000, 7, 300, 2), (2000, 3, 2, 4)])
def test_chance_is_scikit_learns_where_it_is_worked_out_here(n, classes, clusters, skew, monkeypatch):
    rng = np.random.default_rng(0)
    a, b = (rng.choice(k, n, p=rng.dirichlet(np.ones(k) / (1 + skew))) for k in (classes, clusters))
    b[: n // 3] = a[: n // 3] % clusters
    counts = metrics.contingency(a, b)
    theirs = expected_mutual_information(counts, n)
    assert metrics.expected_mutual_information(counts.sum(1), counts.sum(0)) == pytest.approx(theirs, rel=1e-9)
    before = metrics.ami(a, b)
    monkeypatch.setattr(metrics, "PAIRS", 0)
    assert metrics.ami(a, b) == pytest.approx(before, rel=1e-9)
