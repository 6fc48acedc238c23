"""Scores of a clustering: functions of `(labels_true, labels_pred)`, integer arrays i[N] of any values.

Those against labels are scikit-learn's, under the names that papers use.

    against labels    ACC, NMI, ARI, AMI, and the accuracy of each cluster
    without labels    used clusters, sizes, balance, spread of the centres, silhouette, confidence
"""

from typing import Any

import numpy as np
import scipy  # its parts are imported when they are first used

PAIRS = 2**16  # of a class and a cluster, from which chance is worked out here
TAIL = 45.0  # counts less probable than exp(-45) are left out


def _sklearn() -> Any:
    """scikit-learn's scores, which take seconds to import: a run takes its first steps before it needs them."""
    from sklearn import metrics

    return metrics


def contingency(labels_true: np.ndarray, labels_pred: np.ndarray) -> np.ndarray:
    """Counts of each (class, cluster) pair, i64[C, K], in sorted order of the values that occur."""
    return _sklearn().cluster.contingency_matrix(*_checked(labels_true, labels_pred))


def match(labels_true: np.ndarray, labels_pred: np.ndarray) -> dict[int, int]:
    """One-to-one matching of clusters to classes that agrees on most points (Hungarian method).

    Args:
      labels_true: classes, i[N].
      labels_pred: clusters, i[N].

    Returns:
      dict cluster -> class; with more clusters than classes the clusters left over are not in it.

    Raises:
      ValueError: no labels, or not as many of both.
    """
    rows, columns = scipy.optimize.linear_sum_assignment(contingency(labels_true, labels_pred), maximize=True)
    classes, clusters = np.unique(labels_true), np.unique(labels_pred)
    return dict(zip(clusters[columns].tolist(), classes[rows].tolist()))


def accuracy(labels_true: np.ndarray, labels_pred: np.ndarray) -> float:
    """ACC: share of points whose cluster is matched to their class (`match`)."""
    counts = contingency(labels_true, labels_pred)
    return float(counts[scipy.optimize.linear_sum_assignment(counts, maximize=True)].sum() / counts.sum())


def nmi(labels_true: np.ndarray, labels_pred: np.ndarray) -> float:
    """Mutual information over the arithmetic mean of the two entropies, in [0, 1]."""
    return float(_sklearn().normalized_mutual_info_score(*_checked(labels_true, labels_pred)))


def ari(labels_true: np.ndarray, labels_pred: np.ndarray) -> float:
    """Rand index adjusted for chance (Hubert and Arabie, 1985): 0 at random, 1 for equal partitions."""
    return float(_sklearn().adjusted_rand_score(*_checked(labels_true, labels_pred)))


def ami(labels_true: np.ndarray, labels_pred: np.ndarray) -> float:
    """Mutual information adjusted for chance (Vinh et al., JMLR 2010), arithmetic mean: 0 at random."""
    counts = contingency(labels_true, labels_pred)
    if counts.size <= PAIRS:
        return float(_sklearn().adjusted_mutual_info_score(labels_true, labels_pred))
    n, a, b = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    i, j = np.nonzero(counts)
    p = counts[i, j] / n
    mutual = np.sum(p * (np.log(p) - np.log(a[i] / n) - np.log(b[j] / n)))
    entropy = (scipy.special.entr(a / n).sum() + scipy.special.entr(b / n).sum()) / 2
    chance = expected_mutual_information(a, b)
    return float((mutual - chance) / (entropy - chance))


def expected_mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information in nats that classes and clusters of these sizes have by chance (Vinh et al., eq. 24a).

    Pairs of the same two sizes are worked out once, and of the hypergeometric distribution of what the two share only
    what lies within its tails (Bernstein's bound): scikit-learn adds up every count there is, N K of them.

    Args:
      a: sizes of the classes, i64[C].
      b: of the clusters, i64[K]; both sum to N.
    """
    n = int(a.sum())
    log_factorial = scipy.special.gammaln(np.arange(n + 1) + 1.0)
    (a, times_a), (b, times_b) = (np.unique(sizes[sizes > 0], return_counts=True) for sizes in (a, b))
    total = 0.0
    for size, times in zip(a.tolist(), times_a.tolist()):
        mean = size * b / n
        low = np.maximum(np.maximum(1, size + b - n), np.floor(mean - np.sqrt(2 * TAIL * mean))).astype(int)
        high = np.minimum(np.minimum(size, b), np.ceil(mean + TAIL + np.sqrt(2 * TAIL * mean))).astype(int)
        shared = low[:, None] + np.arange(max((high - low).max() + 1, 0))  # i64[B, W]
        within, other = shared <= high[:, None], b[:, None]
        shared = np.minimum(shared, high[:, None])
        log_p = log_factorial[size] + log_factorial[n - size] - log_factorial[n]
        log_p = log_p + log_factorial[other] + log_factorial[n - other] - log_factorial[shared]
        log_p -= log_factorial[size - shared] + log_factorial[other - shared]
        log_p -= log_factorial[n - size - other + shared]
        terms = np.exp(log_p) * shared / n * np.log(n * shared / (size * other))
        total += times * float(times_b @ np.where(within, terms, 0).sum(axis=1))
    return total


def labelled(labels_true: np.ndarray, labels_pred: np.ndarray) -> dict[str, float]:
    """All scores against labels as plain floats: {"acc", "nmi", "ari", "ami"}."""
    scores = {"acc": accuracy, "nmi": nmi, "ari": ari, "ami": ami}
    return {name: score(labels_true, labels_pred) for name, score in scores.items()}


def per_cluster_accuracy(labels_true: np.ndarray, labels_pred: np.ndarray, clusters: int) -> np.ndarray:
    """Share of each cluster's members that have the class matched to it.

    Args:
      labels_true: classes, i[N].
      labels_pred: clusters, i[N], in 0..K-1.
      clusters: K, counting empty ones.

    Returns:
      f64[K]: 0.0 for a cluster that no class is matched to, nan for an empty one.

    Raises:
      ValueError: no labels, not as many of both, or a cluster outside 0..K-1.
    """
    labels_true, labels_pred = _checked(labels_true, labels_pred)
    sizes = cluster_sizes(labels_pred, clusters)
    counts = contingency(labels_true, labels_pred)
    rows, columns = scipy.optimize.linear_sum_assignment(counts, maximize=True)
    hits = np.zeros(clusters)
    hits[np.unique(labels_pred)[columns]] = counts[rows, columns]
    return np.divide(hits, sizes, out=np.full(clusters, np.nan), where=sizes > 0)


def used_clusters(labels_pred: np.ndarray) -> int:
    """Number of clusters that have a member."""
    return len(np.unique(labels_pred))


def cluster_sizes(labels_pred: np.ndarray, clusters: int) -> np.ndarray:
    """Members of each cluster.

    Args:
      labels_pred: clusters, i[N], in 0..K-1.
      clusters: K, counting empty ones.

    Returns:
      i64[K].

    Raises:
      ValueError: no labels, or a cluster outside 0..K-1.
    """
    labels_pred, _ = _checked(labels_pred, labels_pred)
    low, high = labels_pred.min(), labels_pred.max()
    if low < 0 or high >= clusters:
        raise ValueError(f"labels_pred runs {low}..{high}; with clusters {clusters} give 0..{clusters - 1}")
    return np.bincount(labels_pred, minlength=clusters)


def members(labels_pred: np.ndarray, clusters: int) -> list[np.ndarray]:
    """The points of each cluster 0..K-1 in their order, K arrays i64[n], in one sort and not one search for each."""
    few = np.asarray(labels_pred).astype(np.min_scalar_type(clusters))  # of 16 bits, sorted in a quarter of the time
    return np.split(np.argsort(few, kind="stable"), np.cumsum(np.bincount(few, minlength=clusters))[:-1])


def balance_entropy(sizes: np.ndarray) -> float:
    """Entropy of the cluster sizes in nats over log K, its largest value: 1 if all are equal, 0 if one has all.

    Args:
      sizes: members of each cluster, i64[K], empty ones too.

    Returns:
      float in [0, 1]; 1.0 for a single cluster.

    Raises:
      ValueError: no cluster has a member.
    """
    sizes = np.asarray(sizes)
    if not sizes.sum():
        raise ValueError(f"the {len(sizes)} clusters have no members; the balance needs at least one")
    return float(scipy.special.entr(sizes / sizes.sum()).sum() / np.log(len(sizes))) if len(sizes) > 1 else 1.0


def mean_centre_distance(centres: np.ndarray) -> float:
    """Mean Euclidean distance over the K(K-1)/2 pairs of centres f32[K, D]; nan for a single centre."""
    return float(scipy.spatial.distance.pdist(centres).mean()) if len(centres) > 1 else float("nan")


def silhouette(x: np.ndarray, labels_pred: np.ndarray, sample: int = 2000, seed: int = 0) -> float:
    """Mean silhouette coefficient (Rousseeuw, 1987) of a random sample, Euclidean.

    Args:
      x: embeddings, f32[N, D].
      labels_pred: clusters, i[N].
      sample: points drawn without replacement (all if N is less); the cost is quadratic in it.
      seed: of the draw.

    Returns:
      float in [-1, 1]; nan where the sample has fewer than two clusters, or only singletons.

    Raises:
      ValueError: no points, or not one label for each.
    """
    x, labels_pred = _checked(x, labels_pred, names="x and labels_pred")
    rows = np.random.default_rng(seed).permutation(len(x))[:sample]
    if not 2 <= used_clusters(labels_pred[rows]) < len(rows):
        return float("nan")
    return float(_sklearn().silhouette_score(x[rows], labels_pred[rows]))


def confidence(q: np.ndarray) -> float:
    """Mean over points of the largest probability, from q f32[N, K]: 1/K is undecided, 1 is certain."""
    return float(np.asarray(q).max(1).mean())


def _checked(a: np.ndarray, b: np.ndarray, names: str = "labels_true and labels_pred") -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a), np.asarray(b)
    if not len(a) or len(a) != len(b):
        raise ValueError(f"{names} have {len(a)} and {len(b)} rows; give as many of both, at least one")
    return a, b
