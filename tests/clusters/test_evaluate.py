"""Scores: complete with labels, meaningful without them, and blind to the order of the clusters."""

import json

import jax
import numpy as np
import pytest
from conftest import METHODS, config_of

from jaxclust.clusters import embed, evaluate
from jaxclust.commands.work.evaluate import run_evaluation
from jaxclust.data import Source
from jaxclust.ops import assignment, metrics
from jaxclust.run.files import write_json
from jaxclust.types import Prediction, State

N, K = 60, 3


@pytest.fixture
def blobs():
    """Three well-separated groups: a prediction that finds them, and the source with its labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(K, dtype=np.int32), N // K)
    x = 10 * np.eye(K)[labels] + rng.normal(size=(N, K)) * 0.1
    q = np.roll(np.eye(K), 1, axis=1)[labels] * 0.8 + 0.2 / K  # cluster names are not class names
    images = (20 * x.clip(0, 12)).astype(np.uint8)[:, None, :, None]
    return Prediction(q.astype(np.float32), {"backbone": x.astype(np.float32)}), "backbone", Source(images, labels)


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
    prediction, space, source = blobs
    full = evaluate.score(prediction, space, source, clusters=K, seed=0, restarts=3)
    scores = evaluate.score(prediction, space, source._replace(labels=None), clusters=K, seed=0, restarts=3)
    with_labels = {"acc", "nmi", "ari", "ami", "per_cluster_accuracy"}
    for name, row in scores.items():
        assert row == {k: v for k, v in full[name].items() if k not in with_labels}
    assert "acc" not in evaluate.table(scores, scores)


def test_a_collapsed_clustering_is_scored_and_written(blobs, tmp_path):
    prediction, space, source = blobs
    q = np.zeros_like(prediction.q)
    q[:, 1] = 1
    scores = evaluate.score(prediction._replace(q=q), space, source, clusters=K, seed=0, restarts=3)
    assert scores["cluster"]["used_clusters"] == 1
    assert scores["cluster"]["acc"] == pytest.approx(1 / K)
    write_json(tmp_path / "scores.json", scores)
    written = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert written["cluster"]["silhouette"] is None  # not a number: one cluster has no other to be far from
    assert written["cluster"]["per_cluster_accuracy"] == [None, pytest.approx(1 / K), None]
    assert "nan" in evaluate.table(scores, {})


def test_a_method_without_clusters_of_its_own_is_scored_by_k_means_alone(blobs):
    prediction, space, source = blobs
    scores = evaluate.score(prediction._replace(q=None), space, source, clusters=K, seed=0, restarts=3)
    full = evaluate.score(prediction, space, source, clusters=K, seed=0, restarts=3)
    assert scores == {name: row for name, row in full.items() if name != "cluster"}
    assert "cluster " not in evaluate.table(scores, {})


def test_the_table_shows_the_papers_rows_under_their_own_heading(blobs):
    scores = evaluate.score(*blobs, clusters=K, seed=0, restarts=3)
    common = evaluate.table(scores, {})
    assert "as the paper evaluates" not in common
    lines = evaluate.table(scores, {"representation": scores["kmeans_backbone"]}).splitlines()
    assert lines[:-2] == common.splitlines()
    assert lines[-2] == "as the paper evaluates"
    name, *cells = lines[-1].split()
    (row,) = (line for line in lines if line.startswith("kmeans_backbone"))
    assert (name, cells) == ("representation", row.split()[1:])


@pytest.mark.parametrize(
    ("paper_view", "sweeps", "runs"),
    [("plain", ["plain"], 2), ("strong", ["plain", "strong"], 3)],
)
def test_the_paper_scores_are_those_of_its_own_view(paper_view, sweeps, runs, small_run, tmp_path, monkeypatch):
    """With a method without clusters whose features are the view itself; nothing is computed twice."""
    run = small_run(config_of("anchor"), tmp_path, overrides={"eval.paper_view": paper_view})
    method = run.plan.method._replace(
        predict=lambda params, stats, shown, x: Prediction(None, {"flat": x.reshape(len(x), -1)}),
        space="flat",
        reported={"features": "kmeans_flat", "the same again": "kmeans_flat"},
    )
    run = run._replace(plan=run.plan._replace(method=method))
    state = State(np.int32(0), jax.random.key(0), {}, {}, (), {})
    swept, fitted = [], []
    sweep, kmeans = embed.train_split, assignment.kmeans
    monkeypatch.setattr(embed, "train_split", lambda *args: swept.append((args[2], sweep(*args))) or swept[-1][1])
    monkeypatch.setattr(assignment, "kmeans", lambda *args, **kw: fitted.append(args) or kmeans(*args, **kw))
    run_evaluation(run, state)
    assert [view for view, _ in swept] == [run.plan.views[name] for name in sweeps]
    assert len(fitted) == runs

    scores = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert list(scores) == ["step", "seed", "kmeans_flat", "kmeans_pixels", "paper"]
    for row, (_, prediction) in ((scores["kmeans_flat"], swept[0]), (scores["paper"]["features"], swept[-1])):
        labels = np.asarray(kmeans(jax.random.key(0), prediction.embeddings["flat"], 4, restarts=1).labels)
        assert row["sizes"] == np.bincount(labels, minlength=4).tolist()
        assert row["nmi"] == pytest.approx(metrics.nmi(run.sources["train"].labels, labels))
    assert (scores["paper"]["features"] == scores["kmeans_flat"]) == (paper_view == "plain")
    assert scores["paper"]["the same again"] == scores["paper"]["features"]


def test_large_images_are_averaged_before_k_means_sees_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (300, 70, 64, 3), dtype=np.uint8)
    wanted = images[:, :69].reshape(300, 23, 3, 32, 2, 3).mean((2, 4)).reshape(300, -1) / 255
    np.testing.assert_allclose(evaluate.pixels(images), wanted, atol=1e-6)
    np.testing.assert_array_equal(
        evaluate.pixels(images[:, :32, :8]), images[:, :32, :8].reshape(300, -1) / np.float32(255)
    )


def test_of_very_many_images_an_even_selection_stands_for_all(blobs, monkeypatch):
    prediction, space, source = blobs
    monkeypatch.setattr(evaluate, "FITTED", 25)
    monkeypatch.setattr(evaluate, "MEMBERS", 1)
    row = evaluate.row("kmeans_pixels", prediction, space, source, clusters=K, seed=0, restarts=3)
    assert sorted(row["sizes"]) == [6, 7, 7]  # every third of sixty
    assert row["acc"] == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_method_reports_rows_that_its_prediction_has(method, small_run, tmp_path):
    run = small_run(config_of(method), tmp_path)
    size, channels = run.config.data.size, run.sources["train"].images.shape[-1]
    x = jax.ShapeDtypeStruct((2, size, size, channels), np.float32)
    prediction = jax.eval_shape(run.plan.method.predict, run.like.params, run.like.stats, {}, x)
    rows = {f"kmeans_{name}" for name in prediction.embeddings} | ({"cluster"} if prediction.q is not None else set())
    assert set(run.plan.method.reported.values()) <= rows


def test_of_many_images_k_means_sees_some_and_places_all(blobs, monkeypatch):
    monkeypatch.setattr(evaluate, "FITTED", 20)
    monkeypatch.setattr(evaluate, "MEMBERS", 2)
    scores = evaluate.score(*blobs, clusters=K, seed=0, restarts=3)
    assert scores["kmeans_backbone"]["fitted"] == scores["kmeans_pixels"]["fitted"] == 20
    assert scores["kmeans_backbone"]["sizes"] == [20, 20, 20]
    assert scores["kmeans_backbone"]["acc"] == 1
    assert sum(scores["kmeans_pixels"]["sizes"]) == 20
    assert "fitted" not in scores["cluster"]

    monkeypatch.setattr(evaluate, "MEMBERS", 20)  # of a cluster, however many there are
    assert "fitted" not in evaluate.score(*blobs, clusters=K, seed=0, restarts=3)["kmeans_backbone"]
