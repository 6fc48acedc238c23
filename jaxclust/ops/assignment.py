"""k-means on the device, the nearest centre of a point, and linear assignment.

    seeding      k-means++ (Arthur and Vassilvitskii, SODA 2007), greedy: the best of 2 + log K draws
    iterations   Lloyd (1982), until the labels stop changing
    empty        a cluster without members restarts at the point farthest from its centre
    assignment   successive shortest augmenting paths (Jonker and Volgenant, Computing 1987), in integers

Every pass of k-means is a matrix product or a reduction over N, so rows of x may lie on several devices. What would be
N x K is made a block of rows at a time, and few rows are one block.
"""

from collections.abc import Callable
from functools import partial
from math import log
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxclust.types import Array, PyTree

BLOCK = 2**23  # distances that a device holds at a time: 32 MiB


class KMeans(NamedTuple):
    centres: Array  # f32[K, D]
    labels: Array  # i32[N]
    inertia: Array  # f32[], sum of squared distances to the nearest centre


@partial(jax.jit, static_argnames=("k", "restarts", "iterations"))
def kmeans(key: Array, x: Array, k: int, restarts: int = 10, iterations: int = 100) -> KMeans:
    """Best of several k-means runs. Needs O((N + K) D) memory: the runs follow one another.

    With fewer distinct points than clusters, some clusters stay empty and share a point as their centre.

    Args:
      key: PRNG key; the same key gives the same clusters.
      x: points, f32[N, D], finite; its rows may be sharded over a mesh of Auto axes.
      k: number of clusters (static).
      restarts: number of runs, the one of least inertia wins (static).
      iterations: most Lloyd iterations in a run (static).

    Returns:
      The centres, and for each point the nearest of them.

    Raises:
      ValueError: k is below 1 or above N.
    """
    n, _ = x.shape
    if k < 1:
        raise ValueError(f"clusters is {k}; it must be at least 1")
    if k > n:
        raise ValueError(f"clusters is {k} but there are only {n} images; lower clusters or add images")
    x = jnp.asarray(x, jnp.float32)
    mean = x.mean(0)
    x = x - mean  # |x|^2 - 2xc + |c|^2 loses its digits to a common offset
    runs = jax.lax.map(lambda key: lloyd(x, seeds(key, x, k), iterations), jax.random.split(key, restarts))
    best = jax.tree.map(lambda run: run[runs.inertia.argmin()], runs)
    return best._replace(centres=best.centres + mean)


@jax.jit
def assign(x: Array, centres: Array) -> Array:
    """Nearest centre of each point.

    Args:
      x: points, f32[N, D].
      centres: f32[K, D].

    Returns:
      labels: i32[N].
    """
    mean = centres.mean(0)
    return nearest(x - mean, centres - mean)[0]


def seeds(key: Array, x: Array, k: int) -> Array:
    """Greedy k-means++: draw candidates by squared distance, keep the one that lowers the inertia most.

    Args:
      key: PRNG key.
      x: points, f32[N, D].
      k: number of seeds.

    Returns:
      centres: f32[K, D], rows of x.
    """
    trials = 2 + int(log(k))  # as in scikit-learn
    first_key, key = jax.random.split(key)
    first = x[jax.random.randint(first_key, (1,), 0, len(x))]  # f32[1, D]

    def add(closest: Array, key: Array) -> tuple[Array, Array]:
        # closest: squared distance to the nearest seed so far, f32[N].
        # Gumbel draws: a running sum over N would make the pick hang on rounding, and so on the sharding.
        candidates = x[jax.random.categorical(key, jnp.log(closest), shape=(trials,))]  # f32[T, D]
        closer = jnp.minimum(closest[:, None], squared_distances(x, candidates))  # f32[N, T]
        best = closer.sum(0).argmin()
        return closer[:, best], candidates[best]

    closest = squared_distances(x, first)[:, 0]
    _, rest = jax.lax.scan(add, closest, jax.random.split(key, k - 1))
    return jnp.concatenate([first, rest])


def lloyd(x: Array, centres: Array, iterations: int) -> KMeans:
    """Lloyd's algorithm from given centres.

    Args:
      x: points, f32[N, D].
      centres: f32[K, D].
      iterations: most updates of the centres.

    Returns:
      The centres, and for each point the nearest of them.
    """

    def moving(state: PyTree) -> Array:
        step, *_, moved = state
        return moved & (step < iterations)

    def update(state: PyTree) -> PyTree:
        step, centres, labels, distance, _ = state
        centres = means(x, labels, distance, len(centres))
        new, distance = nearest(x, centres)
        return step + 1, centres, new, distance, (new != labels).any()

    state = (0, centres, *nearest(x, centres), True)
    _, centres, labels, distance, _ = jax.lax.while_loop(moving, update, state)
    return KMeans(centres, labels, distance.sum())


def means(x: Array, labels: Array, distance: Array, k: int) -> Array:
    """Mean of each cluster; empty clusters get the points farthest from their centres, one each."""
    sizes, sums = totals(x, labels, k)
    empty = sizes == 0
    _, farthest = jax.lax.top_k(distance, k)
    spare = x[farthest[jnp.cumsum(empty) - 1]]
    return jnp.where(empty[:, None], spare, sums / jnp.maximum(sizes, 1)[:, None])


def totals(x: Array, labels: Array, k: int) -> tuple[Array, Array]:
    """Members of each cluster, f32[K], and their sum, f32[K, D]."""
    over = _axes(x)

    def of_device(x: Array, labels: Array) -> tuple[Array, Array]:
        if len(x) * k <= BLOCK:
            total = _by_product(x, labels, k)
        else:
            by = {of: partial(_by_block, k=k, of=of) for of in (_by_row, _by_product)}
            total = jax.lax.platform_dependent(x, labels, cpu=by[_by_row], default=by[_by_product])
        return jax.lax.psum(total, over) if over else total

    return _on_each_device(of_device, x, (over, over), None)(x, labels)


def _by_product(x: Array, labels: Array, k: int) -> tuple[Array, Array]:
    # segment_sum takes 6 ms to this product's 9 on a CPU (60,000 x 512), but on a GPU it adds in no fixed
    # order, and the same key must give the same clusters.
    members = jax.nn.one_hot(labels, k, axis=0)  # f32[K, N]
    return members.sum(1), jnp.matmul(members, x, precision="highest")


def _by_block(x: Array, labels: Array, k: int, of: Callable) -> tuple[Array, Array]:
    block, begins = _blocks(len(x), k)

    def add(total: PyTree, i: Array) -> tuple[PyTree, None]:
        rows = begins[i] + jnp.arange(block)
        counted = jnp.where(rows < i * block, k, labels[rows])  # what the block before had is in no cluster
        return jax.tree.map(jnp.add, total, of(_slice(x, begins[i], block), counted, k)), None

    nothing = jnp.zeros(k), jnp.zeros((k, x.shape[1]))
    return jax.lax.scan(add, nothing, jnp.arange(len(begins)))[0]


def _by_row(x: Array, labels: Array, k: int) -> tuple[Array, Array]:
    # Of a thousand clusters the product takes 5.6 s on a CPU (50,000 x 512), and this .06 s.
    add = partial(jax.ops.segment_sum, segment_ids=labels, num_segments=k)
    return add(jnp.ones(len(x))), add(x)


def nearest(x: Array, centres: Array) -> tuple[Array, Array]:
    """Index of the nearest centre, i32[N], and the squared distance to it, f32[N]."""
    over = _axes(x)

    def of_block(x: Array, centres: Array) -> tuple[Array, Array]:
        distances = squared_distances(x, centres)
        return distances.argmin(1).astype(jnp.int32), distances.min(1)

    def of_device(x: Array, centres: Array) -> tuple[Array, Array]:
        block, begins = _blocks(len(x), len(centres))
        if len(begins) == 1:
            return of_block(x, centres)
        found = jax.lax.map(lambda begin: of_block(_slice(x, begin, block), centres), begins)
        twice = len(begins) * block - len(x)
        return jax.tree.map(lambda a: jnp.concatenate([a[:-1].ravel(), a[-1, twice:]]), found)

    return _on_each_device(of_device, x, (over, None), over)(x, centres)


def _blocks(n: int, k: int) -> tuple[int, Array]:
    """Rows of a block, and where each begins, i32[blocks]; the last, as long as all, begins within the one before."""
    count = -(-n * k // BLOCK)
    block = -(-n // count)
    return block, jnp.minimum(jnp.arange(-(-n // block)) * block, n - block)


def _slice(x: Array, begin: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, begin, size)


def _axes(x: Array) -> tuple[str, ...] | None:
    """Axes of the mesh that rows of x can be divided over, if any."""
    mesh = jax.typeof(x).sharding.mesh
    return None if mesh.empty or mesh.size == 1 or len(x) % mesh.size else mesh.axis_names


def _on_each_device(f: Callable, x: Array, inner: tuple, outer: Any) -> Callable:
    """f, called by each device with the rows that lie on it: left to itself XLA gathers a block from all of them."""
    if _axes(x) is None:
        return f
    specs = tuple(map(PartitionSpec, inner))
    mesh = jax.typeof(x).sharding.mesh
    return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(outer), check_vma=False)


def squared_distances(x: Array, centres: Array) -> Array:
    """Squared Euclidean distances f32[N, K] by one matrix product, in full float32 on every device."""
    cross = jnp.matmul(x, centres.T, precision="highest")
    return jnp.maximum((x**2).sum(1)[:, None] - 2 * cross + (centres**2).sum(1), 0)


def transport(cost: Array, labels: Array) -> Array:
    """Reassigns rows to columns at the least total cost, where a column keeps as many rows as it has in `labels`.

    With `labels` a permutation of the columns this is the linear assignment problem.

    Costs less their column's mean are rounded to n 2^-28 of the largest: in integers every sum is exact, so that no
    loop can be led in circles by rounding, and every device finds the same answer.

    Args:
      cost: f32[G, n, m], G problems that have nothing to do with each other; n < 2^13.
      labels: a column for each row, i32[G, n], in 0..m-1.

    Returns:
      i32[G, n], each row of it a permutation of that row of `labels`.
    """
    solve = jax.vmap(_transport)
    mesh = jax.typeof(cost).sharding.mesh
    if mesh.empty:
        return solve(cost, labels)
    # Left to itself XLA divides a problem over the devices, and they wait for each other in every iteration. So each
    # device solves problems of its own, or all of them where they cannot be shared out alike.
    over = PartitionSpec(mesh.axis_names if len(cost) % mesh.size == 0 else None)
    return jax.shard_map(solve, mesh=mesh, in_specs=over, out_specs=over, check_vma=False)(cost, labels)


def _transport(cost: Array, labels: Array) -> Array:
    """One problem, cost f32[n, m] and labels i32[n]. A row without a column has the label m."""
    n, m = cost.shape
    cost = jnp.where(jnp.isfinite(cost), cost, 0)  # a run gone wrong must reach the log, not hang here
    cost -= cost.mean(0)  # shifts the cost of all answers alike, and spreads the rows' favourites over the columns
    unit = jnp.maximum(jnp.abs(cost).max(), 1e-30) * n / 2**28
    cost = jnp.round(cost / unit).astype(jnp.int32)  # a path has up to n pairs of costs: |length| <= 2^29
    far = 2**30

    # As many rows as fit begin in their favourite column: no way of placing these rows costs less.
    room = jnp.bincount(labels, length=m)  # i32[m]
    favourite = cost.argmin(1)
    queue = jnp.cumsum(jax.nn.one_hot(favourite, m, dtype=jnp.int32), axis=0)  # i32[n, m]
    place = jnp.take_along_axis(queue, favourite[:, None], axis=1)[:, 0]
    start = jnp.where(place <= room[favourite], favourite, m)

    def insert(labels: Array) -> Array:
        """Places one more row, along the shortest path of rows that each give up their column to the one before."""
        new = (labels == m).argmax()
        leave = jnp.take_along_axis(cost, labels[:, None], axis=1, mode="clip")[:, 0]  # i32[n]

        def relax(state: PyTree) -> PyTree:
            # Bellman and Ford: distance to each column, and the row that enters it.
            distance, row, _ = state
            reach = jnp.where(labels < m, distance.at[labels].get(mode="clip") - leave, far)  # i32[n]
            through = reach[:, None] + cost  # i32[n, m]
            nearer = through.min(0) < distance
            return jnp.minimum(through.min(0), distance), jnp.where(nearer, through.argmin(0), row), nearer.any()

        distance, row, _ = jax.lax.while_loop(lambda state: state[2], relax, (cost[new], jnp.full(m, new), True))
        end = jnp.where(jnp.bincount(labels, length=m) < room, distance, far).argmin()

        def shift(state: PyTree) -> PyTree:
            labels, column, _ = state
            enters = row[column]
            return labels.at[enters].set(column), labels[enters], enters

        # The path ends at `new` even where all rows are placed: under vmap such problems go along with the others.
        return jax.lax.while_loop(lambda state: state[2] != new, shift, (labels, end, jnp.full_like(new, -1)))[0]

    return jax.lax.while_loop(lambda labels: (labels == m).any(), insert, start).astype(jnp.int32)
