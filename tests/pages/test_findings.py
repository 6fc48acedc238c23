"""What is said of a run: each finding where it is due and nowhere else."""

from pathlib import Path

import numpy as np
import pytest

from jaxclust.pages.report import clusters, shapes, valley
from jaxclust.pages.report.facts import Facts
from jaxclust.pages.report.findings import falling, findings, moving

RNG = np.random.default_rng(0)
SIZE = 120  # images of a cluster


def soft(clusters: np.ndarray, k: int, sure: float = 0.95) -> np.ndarray:
    """Assignments f32[N, K] with that much in each image's own cluster."""
    q = np.full((len(clusters), k), (1 - sure) / (k - 1), np.float32)
    q[np.arange(len(q)), clusters] = sure
    return q


def looks(*clusters: np.ndarray) -> dict[int, dict[str, np.ndarray]]:
    """Looks at all images."""
    rows = np.arange(len(clusters[0]), dtype=np.int32)
    return {step: {"rows": rows, "placed": rows, "clusters": c} for step, c in enumerate(clusters)}


def facts_of(sizes=(SIZE,) * 4, q=None, x=None, groups=None, group=None, **more) -> Facts:
    """A run whose clusters are well apart, unless told otherwise."""
    k = len(sizes)
    clusters = np.repeat(np.arange(k), sizes)
    if x is None:
        x = RNG.normal(size=(len(clusters), 64)) + 8 * np.eye(k, 64)[clusters]
    q = soft(clusters, k) if q is None else q
    row = {"silhouette": 0.5, "sizes": [*sizes], "used_clusters": int(np.count_nonzero(sizes)), "size_entropy": 1.0}
    facts = Facts(
        name="run",
        workdir=Path("runs/my photos"),
        settings={
            "seed": 0,
            "clusters": k,
            "train.epochs": 10,
            "data.name": "folder",
            "data.size": 8,
            "method.name": "cc",
        },
        step=100,
        scores={"step": 100, "seed": 0, "cluster": {**row, "confidence": 0.9}, "kmeans_h": row, "kmeans_pixels": row},
        metrics=[{"step": step, "epoch": step // 10, "loss": 1 + np.exp(-step / 5)} for step in range(1, 101)],
        looks=[],
        placed=looks(clusters, clusters),
        images=np.arange(64 * len(clusters), dtype=np.uint32).view(np.uint8).reshape(-1, 8, 8, 4),
        files=None,
        labels=None,
        classes=(),
        groups=dict.fromkeys(range(k), "") if groups is None else groups,
        group=clusters if group is None else group,
        confidence=q.max(axis=1),
        q=q,
        space="h",
        x=np.asarray(x, np.float32),
    )
    return facts._replace(**more)


def kinds(facts: Facts) -> dict[str, str]:
    """Kind -> text of all that is no praise."""
    return {finding.kind: finding.text for finding in findings(facts) if finding.severity != "good"}


def test_a_good_run_gets_nothing_but_praise():
    found = findings(facts_of())
    assert [finding.kind for finding in found] == ["balanced", "sure", "apart", "settled"]
    assert "25 % to 25 %" in found[0].text


def test_clusters_without_images_are_named_and_come_first():
    found = findings(facts_of((SIZE, 0, SIZE, 0, SIZE), groups={0: "", 1: "cats", 2: "", 3: "", 4: ""}))
    assert (found[0].kind, found[0].severity, found[0].groups) == ("unused", "bad", (1, 3))
    assert "2 of 5 clusters have no images: cats and cluster 3" in found[0].text
    assert "balanced" not in {finding.kind for finding in found}


def test_a_cluster_with_most_images_has_collapsed_and_uneven_sizes_are_said():
    said = kinds(facts_of((900, 60, 60, 60)))
    assert "Cluster 0 holds 83 % of all images" in said["collapsed"]
    assert "5.6 %" in said["unbalanced"]
    assert "collapsed" not in kinds(facts_of((130, 110)))  # of two, one has more than half
    alone = kinds(facts_of((130, 0, 0)))
    assert "collapsed" in alone
    assert "unbalanced" not in alone


@pytest.mark.parametrize("sizes", [(130, 130, 0), (0, 0, 130), (40, 0, 40, 40, 0, 0)])
def test_clusters_of_one_size_are_not_uneven_because_others_are_empty(sizes):
    said = kinds(facts_of(sizes))
    assert "unused" in said
    assert "unbalanced" not in said


@pytest.mark.parametrize("sizes", [(900, 60, 60, 60), (130, 130, 0)])
def test_copies_are_looked_for_before_another_seed_is_advised(sizes):
    facts = facts_of(sizes)
    assert "repeated" not in kinds(facts)
    images = facts.images.copy()
    images[5:80] = images[5]
    found = findings(facts._replace(images=images))
    assert (found[0].kind, found[0].severity) == ("repeated", "bad")
    assert f"74 of the {len(images):,} images are exact copies of others, one image is there 75 times" in found[0].text
    assert "repeated" not in kinds(facts_of((SIZE,) * 4, images=np.zeros((4 * SIZE, 8, 8, 1), np.uint8)))


@pytest.mark.parametrize(("sizes", "said"), [((200, 200, 200, 14), True), ((200, 200, 200, 20), False)])
def test_a_cluster_with_a_tenth_of_its_share_is_hardly_there(sizes, said):
    assert ("tiny" in kinds(facts_of(sizes))) == said


def test_low_confidence_is_of_the_run_or_of_a_cluster():
    clusters = np.repeat(np.arange(4), SIZE)
    said = kinds(facts_of(q=soft(clusters, 4, 0.4)))
    assert "0.40 on average, where a guess has 0.25" in said["unsure"]
    assert "unsure" not in kinds(facts_of(q=soft(clusters, 4, 0.6)))

    q = soft(clusters, 4)
    q[clusters == 2] = soft(clusters, 4, 0.5)[clusters == 2]
    said = kinds(facts_of(q=q))
    assert said.keys() == {"unsure cluster"}
    assert "less sure of cluster 2 than of the rest: confidence 0.50 on average, 0.84" in said["unsure cluster"]

    plain = facts_of(q=soft(clusters, 4, 0.4))  # k-means has no confidence to be low
    assert not kinds(plain._replace(scores={k: v for k, v in plain.scores.items() if k != "cluster"}))


def test_a_heap_that_was_cut_in_two_looks_like_one():
    x = RNG.normal(size=(4 * SIZE, 64))
    x[2 * SIZE :] += 10 * np.eye(2, 64).repeat(SIZE, axis=0)
    x[: 2 * SIZE] = x[np.argsort(x[: 2 * SIZE, 5])]  # along any direction
    found = [finding for finding in findings(facts_of(x=x)) if finding.severity != "good"]
    assert [(finding.kind, finding.groups) for finding in found] == [("alike", (0, 1))]
    assert "Cluster 0 and cluster 1 look like one cluster:" in found[0].text


def test_clusters_that_the_head_confuses_are_named():
    clusters = np.repeat(np.arange(4), SIZE)
    q = soft(clusters, 4)
    q[clusters < 2, :2] = [0.5, 0.45]
    q[clusters == 1, :2] = [0.45, 0.5]
    q[clusters < 2, 2:] = 0.025
    assert "cluster 0 and cluster 1 apart" in kinds(facts_of(q=q))["confused"]
    assert "47 %" in kinds(facts_of(q=q))["confused"]


def test_confusion_counts_a_merged_cluster_for_its_group():
    clusters = np.repeat(np.arange(3), 4)
    q = np.random.default_rng(1).dirichlet(np.ones(3), len(clusters)).astype(np.float32) * 0.3
    q[np.arange(len(q)), clusters] += 0.7
    group = np.where(clusters == 2, 0, clusters)  # 2 was merged into 0
    share = shapes.confusion(facts_of((4, 4, 4), q=q, groups={0: "", 1: ""}, group=group))
    p = np.stack([q[:, 0] + q[:, 2], q[:, 1]], axis=1)
    mean = [p[group == g].mean(axis=0) for g in (0, 1)]
    wanted = (mean[0][1] / mean[0].sum() + mean[1][0] / mean[1].sum()) / 2
    np.testing.assert_allclose(share, [[0, wanted], [wanted, 0]], rtol=1e-5)


def test_the_parts_of_a_split_cluster_are_not_confused():
    facts = facts_of()
    group = np.where((facts.group == 3) & (np.arange(len(facts.group)) % 2 == 0), 4, facts.group)
    share = shapes.confusion(facts._replace(groups=dict.fromkeys(range(5), ""), group=group))
    assert share[3, 4] == share[4, 3] == 0


def test_embeddings_that_are_all_the_same_are_one_heap():
    facts = facts_of()
    found = kinds(facts._replace(x=np.ones_like(facts.x)))
    assert found.keys() == {"alike"}


def test_a_cluster_of_two_heaps_looks_like_two():
    x = facts_of().x.copy()
    x[: SIZE // 3, 40] += 9
    found = [finding for finding in findings(facts_of(x=x)) if finding.severity != "good"]
    assert [(finding.kind, finding.groups) for finding in found] == [("divided", (0,))]
    assert "about 67 % and 33 %" in found[0].text


HEAPS = {
    "gaussian": lambda rng, n: rng.normal(size=(n, 64)),
    "long": lambda rng, n: rng.normal(size=(n, 64)) * np.linspace(3, 0.2, 64),
    "uniform": lambda rng, n: np.hstack([rng.uniform(-2, 2, (n, 1)), 0.2 * rng.normal(size=(n, 63))]),
    "heavy": lambda rng, n: rng.normal(size=(n, 64)) / np.sqrt(rng.chisquare(3, (n, 1)) / 3),
    "skewed": lambda rng, n: rng.exponential(size=(n, 64)),
}


@pytest.mark.parametrize("name", HEAPS)
def test_one_heap_of_any_shape_is_not_two_and_its_halves_are_one(name):
    rng = np.random.default_rng(0)
    for _ in range(8):
        x = HEAPS[name](rng, 150)
        seen = valley.within(x, rng)
        assert not (seen.depth < shapes.TWO and seen.certainty > shapes.CERTAIN)
        assert valley.between(x[:75], x[75:], rng).depth > shapes.ONE


def test_a_head_behind_its_features_is_said():
    facts = facts_of()
    better = facts.scores | {"kmeans_h": {"silhouette": 0.6}, "kmeans_pixels": {"silhouette": 0.9}}
    assert "0.50 against 0.60" in kinds(facts._replace(scores=better))["head lags"]
    undefined = facts.scores | {"kmeans_h": {"silhouette": None}}
    assert not kinds(facts._replace(scores=undefined))


def test_a_run_that_stopped_too_early_is_said():
    facts = facts_of()
    moved = facts.group.copy()
    moved[:48] = 3
    said = kinds(facts._replace(placed=looks(moved, facts.group)))
    assert "10 % of the images changed cluster" in said["improving"]
    assert said["improving"].endswith("jaxclust --workdir='runs/my photos' --config.train.epochs=20")
    moved[10:] = facts.group[10:]  # 2 %
    assert not kinds(facts._replace(placed=looks(moved, facts.group)))

    falls = [{"step": step, "loss": 5 - step / 50} for step in range(1, 101)]
    assert "20 % of its whole fall" in kinds(facts._replace(placed={}, metrics=falls))["improving"]
    assert not kinds(facts._replace(placed={}, metrics=falls[:5]))
    assert not kinds(facts._replace(metrics=falls))  # the clusters have settled: more would change nothing


def test_a_loss_that_only_shakes_does_not_fall():
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=100) / 10
        assert falling([(step, 2 + np.exp(-step / 5) + noise[step]) for step in range(100)]) is None
    assert falling([(step, None) for step in range(100)]) is None
    assert falling([]) is None


def test_looks_that_cannot_be_compared_say_nothing():
    clusters = np.zeros(6, int)
    assert moving(looks(clusters)) is None
    other = looks(clusters, clusters)
    other[1]["rows"] = other[1]["rows"] + 1
    assert moving(other) is None
    del other[0]["clusters"]
    assert moving(other) is None


def test_no_finding_looks_at_labels():
    facts = facts_of((900, 60, 0, 60), labels=None)
    labelled = facts._replace(labels=RNG.integers(0, 4, len(facts.group)), classes=tuple("abcd"))
    assert findings(facts) == findings(labelled)
    assert not any(word in finding.text for finding in findings(facts) for word in ("label", "class", "ACC", "NMI"))


def test_centres_are_means_of_the_rows_by_any_number_of_parts(monkeypatch):
    monkeypatch.setattr(clusters, "CHUNK", 7)
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(100, 3)).astype(np.float32), rng.choice([2, 5, 9], 100)
    found = clusters.centres(x, group, np.array([2, 3, 5, 9]))
    assert np.isnan(found[1]).all()  # an empty one
    for centre, number in zip(found[[0, 2, 3]], (2, 5, 9)):
        np.testing.assert_allclose(centre, x[group == number].mean(axis=0, dtype=float), rtol=1e-12)
