"""k-means as good as scikit-learn's, assignment as cheap as SciPy's, and both the same on any number of devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn import cluster
from sklearn.datasets import load_digits, make_blobs

from jaxclust.ops import assignment, metrics
from jaxclust.ops.assignment import assign, kmeans, lloyd, nearest, seeds, totals, transport
from jaxclust.run import sharding


@pytest.fixture(scope="module")
def digits():
    return load_digits().data.astype(np.float32)[:1792]  # f32[N, 64]; N divides over 8 devices


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(600, 16, centers=8, cluster_std=0.2, random_state=0)


def squared_distances(x, centres):
    """The slow way, in float64."""
    return ((x[:, None].astype(float) - np.asarray(centres, float)) ** 2).sum(-1)


@pytest.mark.parametrize("seed", range(4))
def test_inertia_is_that_of_scikit_learn(digits, seed):
    theirs = cluster.KMeans(10, n_init=10, random_state=seed).fit(digits).inertia_
    ours = kmeans(jax.random.key(seed), digits, 10).inertia
    assert float(ours) == pytest.approx(theirs, rel=0.005)


def test_seeds_are_as_good_as_scikit_learns(digits):
    def mean_inertia(draw):
        return np.mean([squared_distances(digits, draw(seed)).min(1).sum() for seed in range(50)])

    theirs = mean_inertia(lambda seed: cluster.kmeans_plusplus(digits, 10, random_state=seed)[0])
    draw = jax.jit(seeds, static_argnums=2)
    assert mean_inertia(lambda seed: draw(jax.random.key(seed), digits, 10)) == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("offset", [0, 1000])
def test_result_is_a_fixed_point_of_lloyd(digits, offset):
    x = digits + np.float32(offset)
    found = kmeans(jax.random.key(0), x, 10)
    distances = squared_distances(x, found.centres)
    np.testing.assert_array_equal(found.labels, distances.argmin(1))
    np.testing.assert_array_equal(found.labels, assign(x, found.centres))
    np.testing.assert_allclose(found.inertia, distances.min(1).sum(), rtol=1e-4)
    means = [x[found.labels == k].mean(0, dtype=float) for k in range(10)]
    np.testing.assert_allclose(found.centres, means, rtol=1e-5, atol=1e-4)
    assert (found.centres.dtype, found.labels.dtype, found.inertia.shape) == (np.float32, np.int32, ())


def test_separated_blobs_are_found_exactly(blobs):
    x, labels = blobs
    assert metrics.ari(labels, kmeans(jax.random.key(0), x, 8).labels) == 1.0


def test_same_key_same_clusters_and_another_key_another_run(digits):
    one, same, other = (kmeans(jax.random.key(seed), digits, 10, restarts=1) for seed in (0, 0, 1))
    for a, b in zip(one, same):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.labels, other.labels)


def test_more_restarts_are_no_worse(digits):
    one, ten = (
        np.array([kmeans(jax.random.key(seed), digits, 10, restarts=n).inertia for seed in range(8)]) for n in (1, 10)
    )
    assert (ten <= one).all()  # the first of the ten is the one
    assert (ten < one).any()


def test_an_empty_cluster_restarts_at_the_farthest_point():
    x = jnp.array([[0.0], [1], [2], [10], [30]])
    far = jnp.array([[1.0], [500], [600]])  # the last two lose every point
    found = lloyd(x, far, 100)
    np.testing.assert_array_equal(np.sort(np.ravel(found.centres)), [1, 10, 30])
    assert float(found.inertia) == pytest.approx(2)


@pytest.mark.parametrize("distinct", [1, 3])
def test_fewer_distinct_points_than_clusters(distinct):
    x = np.repeat(np.random.default_rng(0).normal(size=(distinct, 5)).astype(np.float32), 20, axis=0)
    found = kmeans(jax.random.key(0), x, 6)
    assert metrics.ari(np.repeat(np.arange(distinct), 20), found.labels) == 1.0
    assert np.isfinite(found.centres).all()
    np.testing.assert_allclose(found.inertia, 0, atol=1e-4)


def test_as_many_clusters_as_points_and_one_cluster(digits):
    assert sorted(kmeans(jax.random.key(0), digits[:20], 20).labels) == list(range(20))
    one = kmeans(jax.random.key(0), digits, 1)
    np.testing.assert_allclose(one.centres[0], digits.mean(0), atol=1e-4)


def test_assign_takes_the_nearest_centre(digits):
    labels = assign(digits, digits[:7])
    np.testing.assert_array_equal(labels, squared_distances(digits, digits[:7]).argmin(1))
    assert labels.dtype == np.int32


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, real or virtual")
@pytest.mark.parametrize("seed", range(3))
def test_eight_devices_find_what_one_finds(digits, seed):
    one = kmeans(jax.random.key(seed), digits, 10)
    sharded = jax.device_put(digits, sharding.batched(sharding.make_mesh(8)))
    eight = kmeans(jax.random.key(seed), sharded, 10)
    np.testing.assert_array_equal(one.labels, eight.labels)
    np.testing.assert_allclose(one.centres, eight.centres, atol=1e-4)
    np.testing.assert_allclose(one.inertia, eight.inertia, rtol=1e-5)
    np.testing.assert_array_equal(assign(sharded, one.centres), one.labels)


@pytest.mark.parametrize(
    ("k", "message"),
    [(20, "clusters is 20 but there are only 10 images"), (0, "clusters is 0; it must be at least 1")],
)
def test_impossible_numbers_of_clusters_are_named(k, message):
    with pytest.raises(ValueError, match=message):
        kmeans(jax.random.key(0), np.zeros((10, 2), np.float32), k)


def problems(kind, n=48, m=6):
    """Costs f32[2, n, m] and labels i32[2, n]."""
    rng = np.random.default_rng(0)
    cost = rng.random((2, n, m))
    labels = rng.integers(0, m, (2, n))
    match kind:
        case "collapsed":
            cost = 1 + 1e-3 * cost + np.arange(m)
        case "ties":
            cost = np.round(3 * cost)
        case "equal":
            cost = np.ones((2, n, m))
        case "negative":
            cost = -1000 * cost
        case "rare":  # some columns keep no row, and one almost all
            labels = np.where(rng.random((2, n)) < 0.9, 1, 3)
        case "permutation":
            cost, labels = rng.random((2, n, n)), np.stack([rng.permutation(n), np.arange(n)])
    return cost.astype(np.float32), labels.astype(np.int32)


@pytest.mark.parametrize("kind", ["random", "collapsed", "ties", "equal", "negative", "rare", "permutation"])
def test_transport_costs_as_little_as_scipys_assignment_and_keeps_the_columns_sizes(kind):
    cost, labels = problems(kind)
    found = np.asarray(jax.jit(transport)(cost, labels))
    for c, old, new in zip(cost.astype(float), labels, found):
        np.testing.assert_array_equal(np.sort(new), np.sort(old))
        square = c[:, old]  # a column for each place in a column
        best = square[linear_sum_assignment(square)].sum()
        np.testing.assert_allclose(c[np.arange(len(c)), new].sum(), best, rtol=1e-6)


def test_transport_ends_where_costs_are_not_finite():
    cost, labels = problems("random")
    cost[0, 3], cost[1, :, 2] = np.nan, np.inf
    np.testing.assert_array_equal(np.sort(transport(cost, labels)), np.sort(labels))


@pytest.mark.parametrize("groups", [2, 8])
def test_transport_is_the_same_on_eight_devices_and_they_do_not_wait_for_each_other(groups):
    mesh = sharding.make_mesh()

    def share_out(x, labels):
        return transport(jnp.sin(x).reshape(groups, -1, 6), labels.reshape(groups, -1)).reshape(-1)

    rng = np.random.default_rng(0)
    x, labels = rng.random((96, 6)).astype(np.float32), rng.integers(0, 6, 96).astype(np.int32)
    x8, labels8 = (jax.device_put(a, sharding.batched(mesh)) for a in (x, labels))
    compiled = jax.jit(share_out, out_shardings=sharding.batched(mesh)).lower(x8, labels8).compile()
    np.testing.assert_array_equal(compiled(x8, labels8), jax.jit(share_out)(x, labels))

    text = compiled.as_text()
    loops = set(re.findall(r"(?:body|condition)=%?([\w.\-]+)", text))
    computations = {re.match(r"(?:ENTRY )?%?([\w.\-]+)", c)[1]: c for c in re.split(r"\n(?=%|ENTRY)", text)}
    assert loops <= computations.keys()
    assert ("all-gather" in text) == (groups == 2)  # eight problems lie on their devices already
    for name in loops:
        assert not re.search("all-(reduce|gather|to-all)|collective|reduce-scatter", computations[name]), name


@pytest.mark.parametrize("block", [1, 100, 4096])
def test_blocks_of_rows_find_what_all_at_once_find(digits, block, monkeypatch):
    x, centres = jnp.asarray(digits), jnp.asarray(digits[:10])
    labels, distance = nearest(x, centres)
    sizes, sums = totals(x, labels, 10)
    monkeypatch.setattr(assignment, "BLOCK", block)
    in_blocks, distance_in_blocks = nearest(x, centres)
    np.testing.assert_array_equal(in_blocks, labels)
    np.testing.assert_allclose(distance_in_blocks, distance, rtol=1e-5, atol=1e-3)
    for of in (assignment._by_product, assignment._by_row):
        sizes_in_blocks, sums_in_blocks = assignment._by_block(x, labels, 10, of)
        np.testing.assert_array_equal(sizes_in_blocks, sizes)
        np.testing.assert_allclose(sums_in_blocks, sums, rtol=1e-5)


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, real or virtual")
def test_eight_devices_find_by_blocks_what_one_finds(digits, monkeypatch):
    one = kmeans(jax.random.key(0), digits, 10)
    monkeypatch.setattr(assignment, "BLOCK", 1000)
    jax.clear_caches()
    eight = kmeans(jax.random.key(0), jax.device_put(digits, sharding.batched(sharding.make_mesh(8))), 10)
    np.testing.assert_array_equal(one.labels, eight.labels)
    np.testing.assert_allclose(one.centres, eight.centres, atol=1e-4)
    jax.clear_caches()


def memory(rows, clusters, lay=None):
    """Bytes that a device needs for k-means beside its points, as compiled."""
    x = jax.ShapeDtypeStruct((rows, 64), jnp.float32, sharding=lay)
    compiled = kmeans.lower(jax.random.key(0), x, clusters, restarts=1).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_is_for_rows_and_for_clusters_and_never_for_their_product():
    rows, clusters = 2**20, 1000
    few, many = memory(rows, 10), memory(rows, clusters)
    assert many - few < 4 * (4 * assignment.BLOCK + 100 * clusters * 64)
    assert many < rows * clusters


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, real or virtual")
def test_a_device_of_eight_needs_an_eighth_of_the_memory():
    rows = 2**22
    alone, shared = (memory(rows, 100, lay) for lay in (None, sharding.batched(sharding.make_mesh(8))))
    assert shared < alone / 8 + 8 * assignment.BLOCK
