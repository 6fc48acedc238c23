"""Graphs of nearest neighbours on the host, and their communities.

    neighbours     exact, by cosine similarity
    edges          Jaccard index of two neighbourhoods (Jarvis and Patrick, IEEE Trans. Computers 1973)
    modularity     Newman and Girvan (Physical Review E 2004)
    majority       of the neighbours' clusters
    communities    of most modularity at a resolution (Reichardt and Bornholdt, Physical Review E 2006), by Louvain's
                   local moves (Blondel et al., J. Stat. Mech. 2008)

Deviation: Louvain and not Leiden, whose refinement draws at random; in scikit-network from a generator that no seed
reaches, so that equal arguments would give unequal communities.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

BLOCK = 2**25  # numbers in memory at a time: 128 MiB of float32
GROUPS = 32  # of points that the candidates for a neighbour are sought in, for each neighbour
SPREAD = 8  # candidates for a neighbour, at most, before they are sought in all points


def neighbours(x: np.ndarray, k: int, held: Callable[[], object] = lambda: None) -> np.ndarray:
    """The k nearest other points of each point by cosine similarity, exactly. Takes N^2 time and N k memory.

    Points are divided into groups, and the k-th largest of the groups' largest similarities is no larger than the k-th
    largest of all. So only the few points that reach it have to be sorted.

    Args:
      x: points, f32[N, D], of length one.
      k: neighbours of a point.
      held: called before each block of points; what it raises ends the search.

    Returns:
      i32[N, k], the most similar first, of equally similar ones the first.

    Raises:
      ValueError: k is not in 1..N-1.
    """
    n = len(x)
    if not 1 <= k < n:
        raise ValueError(f"neighbours is {k}, of {n} points; give 1 to {n - 1}")
    found = np.empty((n, k), np.int32)
    step = max(BLOCK // n, 1)
    for begin in range(0, n, step):
        held()
        rows = np.arange(begin, min(begin + step, n))
        similarity = x[rows] @ x.T  # f32[B, N]
        similarity[rows - begin, rows] = -np.inf
        found[rows] = _largest(similarity, k)
    return found


def _largest(a: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest values of each row of a f32[B, N], the largest first, of equal ones the first."""
    size = max(a.shape[1] // (GROUPS * k), 1)
    whole = a.shape[1] // size * size
    largest = a[:, :whole].reshape(len(a), size, -1).max(axis=1)
    largest = np.concatenate([largest, a[:, whole:]], axis=1)
    reached = a >= np.partition(largest, -k, axis=1)[:, -k, None]
    many = np.count_nonzero(reached, axis=1) > SPREAD * k  # copies of one point, or nearly
    reached[many] = False
    row, column = np.divmod(np.flatnonzero(reached), a.shape[1])
    order = np.lexsort((column, -a[row, column], row))
    first = np.searchsorted(row, np.flatnonzero(~many))
    found = np.empty((len(a), k), np.int64)
    found[~many] = column[order][first[:, None] + np.arange(k)]
    for i in np.flatnonzero(many):
        found[i] = np.argsort(-a[i], kind="stable")[:k]
    return found


def union(nearest: np.ndarray) -> sparse.csr_array:
    """The graph that joins each point to its neighbours i32[N, k], f32[N, N], symmetric, of zeros and ones."""
    n, k = nearest.shape
    ends = np.arange(0, n * k + 1, k)
    graph = sparse.csr_array((np.ones(n * k, np.float32), nearest.ravel(), ends), shape=(n, n))
    return graph.maximum(graph.T).tocsr()


def jaccard(nearest: np.ndarray) -> sparse.csr_array:
    """The same graph, each edge weighted by what the two neighbourhoods share, each point being in its own.

    Args:
      nearest: neighbours of each point, i32[N, k], itself not among them.

    Returns:
      f32[N, N], symmetric: |A and B| / |A or B| for an edge between points whose neighbourhoods are A and B.
    """
    n, k = nearest.shape
    own = np.concatenate([np.arange(n, dtype=nearest.dtype)[:, None], nearest], axis=1)
    shared = np.empty((n, k), np.float32)
    step = max(BLOCK // (k * (k + 1) ** 2), 1)
    for begin in range(0, n, step):
        rows = slice(begin, begin + step)
        same = own[nearest[rows]][..., None] == own[rows, None, None, :]  # bool[B, k, k + 1, k + 1]
        shared[rows] = same.sum(axis=(2, 3))
    weights = shared / (2 * (k + 1) - shared)
    graph = sparse.csr_array((weights.ravel(), nearest.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return graph.maximum(graph.T).tocsr()


def majority(labels: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """The commonest cluster among a point and its neighbours i32[N, k], i64[N]; of equally common ones its own first.

    (A step of label propagation: Raghavan et al., Physical Review E 2007.)
    """
    heard = np.concatenate([labels[:, None], labels[nearest]], axis=1)
    votes = (heard[:, :, None] == heard[:, None, :]).sum(axis=2)
    return np.take_along_axis(heard, votes.argmax(axis=1)[:, None], axis=1)[:, 0]


def modularity(graph: sparse.csr_array, labels: np.ndarray) -> float:
    """Share of the edges that lie within clusters, less what chance would give: sum_c (e_cc - a_c^2).

    Args:
      graph: symmetric weights, f32[N, N].
      labels: clusters, i[N], in 0..K-1.

    Returns:
      float in [-1/2, 1]; 0 for a single cluster, and for a graph without edges.
    """
    degree = graph.sum(axis=1)
    row = np.repeat(np.arange(len(labels)), np.diff(graph.indptr))
    within = graph.data[labels[row] == labels[graph.indices]].sum(dtype=np.float64)
    of_cluster = np.bincount(labels, weights=degree)
    total = max(of_cluster.sum(), 1e-12)
    return float(within / total - np.square(of_cluster / total).sum())


def communities(graph: sparse.csr_array, resolution: float, seed: int) -> np.ndarray:
    """Communities of much modularity, i64[N], the largest first; more of them at a higher resolution."""
    from sknetwork.clustering import Louvain  # takes a second to import

    found = Louvain(resolution, shuffle_nodes=True, random_state=seed, return_probs=False, return_aggregate=False)
    return found.fit_predict(sparse.csr_matrix(graph)).astype(np.int64)
