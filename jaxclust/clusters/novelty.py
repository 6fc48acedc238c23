"""Whether an image looks like nothing seen in training: its distance to the nearest training images.

The similarity of an image is the cosine between its embedding and that of its `NEIGHBOURS`-th nearest training image
(Sun et al., ICML 2022, arXiv:2204.06507). What is ordinary, the training images say of themselves, each compared with
the others: an image that is less similar than `ORDINARY` of them are is called novel.

Deviation: embeddings are whitened first, as the directions in which the training images hardly differ are those in
which others do. (Digits, CC: of 1,000 photographs 29 % are found novel without it and 62 % with it.)
"""

from typing import Any, NamedTuple

import numpy as np

NEIGHBOURS = 5  # a single odd training image does not make its like ordinary
KEPT = 2048  # training images that are compared with; more of them make no better threshold, and take longer
ORDINARY = 0.99  # share of the training images that are not novel
SHRINKAGE = 0.03  # of the covariance, towards the same variance in all directions


class Known(NamedTuple):
    """Training images that new ones are compared with."""

    mean: np.ndarray  # f32[D]
    whitening: np.ndarray  # f32[D, D]
    units: np.ndarray  # f32[M, D], whitened embeddings of length one
    threshold: float  # the similarity below which an image is novel

    def directions(self, x: Any, xp: Any = np) -> Any:
        """Embeddings f32[N, D], whitened, at length one."""
        x = (x - self.mean) @ self.whitening
        return x / xp.maximum(xp.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    def novel(self, x: Any, xp: Any = np) -> Any:
        """Whether embeddings f32[N, D] are of novel images, bool[N]: too few training images are similar enough."""
        similar = self.directions(x, xp) @ self.units.T >= self.threshold
        return xp.sum(similar, axis=1) < NEIGHBOURS


def calibrate(x: np.ndarray) -> Known | None:
    """Keeps an even selection of training images, and learns from them, or from others, how similar one is.

    Args:
      x: f32[N, D], embeddings of all training images, perhaps mapped into memory.

    Returns:
      None where there are too few images to say.
    """
    n, width = x.shape
    if n <= 2 * NEIGHBOURS:
        return None
    rows = np.linspace(0, n - 1, min(n, 2 * KEPT)).round().astype(int)
    x = np.asarray(x[rows], np.float32)
    covariance = np.cov(x.T).reshape(width, width)
    same = max(np.trace(covariance) / width, 1e-12) * np.eye(width)
    variances, axes = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * same)
    known = Known(x.mean(axis=0), (axes / np.sqrt(variances)).astype(np.float32), x, 0.0)
    units = known.directions(x)
    kept, asked, itself = (units, units, 1) if n <= KEPT else (units[::2], units[1::2], 0)
    nth = len(kept) - NEIGHBOURS - itself  # an image is not its own neighbour
    similarity = np.partition(asked @ kept.T, nth, axis=1)[:, nth]
    return known._replace(units=kept, threshold=float(np.quantile(similarity, 1 - ORDINARY)))
