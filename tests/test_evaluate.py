"""Scores: complete with labels, meaningful without them, and blind to the order of the clusters."""

import json

import numpy as np
import pytest

from jaxclust import evaluate
from jaxclust.data import Source
from jaxclust.files import write_json
from jaxclust.types import Prediction

N, K = 60, 3


@pytest.fixture
def blobs():
    """Three well-separated groups: a prediction that finds them, and the source with its labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(K, dtype=np.int32), N // K)
    x = 10 * np.eye(K)[labels] + rng.normal(size=(N, K)) * 0.1
    q = np.roll(np.eye(K), 1, axis=1)[labels] * 0.8 + 0.2 / K  # cluster names are not class names
    images = (20 * x.clip(0, 12)).astype(np.uint8)[:, None, :, None]
    return Prediction(q.astype(np.float32), {"backbone": x.astype(np.float32)}), Source(images, labels)


def test_a_perfect_clustering_scores_one_everywhere(blobs):
    scores = evaluate.score(*blobs, clusters=K, seed=0, restarts=3)
    assert list(scores) == ["cluster", "kmeans_backbone", "kmeans_pixels"]
    for row in scores.values():
        for name in ("acc", "nmi", "ari", "ami", "size_entropy"):
            assert row[name] == pytest.approx(1)
        assert row["used_clusters"] == K
        assert row["sizes"] == [20, 20, 20]
        assert row["per_cluster_accuracy"] == [1, 1, 1]
        assert row["silhouette"] > 0.9
    assert scores["cluster"]["confidence"] == pytest.approx(0.8 + 0.2 / K)
    assert scores["cluster"]["centre_distance"] == pytest.approx(10 * np.sqrt(2), rel=0.01)


def test_without_labels_everything_else_is_still_there(blobs):
    prediction, source = blobs
    full = evaluate.score(prediction, source, clusters=K, seed=0, restarts=3)
    scores = evaluate.score(prediction, source._replace(labels=None), clusters=K, seed=0, restarts=3)
    with_labels = {"acc", "nmi", "ari", "ami", "per_cluster_accuracy"}
    for name, row in scores.items():
        assert row == {k: v for k, v in full[name].items() if k not in with_labels}
    assert "acc" not in evaluate.table(scores)


def test_a_collapsed_clustering_is_scored_and_written(blobs, tmp_path):
    prediction, source = blobs
    q = np.zeros_like(prediction.q)
    q[:, 1] = 1
    scores = evaluate.score(prediction._replace(q=q), source, clusters=K, seed=0, restarts=3)
    assert scores["cluster"]["used_clusters"] == 1
    assert scores["cluster"]["acc"] == pytest.approx(1 / K)
    write_json(tmp_path / "scores.json", scores)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["cluster"]["silhouette"] is None  # not a number: one cluster has no other to be far from
    assert written["cluster"]["per_cluster_accuracy"] == [None, pytest.approx(1 / K), None]
    assert "nan" in evaluate.table(scores)
