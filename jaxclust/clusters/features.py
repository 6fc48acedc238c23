"""Clusters of features of a pretrained network, in seconds: how many there are may be given, or is found.

    features     signed square root, where none is negative the Hellinger kernel (Arandjelovic, Zisserman, CVPR 2012);
                 length one; half-whitened principal components; length one
    start        communities of the graph of nearest neighbours of a random sample, at resolution 1: on all images their
                 number would grow with N. With K given, at the resolution that makes K of them
    refinement   in turn each image joins the nearest mean among the clusters' linear discriminants, as in LDA-k-means
                 (Ding and Li, ICML 2007), and then the majority of its nearest neighbours
    choice       of several samples, the clusters of most modularity on the graph of all images
    prediction   the nearest mean among the discriminants, for images of the pile and for new ones alike
    probability  of equal Gaussians at the means, as sharp as neighbours are likely to be in one cluster
    tree         of the clusters' means (Ward, JASA 1963)

Equal features count once: a thousand copies of an image are no cluster. A leftover lies between clusters; an image that
is like no other may still be near one of them (`novelty` says whether it is like any).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, ward
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from jaxclust.ops import graphs
from jaxclust.ops.components import half_whitening
from jaxclust.ops.discriminants import Discriminants, closeness, fisher, means, unit
from jaxclust.run.errors import ConfigError
from jaxclust.run.preemption import Due, Preempted, never

WIDTH = 128  # principal components
SAMPLE, MEMBERS, SAMPLES = 2000, 20, 10  # images of a sample, at least so many for each cluster, and samples
LINKED = 0.015, 10, 30  # share of a sample that an image is joined to, and the fewest and the most images
NEIGHBOURS = 15  # of an image among all
ROUNDS, SETTLED = 20, 0.001  # of refinement, at most, and share of the images that still move in the last
HALVINGS = 16  # of the range of resolutions
LEAST = 0.5  # probability of an image that is no leftover
SHARPEST = 100.0  # where no image has a neighbour in another cluster
CHUNK = 8192  # rows that are predicted at a time


class Model(NamedTuple):
    """All that predictions depend on."""

    mean: np.ndarray  # f32[D], of the features' roots at length one
    axes: np.ndarray  # f32[D, W], their half-whitened components
    among: Discriminants  # f32[W, P] and f32[K, P]
    sharpness: np.ndarray  # f32[], one over the variance of a cluster among the discriminants
    tree: np.ndarray  # f32[K - 1, 4], merges of clusters, as SciPy's `linkage` lists them


class Clusters(NamedTuple):
    """What a model says of images."""

    labels: np.ndarray  # i64[N]; cluster 0 is the largest of the pile that the model was fitted to
    probabilities: np.ndarray  # f32[N, K], rows sum to one
    leftovers: np.ndarray  # bool[N], no cluster has half of the probability


def fit(features: np.ndarray, clusters: int | None, seed: int, due: Due = never) -> tuple[Model, Clusters]:
    """Clusters the images of a pile by their features.

    Nearly all of the time goes into similarities of all pairs of images, and memory into the features as float32.

    Args:
      features: f[N, D], of any float type.
      clusters: K, or None to find it. Where fewer can be told apart, there are fewer.
      seed: of the samples; equal arguments give equal clusters.
      due: asked before every block of images.

    Returns:
      What predicts, and what it says of these images.

    Raises:
      ConfigError: features are not a table of finite numbers with at least one row, or K is below 1 or above N.
      Preempted: it was due to stop.
    """

    def held() -> None:
        if due():
            raise Preempted

    features = np.asarray(features)
    _check(features, clusters)
    first, copy_of = _distinct(features)
    roots = _roots(features[first])
    mean, axes = half_whitening(roots, WIDTH)
    z = unit((roots - mean) @ axes)  # f32[M, W] of the M different ones
    del roots
    nearest = graphs.neighbours(z, min(NEIGHBOURS, len(z) - 1), held) if len(z) > 1 else np.zeros((1, 1), np.int32)
    among, labels = _best(z, nearest, clusters, np.random.default_rng(seed), held)
    # The largest first, and none that no image is nearest to.
    sizes = np.bincount(labels[copy_of], minlength=len(among.means))
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    among = among._replace(means=among.means[order])
    near = closeness(among, z)
    labels = near.argmax(axis=1)
    tree = _tree(means(z, labels, len(order)))
    model = Model(mean, axes, among, _sharpness(near, labels, _within(nearest, len(order))), tree.astype(np.float32))
    return model, predict(model, features)


def predict(model: Model, features: np.ndarray) -> Clusters:
    """What a model says of images by their features f[N, D], of the pile that it was fitted to or others."""
    chunks = [posterior(model, features[i : i + CHUNK]) for i in range(0, len(features), CHUNK)]
    q = np.concatenate(chunks) if chunks else np.empty((0, len(model.among.means)), np.float32)
    return Clusters(q.argmax(axis=1), q, q.max(axis=1) < LEAST)


def posterior(model: Model, features: Any, xp: Any = np) -> Any:
    """The probability of each cluster for features f[N, D], f32[N, K], by NumPy or another module of its functions."""
    z = unit((_roots(features, xp) - model.mean) @ model.axes, xp)
    logits = model.sharpness * closeness(model.among, z, xp)
    p = xp.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def _check(features: np.ndarray, clusters: int | None) -> None:
    if features.ndim != 2 or not features.size:
        raise ConfigError(f"features have shape {features.shape}; give a table, one row for each image")
    bad = sum(int((~np.isfinite(features[i : i + CHUNK]).all(axis=1)).sum()) for i in range(0, len(features), CHUNK))
    if bad:
        raise ConfigError(f"the features of {bad} of {len(features)} images are not finite; leave these images out")
    if clusters is not None and clusters < 1:
        raise ConfigError(f"clusters is {clusters}; it must be at least 1")
    if clusters is not None and clusters > len(features):
        raise ConfigError(f"clusters is {clusters} but there are only {len(features)} images; lower clusters")


def _distinct(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows i64[M] that differ from each other, and which of these each row i64[N] is equal to."""
    rows = np.ascontiguousarray(features)
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, copy_of = np.unique(whole, return_index=True, return_inverse=True)
    return first, copy_of


def _roots(features: Any, xp: Any = np) -> Any:
    """Signed square roots of features f[N, D], f32[N, D] at length one."""
    x = features.astype(np.float32)
    return unit(xp.sign(x) * xp.sqrt(xp.abs(x)), xp)


def _best(
    z: np.ndarray, nearest: np.ndarray, k: int | None, rng: np.random.Generator, held: Callable[[], object]
) -> tuple[Discriminants, np.ndarray]:
    """Of several samples the clusters of points z f32[M, W] that have the most modularity, i64[M]; K of them first."""
    graph = graphs.union(nearest)
    found = []
    for _ in range(SAMPLES):
        held()
        among, labels = _refined(z, nearest, _start(z, k, rng))
        used = len(np.unique(labels)) if k else 0
        found.append((used, graphs.modularity(graph, labels), among, labels))
    *_, among, labels = max(found, key=lambda f: f[:2])
    return among, labels


def _start(z: np.ndarray, k: int | None, rng: np.random.Generator) -> np.ndarray:
    """Clusters of points z f32[M, W], i64[M], from communities of a random sample of them."""
    rows = np.sort(rng.permutation(len(z))[: max(SAMPLE, MEMBERS * (k or 0))])
    sample = z[rows]
    seed = int(rng.integers(2**31))
    if k is not None and k >= len(sample):
        labels = np.arange(len(sample))
    elif k == 1 or len(sample) == 1:
        labels = np.zeros(len(sample), np.int64)
    else:
        share, fewest, most = LINKED
        linked = min(max(round(share * len(sample)), fewest), most, len(sample) - 1)
        graph = graphs.jaccard(graphs.neighbours(sample, linked))
        labels = graphs.communities(graph, 1.0, seed) if k is None else _so_many(graph, sample, k, seed)
    return (z @ unit(means(sample, labels, int(labels.max()) + 1)).T).argmax(axis=1)


def _so_many(graph: Any, sample: np.ndarray, k: int, seed: int) -> np.ndarray:
    """K communities, i64[n], at the resolution that makes them; or the fewest above K, and the nearest ones merged."""
    best = np.arange(len(sample))  # what the highest resolution makes
    low, high = -6.0, np.log2(len(sample)) + 6
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        labels = graphs.communities(graph, 2**middle, seed)
        count = int(labels.max()) + 1
        low, high = (low, middle) if count >= k else (middle, high)
        if k <= count <= best.max():
            best = labels
        if count == k:
            break
    merges = ward(means(sample, best, int(best.max()) + 1)) if best.max() else np.empty((0, 4))
    return fcluster(merges, k, "maxclust")[best] - 1


def _refined(z: np.ndarray, nearest: np.ndarray, labels: np.ndarray) -> tuple[Discriminants, np.ndarray]:
    """In turn the nearest mean among discriminants, and the majority of the neighbours, until the majority stays.

    Args:
      z: points, f32[M, W].
      nearest: their neighbours, i32[M, k], the nearest first.
      labels: clusters to begin from, i64[M].

    Returns:
      The discriminants, and the nearest mean of each point among them, i64[M].
    """
    k = int(labels.max()) + 1
    voters = _within(nearest, k)
    for _ in range(ROUNDS):
        among = fisher(z, labels, k)
        joined = closeness(among, z).argmax(axis=1)
        voted = graphs.majority(joined, voters)
        lost = np.setdiff1d(labels, voted)
        voted = np.where(np.isin(labels, lost), labels, voted)
        moved = np.mean(voted != labels)
        labels = voted
        if moved <= SETTLED:
            break
    return among, joined


def _within(nearest: np.ndarray, k: int) -> np.ndarray:
    """No more neighbours than half of a cluster is large in the mean of K: more would outvote it as a whole."""
    return nearest[:, : max(len(nearest) // (2 * k), 1)]


def _sharpness(near: np.ndarray, labels: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """One over the variance of Gaussians at the means that says best what clusters an image's neighbours are in, f32[].

    Of how far the images lie from their own means one would learn less: means were moved there (their accuracy on
    CIFAR-10 is .84; the mean of the highest probability would be .99, and is .81 in this way).

    Args:
      near: from `closeness`, f32[M, K].
      labels: the nearest mean, i64[M].
      nearest: neighbours, i32[M, k].
    """
    rows = np.linspace(0, len(near) - 1, min(len(near), CHUNK)).round().astype(int)
    theirs = labels[nearest[rows]]

    def surprise(sharpness: float) -> float:
        return -float(np.take_along_axis(log_softmax(sharpness * near[rows], axis=1), theirs, axis=1).mean())

    return np.asarray(minimize_scalar(surprise, bounds=(0, SHARPEST), method="bounded").x, np.float32)


def _tree(mu: np.ndarray) -> np.ndarray:
    return ward(mu) if len(mu) > 1 else np.empty((0, 4))
