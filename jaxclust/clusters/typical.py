"""Images that stand for a cluster: near its centre, and as different from each other as such images can be.

The nearest ones alone may be a burst of one scene, and say nothing of the others in the cluster.
"""

import numpy as np
from scipy.spatial.distance import pdist, squareform

# Members that are looked at, at most: of more, so many, evenly over the rows; and of all clusters together, as a page
# shows hundreds at once.
SEEN, SEEN_IN_ALL = 10_000, 100_000
# Members that are compared with each other, at most: of more, so many, evenly from the nearest to the farthest.
COMPARED, COMPARED_IN_ALL, LEAST = 256, 25_600, 64
# Near-duplicates are nearer to each other than this share of the distance that three quarters of all pairs stay below:
# neither a burst of most of the cluster nor a tenth of outliers sets that.
NEAR, MOST = 0.25, 0.75


def typical(x: np.ndarray, rows: np.ndarray, count: int, clusters: int = 1) -> np.ndarray:
    """Images of a cluster to show for it.

    The first is the nearest to the centre. Each next one is the farthest from all before it, among the half of the
    images that is nearer to the centre, near-duplicates counted once. Where these do not suffice, others follow in the
    same way.

    Args:
      x: embeddings, f32[N, D].
      rows: of the cluster's images, i64[n].
      count: images, at most.
      clusters: that such images are wanted of.

    Returns:
      i64[min(n, count)] of `rows`.
    """
    if not len(rows):
        return rows
    compared = min(max(COMPARED_IN_ALL // clusters, LEAST), COMPARED)
    rows = _thinned(rows, min(max(SEEN_IN_ALL // clusters, compared), SEEN))
    members = np.asarray(x[rows], np.float64)
    away = np.linalg.norm(members - members.mean(axis=0), axis=1)
    nearest = _thinned(np.argsort(away, kind="stable"), compared)
    between = squareform(pdist(members[nearest]))
    distinct = _distinct(between)
    pools = distinct[: -(-len(distinct) // 2)], distinct, np.arange(len(between))
    chosen: list[int] = [0]
    gap = between[0].copy()  # to the nearest of those that are chosen
    for pool in pools:
        left = np.setdiff1d(pool, chosen)
        while len(left) and len(chosen) < count:
            farthest = left[gap[left].argmax()]
            chosen.append(int(farthest))
            gap = np.minimum(gap, between[farthest])
            left = left[left != farthest]
    return rows[nearest[chosen[:count]]]


def _thinned(values: np.ndarray, most: int) -> np.ndarray:
    """So many of the values, evenly, with the first and the last."""
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).astype(int)]


def _distinct(between: np.ndarray) -> np.ndarray:
    """Of members f64[n, n] apart, those that are no near-duplicate of an earlier one, i64[m]."""
    near = between <= NEAR * np.quantile(between, MOST)
    kept: list[int] = []
    for i in range(len(between)):
        if not near[i, kept].any():
            kept.append(i)
    return np.array(kept)
