"""Clusters in the embedding: which run into their neighbours, which fall apart, which the head confuses."""

import functools

import numpy as np
from scipy.spatial.distance import cdist

from jaxclust.clusters import decisions
from jaxclust.ops.components import leading
from jaxclust.pages.report import valley
from jaxclust.pages.report.clusters import centres, members, sizes_of, totals
from jaxclust.pages.report.facts import Facts

# A valley at most this deep, certain to this many standard deviations, makes a cluster two. Of 4,800 single heaps in 64
# dimensions (100 to 400 points: Gaussian, round and long; uniform; a sphere; heavy-tailed; skewed; rectified) none did.
TWO, CERTAIN = 0.5, 2.5
# Two clusters with no more of a valley than this look like one; a Gaussian that 2-means cut has 0.95 and more, and two
# Gaussians 5 standard deviations apart 0.7 and less.
ONE = 0.9
# Neighbours are apart with a valley of this depth: at most 0.25 in a run on the digits that went well, up to 0.6 in one
# on CIFAR-10 whose clusters hardly follow the classes.
GAP = 0.3
# Images that a cluster must have to be judged on its shape; below, a valley is luck.
FEW_WITHIN, FEW_BETWEEN = 100, 60
SAMPLE = 400  # images of a cluster that its shape is judged on, at most
NEIGHBOURS = 2  # nearest other clusters that each is compared with
WIDTH = 128  # principal components of the embedding in which shapes are judged
# Of the probability that an image's own and one other cluster share, the other has this much on average: the head
# cannot tell them apart. A head that can has a few per cent.
CONFUSED = 0.3


class Shapes:
    """Samples of the clusters in the leading components of the embedding, and which clusters are near each other."""

    def __init__(self, facts: Facts):
        self.numbers, _ = sizes_of(facts)
        self._rng = np.random.default_rng(0)
        drawn = [self._drawn(rows) for rows in members(facts)]
        every = np.concatenate(drawn)
        part = np.asarray(facts.x[every[self._drawn(np.arange(len(every)), 5000)]], np.float64)
        components = leading(part, WIDTH)
        self.x = [
            components.transform(np.asarray(facts.x[rows], np.float64)) if len(rows) else part[:0] for rows in drawn
        ]
        self._centres = centres(facts.x, facts.group, self.numbers)

    def _drawn(self, rows: np.ndarray, count: int = SAMPLE) -> np.ndarray:
        return np.sort(self._rng.permutation(rows)[:count])

    def neighbours(self) -> list[tuple[int, int]]:
        """Pairs of places in `numbers`: each cluster with members, and those whose centres are nearest to its own."""
        away = cdist(self._centres, self._centres)
        away[np.isnan(away) | np.eye(len(away), dtype=bool)] = np.inf
        pairs = {
            (min(i, j), max(i, j))
            for i in range(len(away))
            for j in np.argsort(away[i], kind="stable")[:NEIGHBOURS].tolist()
            if np.isfinite(away[i, j])
        }
        return sorted(pairs)

    @functools.cached_property
    def gaps(self) -> dict[tuple[int, int], float]:
        """Numbers of neighbouring clusters that can be judged, and the depth of the valley between them."""
        rng, found = np.random.default_rng(0), {}
        for i, j in self.neighbours():
            a, b = self.x[i], self.x[j]
            if min(len(a), len(b)) >= FEW_BETWEEN:
                found[int(self.numbers[i]), int(self.numbers[j])] = valley.between(a, b, rng).depth
        return found

    def alike(self) -> list[tuple[int, int]]:
        """Numbers of neighbouring clusters without a valley in between."""
        return [pair for pair, depth in self.gaps.items() if depth > ONE]

    def apart(self) -> bool:
        """Whether there is a clear gap between all neighbours."""
        return bool(self.gaps) and max(self.gaps.values()) < GAP

    def divided(self) -> dict[int, valley.Valley]:
        """Numbers of clusters with a valley within, the deepest first."""
        rng = np.random.default_rng(0)
        judged = [(int(n), valley.within(x, rng)) for n, x in zip(self.numbers, self.x) if len(x) >= FEW_WITHIN]
        two = [(n, seen) for n, seen in judged if seen.depth < TWO and seen.certainty > CERTAIN]
        return dict(sorted(two, key=lambda item: item[1].depth))


def confused(facts: Facts) -> list[tuple[int, int, float]]:
    """Numbers of two clusters that the head hardly tells apart, and `confusion`'s share, the largest first."""
    numbers, _ = sizes_of(facts)
    share = confusion(facts)
    found = [(int(numbers[i]), int(numbers[j]), float(share[i, j])) for i, j in np.argwhere(np.triu(share) > CONFUSED)]
    return sorted(found, key=lambda pair: -pair[2])


def confusion(facts: Facts) -> np.ndarray:
    """How much of the probability that an image's own and one other cluster share the other has, f64[G, G], symmetric.

    One of the network's counts for the cluster that most of its images are in. A cluster that has none then, as a part
    of a split one, is confused with nothing.
    """
    numbers, sizes = sizes_of(facts)
    place, clusters = np.searchsorted(numbers, facts.group), facts.q.shape[1]
    mass = totals(facts.q, place, len(numbers))  # [G, K]
    cluster = decisions.own(facts.q).cluster
    shared = np.bincount(cluster * len(numbers) + place, minlength=clusters * len(numbers)).reshape(clusters, -1)
    owner = np.eye(len(numbers))[shared.argmax(axis=1)] * (shared.max(axis=1) > 0)[:, None]  # [K, G]
    probability = mass @ owner / np.maximum(sizes, 1)[:, None]
    own = np.diagonal(probability)
    both, known = probability + own[:, None], (own > 0) & (own[:, None] > 0)
    wrong = np.divide(probability, both, out=np.zeros_like(both), where=known)
    np.fill_diagonal(wrong, 0)
    return (wrong + wrong.T) / 2
