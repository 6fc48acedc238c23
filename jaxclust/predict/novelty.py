"""Whether an image looks like nothing seen in training: its distance to the nearest training images.

The similarity of an image is the cosine between its embedding and that of its `NEIGHBOURS`-th nearest training image
(Sun et al., ICML 2022, arXiv:2204.06507). What is ordinary, the training images say of themselves, each compared with
the others: an image that is less similar than `ORDINARY` of them are is called novel.
"""

from typing import Any, NamedTuple

import numpy as np

NEIGHBOURS = 5  # a single odd training image does not make its like ordinary
KEPT = 2048  # training images that are compared with; more of them make no better threshold, and take longer
ORDINARY = 0.99  # share of the training images that are not novel


class Known(NamedTuple):
    """Training images that new ones are compared with."""

    units: np.ndarray  # f32[M, D], embeddings of length one
    threshold: float  # the similarity below which an image is novel


def calibrate(x: np.ndarray) -> Known | None:
    """Keeps an even selection of training images, and learns from them, or from others, how similar one is.

    Args:
      x: f32[N, D], embeddings of all training images, perhaps mapped into memory.

    Returns:
      None where there are too few images to say.
    """
    n = len(x)
    if n <= NEIGHBOURS + 1:
        return None
    rows = np.linspace(0, n - 1, min(n, 2 * KEPT)).round().astype(int)
    known, asked, itself = (rows, rows, 1) if n <= KEPT else (rows[::2], rows[1::2], 0)
    units = unit(np.asarray(x[known], np.float32))
    cosines = unit(np.asarray(x[asked], np.float32)) @ units.T
    nth = len(units) - NEIGHBOURS - itself  # an image is not its own neighbour
    return Known(units, float(np.quantile(np.partition(cosines, nth, axis=1)[:, nth], 1 - ORDINARY)))


def unit(x: Any, xp: Any = np) -> Any:
    """Rows f32[N, D] at length one."""
    return x / xp.maximum(xp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
