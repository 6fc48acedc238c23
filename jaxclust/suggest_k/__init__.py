"""How many clusters there are, when nobody knows: four criteria over a range of K, and what they amount to.

Nothing is trained: the criteria look at a finished run's embeddings, and at no label. Where a run has several, the one
with the clearest clusters counts (`clearest`).

    silhouette       how much nearer a point is to its own cluster than to the next (Rousseeuw, 1987)
    Davies-Bouldin   spread within clusters over the distance between them, lower is better (1979)
    stability        adjusted Rand index of k-means on random subsamples, over the points that two of them share: the
                     protocol of Ben-Hur et al. (PSB 2002) over all pairs, as in von Luxburg (2010, arXiv:1007.1075)
    BIC              of a mixture of K Gaussians, lower is better (Schwarz, 1978)

Two clusters are stable in any elongated cloud, so stability counts by how far it exceeds that of a reference: one
Gaussian of the same covariance (Dudoit and Fridlyand, Genome Biology 2002). The same reference tells whether there are
clusters at all. Silhouette, Davies-Bouldin and BIC rarely turn around at the right K: a cluster of images has styles,
and splitting off a style keeps improving them a little. So what counts is the corner of the curve, where two straight
lines fit it best (the L method, Salvador and Chan, ICTAI 2004).

A network shapes its embeddings to the number of clusters that it is trained for: CC for 20 still shows the ten digits,
MMDC, which pulls images to 20 corners, shows 19. So an answer near that number is worth a run with another.

The cost does not grow with N: criteria are computed on a random sample, in its leading principal components. These
hold what separates clusters, whose K centres span K - 1 directions, and make every distance cheap. The mixture has
fewer of them: ten directions hold most of what separates thirty clusters, and further ones mostly styles.
"""

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, davies_bouldin_score, silhouette_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from jaxclust.config import ConfigError

SAMPLE = 2000  # points at most that are scored; silhouette is quadratic in them
MEMBERS = 5  # points of the sample for each cluster, at least: fewer have no spread to speak of
VARIANCE, WIDTH = 0.95, 64  # components that hold this share of the variance, but no more than so many
MIXTURE_WIDTH = 10
DRAWS, REFERENCE_DRAWS, SHARE = 10, 5, 0.8  # subsamples of the sample and of the reference, and the size of each
RESTARTS, DRAW_RESTARTS = 10, 3  # of k-means, on the sample and on a subsample
CLEAR = 0.05  # silhouette above the reference's, from which there are clusters; one cloud has 0.00 to 0.02


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
    return Table(*map(np.array, zip(*rows)), single, len(x), len(sample), ks[-1])


def _sample(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random sample of embeddings f64[n, D] that can be scored."""
    if x.ndim != 2:
        raise ConfigError(f"embeddings have shape {x.shape}; to choose K they must be a table, one row for each image")
    if len(x) < 4 * MEMBERS:
        raise ConfigError(f"there are only {len(x)} images; to choose K give at least {4 * MEMBERS}")
    bad = len(x) - int(np.isfinite(x).all(axis=1).sum())
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
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    s = s / np.linalg.norm(s)
    width = min(int(np.searchsorted(np.cumsum(s**2), VARIANCE)) + 1, WIDTH)
    return (u * s)[:, :width] * np.sqrt(len(x))


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


def corner(ks: np.ndarray, values: np.ndarray) -> int:
    """The K from which more clusters stop buying a better value.

    Args:
      ks: i64[R], ascending.
      values: f64[R], higher is better.

    Returns:
      Where two straight lines, the first steeper, meet that fit best what is reached with at most K clusters.
    """
    reached = np.maximum.accumulate(values)
    last = int(np.argmax(reached))
    best, error = ks[last], np.inf
    for k in ks[last:0:-1]:  # of equally good corners the last: a straight line has none before its end
        lines = np.stack([np.ones(len(ks)), ks, np.minimum(ks, k)], axis=1)
        fit, *_ = np.linalg.lstsq(lines, reached, rcond=None)
        squares = np.sum((lines @ fit - reached) ** 2)
        if fit[2] > 0 and squares < error - 1e-9 * np.ptp(reached) ** 2:
            best, error = k, squares
    return int(best)


def turns(values: np.ndarray) -> bool:
    """Whether a falling curve f64[R] rises again: past two points at least, and by more than any bump on its way."""
    lowest = int(np.argmin(values))
    bump = np.diff(values[: lowest + 1]).max(initial=0)
    return bool(lowest < len(values) - 2 and values[-1] - values[lowest] > bump)


def steadiest(table: Table, low: int, high: int) -> int:
    """The smallest K from low to high whose stability above the reference is within one sd of the best there."""
    rows = np.flatnonzero((low <= table.k) & (table.k <= high))
    above = (table.stability - table.reference_stability)[rows]
    best = int(np.argmax(above))
    return int(table.k[rows[np.argmax(above >= above[best] - table.stability_sd[rows[best]])]])


def preferences(table: Table) -> dict[str, int]:
    """The K that each criterion prefers: "silhouette", "davies_bouldin", "stability", "bic"."""
    return {
        "silhouette": corner(table.k, table.silhouette),
        "davies_bouldin": corner(table.k, -table.davies_bouldin),
        "stability": steadiest(table, table.k[0], table.k[-1]),
        "bic": int(table.k[table.bic.argmin()]) if turns(table.bic) else corner(table.k, -table.bic),
    }


def clearness(table: Table, k: int) -> float:
    """How far the silhouette at k exceeds that of one Gaussian of the same covariance."""
    return float((table.silhouette - table.reference_silhouette)[table.k == k][0])


def vote(table: Table) -> int:
    """What stability favours between the middle two of the four preferences, so that no extreme one decides."""
    low, high = sorted(preferences(table).values())[1:3]
    return steadiest(table, low, high)


def clearest(tables: Mapping[str, Table]) -> str:
    """Which of several embeddings to believe: the one whose clusters at its own best K are the clearest."""
    return max(tables, key=lambda name: clearness(tables[name], vote(tables[name])))


def recommend(table: Table, trained: int | None = None) -> tuple[int | None, list[str]]:
    """A number of clusters, and why.

    Args:
      table: from `score`.
      trained: the number of clusters that the run was told of, if it was; networks shape their embeddings to it.

    Returns:
      K, or None where the points are one cloud; and sentences that say what each criterion prefers, how they were
      weighed, and what speaks against trusting the answer.
    """
    wanted, k = preferences(table), vote(table)
    at = {int(k): i for i, k in enumerate(table.k)}
    first, last = int(table.k[0]), int(table.k[-1])
    steady = at[wanted["stability"]]

    def stops(name: str, values: np.ndarray, best: int, what: str) -> str:
        here = wanted[name]
        beyond = f"; its best is {values[best]:.2f}, at {table.k[best]}" if table.k[best] != here else ""
        return f"{what} at K = {here} ({values[at[here]]:.2f}{beyond})."

    reasons = [
        stops("silhouette", table.silhouette, table.silhouette.argmax(), "The silhouette stops rising"),
        stops("davies_bouldin", table.davies_bouldin, table.davies_bouldin.argmin(), "Davies-Bouldin stops falling"),
        f"Stability favours K = {wanted['stability']}: subsamples agree to {table.stability[steady]:.2f} (adjusted "
        f"Rand index), and would in one shapeless cloud to {table.reference_stability[steady]:.2f}.",
        f"BIC is lowest at K = {wanted['bic']}."
        if turns(table.bic)
        else f"BIC falls throughout, as it does where clusters are not Gaussian; its corner is at K = {wanted['bic']}.",
    ]
    above = clearness(table, k)
    if above < CLEAR:
        cloud = " A single Gaussian has the lowest BIC." if table.single_bic <= table.bic.min() else ""
        reasons.insert(
            0,
            f"There are no clear clusters: even at K = {k} the silhouette is {table.silhouette[at[k]]:.2f}, and one "
            f"shapeless cloud has {table.reference_silhouette[at[k]]:.2f}.{cloud} What follows means little.",
        )
        k = None
    else:
        ranked = sorted(wanted.values())
        low, high = ranked[1:3]
        between = f"both {low}" if low == high else f"{low} and {high}, and between them stability favours {k}"
        reasons.append(f"Of the four, {', '.join(map(str, ranked))}, the middle two are {between}.")
        if ranked[-1] - ranked[0] > max(2, k // 3):
            reasons.append("The criteria disagree, so K is a rough guide: look at the clusters of its neighbours, too.")
        if trained is not None and abs(k - trained) <= 1:
            reasons.append(
                f"The run was trained for {trained} clusters, and may show what it was told: see whether a run for "
                f"{trained // 2 or 2} or {2 * trained} gives this answer, too."
            )
        if k == last and first < last:
            reasons.append(f"K = {k} is the largest that was scored, so there may be more; widen the range.")
        elif k == first > 2:
            reasons.append(f"K = {k} is the smallest that was scored, so there may be fewer; widen the range.")
    if last < table.asked:
        reasons.append(f"K above {last} was left out: {table.sampled:,} images are too few for {table.asked} clusters.")
    return k, reasons
