"""The four criteria of a range of K, computed on a sample of the embeddings."""

import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, davies_bouldin_score, silhouette_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from jaxclust.ops.components import leading
from jaxclust.run.errors import ConfigError

SAMPLE = 2000  # points at most that are scored; silhouette is quadratic in them
CHUNK = 8192  # rows that are in memory at a time
MEMBERS = 5  # points of the sample for each cluster, at least: fewer have no spread to speak of
VARIANCE, WIDTH = 0.95, 64  # components that hold this share of the variance, but no more than so many
MIXTURE_WIDTH = 10
DRAWS, REFERENCE_DRAWS, SHARE = 10, 5, 0.8  # subsamples of the sample and of the reference, and the size of each
RESTARTS, DRAW_RESTARTS = 10, 3  # of k-means, on the sample and on a subsample


class Table(NamedTuple):
    """The criteria, one row for each K."""

    k: np.ndarray  # i64[R], ascending
    silhouette: np.ndarray  # f64[R], in [-1, 1]
    davies_bouldin: np.ndarray  # f64[R], 0 is best
    stability: np.ndarray  # f64[R], adjusted Rand index over pairs of subsamples
    stability_sd: np.ndarray  # f64[R]
    bic: np.ndarray  # f64[R], embeddings scaled to a total variance of one
    reference_silhouette: np.ndarray  # f64[R], of one Gaussian of the same covariance
    reference_stability: np.ndarray  # f64[R]
    single_bic: float  # of one Gaussian
    images: int
    sampled: int  # of the images
    asked: int  # largest K that was asked for; more than k[-1] where the sample is too small for it


def score(x: np.ndarray, ks: Sequence[int], seed: int) -> Table:
    """Scores each K by four criteria.

    Args:
      x: embeddings, f32[N, D].
      ks: numbers of clusters, each at least 2; those that the sample is too small for are left out.
      seed: of the sample, the subsamples, the reference and k-means; the same seed gives the same table.

    Returns:
      The table, in ascending order of K.

    Raises:
      ConfigError: no K to score, or embeddings that are not finite, too few, or all (or nearly all) the same.
    """
    ks = sorted(set(ks))
    if not ks or ks[0] < 2:
        raise ConfigError(f"the range of K is {ks}; give at least one K, and none below 2")
    rng = np.random.default_rng(seed)
    sample = _sample(np.asarray(x), rng)
    different = len(np.unique(sample, axis=0))
    most = min(len(sample) // MEMBERS, different)
    kept = [k for k in ks if k <= most]
    if not kept:
        raise ConfigError(
            f"{len(x)} images ({different} different embeddings in a sample of {len(sample)}) are too few for "
            f"{ks[0]} clusters; score {most} at most"
        )
    z = components(sample)  # f64[n, d]
    reference = rng.normal(size=z.shape) * z.std(axis=0)  # components are uncorrelated
    draws = [np.sort(rng.permutation(len(z))[: round(SHARE * len(z))]) for _ in range(DRAWS)]
    state = int(rng.integers(2**31))  # of k-means

    # One thread: sums in one order give the same table anywhere, and for problems this small it is as fast.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a subsample with fewer different points than clusters
        rows = []
        for k in kept:
            clusters = KMeans(k, n_init=RESTARTS, random_state=state).fit(z)
            plain = KMeans(k, n_init=DRAW_RESTARTS, random_state=state).fit_predict(reference)
            agreement = agreements(z, k, draws, state)
            chance = agreements(reference, k, draws[:REFERENCE_DRAWS], state)
            quality = silhouette_score(z, clusters.labels_), davies_bouldin_score(z, clusters.labels_)
            steadiness = np.mean(agreement), np.std(agreement)
            rows.append(
                (k, *quality, *steadiness, bic(z, clusters), silhouette_score(reference, plain), np.mean(chance))
            )
        single = bic(z, KMeans(1, n_init=1, random_state=state).fit(z))
    columns: Any = map(np.array, zip(*rows))
    return Table._make((*columns, single, len(x), len(sample), ks[-1]))


def _sample(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random sample of embeddings f64[n, D] that can be scored."""
    if x.ndim != 2:
        raise ConfigError(f"embeddings have shape {x.shape}; to choose K they must be a table, one row for each image")
    if len(x) < 4 * MEMBERS:
        raise ConfigError(f"there are only {len(x)} images; to choose K give at least {4 * MEMBERS}")
    bad = sum(int((~np.isfinite(x[i : i + CHUNK]).all(axis=1)).sum()) for i in range(0, len(x), CHUNK))
    if bad:
        raise ConfigError(
            f"the embeddings of {bad} of {len(x)} images are not finite; the run has diverged, train anew"
        )
    x = x[rng.permutation(len(x))[:SAMPLE]].astype(np.float64)
    common = np.unique(x, axis=0, return_counts=True)[1].max()
    if common >= SHARE * len(x):  # a subsample may hold nothing else
        raise ConfigError(
            f"{common} of {len(x)} embeddings are the same; the network tells images apart too little to choose K"
        )
    return x


def components(x: np.ndarray) -> np.ndarray:
    """Leading principal components of x f64[n, D], scaled together so that all components would have variance one.

    Returns:
      f64[n, d], the fewest that hold the share VARIANCE of the variance, but at most WIDTH.
    """
    z = leading(x, VARIANCE).transform(x)
    return z[:, :WIDTH] / np.sqrt(x.var(axis=0).sum())


def agreements(z: np.ndarray, k: int, draws: Sequence[np.ndarray], seed: int) -> list[float]:
    """How much k-means agrees with itself from one subsample to another.

    Args:
      z: points, f64[n, d].
      k: number of clusters.
      draws: the subsamples, each i64[m] row numbers.
      seed: of k-means.

    Returns:
      The adjusted Rand index of each pair of subsamples, over the points that they share.
    """
    clusterings = np.full((len(draws), len(z)), -1)
    for i, rows in enumerate(draws):
        clusterings[i, rows] = KMeans(k, n_init=DRAW_RESTARTS, random_state=seed + i).fit_predict(z[rows])
    agreement = []
    for a, b in combinations(clusterings, 2):
        shared = (a >= 0) & (b >= 0)
        agreement.append(adjusted_rand_score(a[shared], b[shared]))
    return agreement


def bic(z: np.ndarray, start: KMeans) -> float:
    """BIC of a mixture of Gaussians that share a covariance, among the leading components of z f64[n, d].

    With a covariance for each, BIC would give up clusters to save parameters, at a few hundred points a cluster.
    """
    k = len(start.cluster_centers_)
    mixture = GaussianMixture(
        k,
        covariance_type="tied",
        weights_init=np.bincount(start.labels_, minlength=k) / len(z),
        means_init=start.cluster_centers_[:, :MIXTURE_WIDTH],
        random_state=start.random_state,
    )
    return float(mixture.fit(z[:, :MIXTURE_WIDTH]).bic(z[:, :MIXTURE_WIDTH]))
