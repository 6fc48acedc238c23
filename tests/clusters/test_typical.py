"""Images that stand for a cluster."""

import numpy as np
import pytest

from jaxclust.clusters.typical import COMPARED, SEEN, typical


def scenes(sizes, seed=0):
    """Embeddings f32[N, 16] of a cluster of scenes, each of so many shots that hardly differ; the scene of each."""
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.arange(len(sizes)), sizes)
    middle = rng.normal(size=(len(sizes), 16))
    return (middle[scene] + 0.02 * rng.normal(size=(len(scene), 16))).astype(np.float32), scene


@pytest.mark.parametrize("seed", range(5))
def test_a_burst_is_there_once(seed):
    x, scene = scenes([40, 25] + [1] * 30, seed)
    shown = typical(x, np.arange(len(x)), 8)
    assert len(set(scene[shown])) == 8
    assert shown.tolist() == typical(x, np.arange(len(x)), 8).tolist()


def test_near_duplicates_fill_up_what_there_is_nothing_else_for():
    x, scene = scenes([6, 6, 6])
    shown = typical(x, np.arange(18), 12)
    assert len(set(shown.tolist())) == 12
    assert set(scene[shown[:3]]) == {0, 1, 2}


def test_they_are_typical_and_spread():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(200, 8)), 20 + rng.normal(size=(3, 8))]).astype(np.float32)
    shown = typical(x, np.arange(203), 8)
    away = np.linalg.norm(x - x.mean(axis=0), axis=1)
    assert shown[0] == away.argmin()
    assert away[shown].max() <= np.quantile(away, 0.6)
    nearest = np.argsort(away)[:8]

    def gap(rows):
        between = np.linalg.norm(x[rows][:, None] - x[rows], axis=2)
        return between[np.triu_indices(8, 1)].min()

    assert gap(shown) > 1.5 * gap(nearest)


@pytest.mark.parametrize("count", [0, 1, 2, 3, COMPARED + 1, SEEN + 5])
def test_of_few_images_all_are_shown_and_of_many_so_many(count):
    x = np.random.default_rng(0).normal(size=(count + 5, 4)).astype(np.float32)
    rows = np.arange(5, count + 5)
    shown = typical(x, rows, 12).tolist()
    assert len(set(shown)) == len(shown) == min(count, 12)
    assert set(shown) <= set(rows.tolist())
    assert len(typical(np.ones_like(x), rows, 12)) == min(count, 12)


def test_of_hundreds_of_clusters_fewer_members_are_looked_at():
    x = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    alone, among = (typical(x, np.arange(5000), 12, clusters) for clusters in (1, 1000))
    assert alone.tolist() == typical(x, np.arange(5000), 12, 10).tolist()
    assert len(set(among.tolist())) == 12
    away = np.linalg.norm(x - x.mean(axis=0), axis=1)
    assert away[among].max() <= np.quantile(away, 0.6)
