"""Trouble is named once when it begins and once when it ends."""

import json

import jax.numpy as jnp
import numpy as np

from jaxclust.training.log import Log
from jaxclust.training.watch import Watch


def lines(*epochs) -> list[list[str]]:
    """What is said after each epoch, given its steps' metrics."""
    watch = Watch()
    said = []
    for epoch, steps in enumerate(epochs):
        for metrics in steps:
            said.append(watch.see(epoch, metrics))
    said.append(watch.judge())
    return [s for s in said if s]


def sizes(*counts):
    return {"sizes": np.asarray(counts, np.float32)}


def test_a_run_without_trouble_is_quiet():
    assert lines([sizes(5, 5, 6), sizes(4, 6, 6)], [sizes(5, 5, 6)]) == []
    assert lines([{"loss": 1.0}], [{"loss": 1.0}]) == []


def test_unused_clusters_are_judged_over_an_epoch():
    """A batch may miss a cluster that the next one has."""
    assert lines([sizes(5, 5, 0), sizes(5, 0, 5)]) == []
    assert lines([sizes(5, 5, 0), sizes(6, 6, 0)]) == [["warning: epoch 1: only 2 of 3 clusters are used"]]


def test_a_cluster_with_more_than_half_is_named():
    assert lines([sizes(1, 9, 2)]) == [["warning: epoch 1: cluster 1 holds 75% of the images"]]
    assert lines([sizes(6, 4)]) == []  # one of two always has half


def test_dead_rows_are_counted():
    assert lines([{"dead_rows": 3.0}]) == [
        ["warning: epoch 1: 3 rows of the memory queues are dead (not of unit length)"]
    ]


def test_trouble_is_named_when_it_begins_and_when_it_ends():
    bad, worse, good = [sizes(5, 5, 0)], [sizes(5, 0, 0)], [sizes(5, 5, 5)]
    assert lines(good, bad, bad, good, good) == [
        ["warning: epoch 2: only 2 of 3 clusters are used"],
        ["epoch 4: no longer so: only 2 of 3 clusters are used"],
    ]
    assert lines(bad, worse)[1] == ["warning: epoch 2: cluster 0 holds 100% of the images"]


def test_the_log_warns_and_records_the_sizes(tmp_path, capsys):
    step = {"loss": jnp.asarray(1.0), "sizes": jnp.asarray([7.0, 1.0, 0.0])}
    with Log(tmp_path, step=0, steps=4, epochs=2, images=8, every=2, write=True) as log:
        for i in range(4):
            log.push(i + 1, i // 2, step)
        log.drain()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [r["sizes"] for r in records] == [[14, 2, 0], [14, 2, 0]]
    assert records[0]["used_clusters"] == 2
    assert records[0]["largest_cluster"] == 0.875
    said = capsys.readouterr().out
    assert said.count("only 2 of 3 clusters are used") == 1
    assert said.count("cluster 0 holds 88% of the images") == 1
