"""Whether points are one heap or two, seen along the direction that tells two heaps best apart.

The direction is found on one half of the points and looked along on the other half, which it knows nothing of: chance
separates any points in many dimensions, but it does not do so twice. Both halves take turns. Along the direction, two
heaps have a valley between them. A valley is judged against its lower side, so it does not matter whether the heaps
are Gaussian; a uniform cloud has no valley, and one that is long, skewed or heavy-tailed has none either.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.stats import iqr
from sklearn.cluster import KMeans
from sklearn.covariance import ledoit_wolf

from jaxclust.ops.components import leading

BINS = 256
# Each side of a valley holds at least this share of the points: a tenth of strangers from all over is no second heap.
LEAST = 0.15
# A heap has this many directions in which it may fall apart; further ones hold little of its variance.
WIDTH = 16


class Valley(NamedTuple):
    depth: float  # density at the bottom over that at the top of the lower side: 0 is a gap, 1 no valley
    certainty: float  # how many standard deviations of the count the bottom lies below
    share: float  # of the points, on the smaller side


def along(t: np.ndarray) -> Valley:
    """The deepest valley of points f64[n] on a line, by a Gaussian kernel of Silverman's width."""
    spread = min(float(t.std()), float(iqr(t)) / 1.349) or float(t.std())
    if spread == 0:
        return Valley(1.0, 0.0, 0.0)
    h = 0.9 * spread * len(t) ** -0.2
    low, high = np.quantile(t, [0.005, 0.995])
    low, high = low - 3 * h, high + 3 * h
    bins = int(np.clip((high - low) / h * 4, BINS, 8 * BINS))
    counts, edges = np.histogram(t, bins, (low, high))
    width = edges[1] - edges[0]
    density = gaussian_filter1d(counts.astype(float), h / width, mode="constant") / width  # points per unit
    below = np.cumsum(counts) / max(counts.sum(), 1)
    left, right = np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1]
    lower = np.minimum(left, right)
    inside = (below >= LEAST) & (below <= 1 - LEAST)
    if not inside.any():
        return Valley(1.0, 0.0, 0.0)
    depth = np.where(inside, density / np.maximum(lower, 1e-12), np.inf)
    at = int(depth.argmin())
    # A kernel of this width averages over 2 sqrt(pi) h, so so many points make up either height.
    top, bottom = lower[at] * 2 * np.sqrt(np.pi) * h, density[at] * 2 * np.sqrt(np.pi) * h
    certainty = (top - bottom) / np.sqrt(max(top + bottom, 1e-12))
    return Valley(float(depth[at]), float(certainty), float(min(below[at], 1 - below[at])))


def between(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> Valley:
    """The valley between two clusters f64[n, d], of which as many points each are taken, by the shallower half."""
    count = min(len(a), len(b))
    a, b = rng.permutation(a)[:count], rng.permutation(b)[:count]
    half, seen = count // 2, []
    for one, other in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        axis = discriminant(a[one], b[one])
        seen.append(along(np.concatenate([a[other], b[other]]) @ axis))
    return _worse(seen)


def within(x: np.ndarray, rng: np.random.Generator) -> Valley:
    """The valley between the two halves that 2-means makes of a cluster f64[n, d], by the shallower half."""
    x = rng.permutation(x)
    half, seen = len(x) // 2, []
    for one, other in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        components = leading(x[one], WIDTH)
        z = components.transform(x[one])
        if not z.std(axis=0).any():
            return Valley(1.0, 0.0, 0.0)
        parts = KMeans(2, n_init=4, random_state=0).fit_predict(z)
        if min(np.bincount(parts, minlength=2)) < 2:
            return Valley(1.0, 0.0, 0.0)
        axis = discriminant(z[parts == 0], z[parts == 1])
        seen.append(along(components.transform(x[other]) @ axis))
    return _worse(seen)


def discriminant(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fisher's direction f64[d] between two clusters f64[n, d], their common covariance shrunk (Ledoit, Wolf 2004)."""
    inner, _ = ledoit_wolf(np.concatenate([a - a.mean(axis=0), b - b.mean(axis=0)]))
    trace = np.trace(inner) / len(inner)
    return np.linalg.solve(inner + 1e-6 * (trace or 1) * np.eye(len(inner)), a.mean(axis=0) - b.mean(axis=0))


def _worse(seen: list[Valley]) -> Valley:
    return Valley(*(pick(values) for pick, values in zip((max, min, np.mean), zip(*seen))))
