"""Linear discriminants on the host: directions that tell given clusters apart, and how near each cluster is there."""

from typing import Any, NamedTuple

import numpy as np
import scipy

SHRINKAGE = 0.3  # of the covariance within clusters
LEAST = 1e-5  # variance in all directions of points of length one, however alike those of a cluster are


class Discriminants(NamedTuple):
    """Points are compared as x @ directions, at length one."""

    directions: np.ndarray  # f32[D, P]
    means: np.ndarray  # f32[K, P], of the clusters' points


def unit(x: Any, xp: Any = np) -> Any:
    """Rows of x f32[N, D] at length one; a row of zeros stays one."""
    return x / xp.maximum(xp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def means(x: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Mean of each cluster 0..K-1 of points x f32[N, D], f32[K, D]; zero for one without members."""
    n = len(labels)
    members = scipy.sparse.csr_array((np.ones(n, x.dtype), (labels, np.arange(n))), shape=(k, n))
    return (members @ x) / np.maximum(np.bincount(labels, minlength=k), 1).astype(x.dtype)[:, None]


def fisher(x: np.ndarray, labels: np.ndarray, k: int) -> Discriminants:
    """Directions in which clusters lie far apart for their spread (Fisher, 1936; of several clusters, Rao, 1948).

    The covariance within clusters is shrunk towards the same variance in all directions (Friedman, JASA 1989).

    Args:
      x: points, f32[N, D], of length one.
      labels: clusters, i[N], in 0..K-1, of which some may have no members.
      k: number of clusters.

    Returns:
      The K - 1 best directions, or all D where these are fewer, and the means of the clusters along them.
    """
    n, d = x.shape
    mu = means(x, labels, k)
    share = np.bincount(labels, minlength=k) / n
    within = x.T @ x / n - (mu.T * share) @ mu
    same = max(np.trace(within) / d, LEAST) * np.eye(d)
    apart = mu - share @ mu
    between = (apart.T * share) @ apart
    _, axes = scipy.linalg.eigh(between, (1 - SHRINKAGE) * within + SHRINKAGE * same)
    directions = axes[:, ::-1][:, : min(k - 1, d)].astype(np.float32)
    return Discriminants(directions, means(unit(x @ directions), labels, k))


def closeness(among: Discriminants, x: Any, xp: Any = np) -> Any:
    """How near each cluster is to points x f32[N, D], f32[N, K]; the largest is the nearest mean.

    Half of the squared distance, subtracted from what is equal for all clusters: times 1 / variance, the logarithm of
    the density of Gaussians of that variance at the means.
    """
    return unit(x @ among.directions, xp) @ among.means.T - (among.means**2).sum(axis=1) / 2
