"""Scores of a clustering: functions of `(labels_true, labels_pred)`, integer arrays i[N] of any values.

Those against labels are scikit-learn's, under the names that papers use.

    against labels    ACC, NMI, ARI, AMI, and the accuracy of each cluster
    without labels    used clusters, sizes, balance, spread of the centres, silhouette, confidence
"""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import pdist
from scipy.stats import entropy
from sklearn import metrics
from sklearn.metrics.cluster import contingency_matrix


def contingency(labels_true: np.ndarray, labels_pred: np.ndarray) -> np.ndarray:
    """Counts of each (class, cluster) pair, i64[C, K], in sorted order of the values that occur."""
    return contingency_matrix(*_checked(labels_true, labels_pred))


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
    rows, columns = linear_sum_assignment(contingency(labels_true, labels_pred), maximize=True)
    classes, clusters = np.unique(labels_true), np.unique(labels_pred)
    return dict(zip(clusters[columns].tolist(), classes[rows].tolist()))


def accuracy(labels_true: np.ndarray, labels_pred: np.ndarray) -> float:
    """ACC: share of points whose cluster is matched to their class (`match`)."""
    counts = contingency(labels_true, labels_pred)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / counts.sum())


def nmi(labels_true: np.ndarray, labels_pred: np.ndarray) -> float:
    """Mutual information over the arithmetic mean of the two entropies, in [0, 1]."""
    return float(metrics.normalized_mutual_info_score(*_checked(labels_true, labels_pred)))


def ari(labels_true: np.ndarray, labels_pred: np.ndarray) -> float:
    """Rand index adjusted for chance (Hubert and Arabie, 1985): 0 at random, 1 for equal partitions."""
    return float(metrics.adjusted_rand_score(*_checked(labels_true, labels_pred)))


def ami(labels_true: np.ndarray, labels_pred: np.ndarray) -> float:
    """Mutual information adjusted for chance (Vinh et al., JMLR 2010), arithmetic mean: 0 at random."""
    return float(metrics.adjusted_mutual_info_score(*_checked(labels_true, labels_pred)))


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
    hits = np.zeros(clusters)
    for cluster, label in match(labels_true, labels_pred).items():
        hits[cluster] = np.sum((labels_pred == cluster) & (labels_true == label))
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
    return float(entropy(sizes) / np.log(len(sizes))) if len(sizes) > 1 else 1.0


def mean_centre_distance(centres: np.ndarray) -> float:
    """Mean Euclidean distance over the K(K-1)/2 pairs of centres f32[K, D]; nan for a single centre."""
    return float(pdist(centres).mean()) if len(centres) > 1 else float("nan")


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
    return float(metrics.silhouette_score(x[rows], labels_pred[rows]))


def confidence(q: np.ndarray) -> float:
    """Mean over points of the largest probability, from q f32[N, K]: 1/K is undecided, 1 is certain."""
    return float(np.asarray(q).max(1).mean())


def _checked(a: np.ndarray, b: np.ndarray, names: str = "labels_true and labels_pred"):
    a, b = np.asarray(a), np.asarray(b)
    if not len(a) or len(a) != len(b):
        raise ValueError(f"{names} have {len(a)} and {len(b)} rows; give as many of both, at least one")
    return a, b
