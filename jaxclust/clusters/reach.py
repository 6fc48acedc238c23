"""How far a cluster that a person has made of single images reaches for images that nobody has looked at."""

from typing import Any

import numpy as np


def reach(x: np.ndarray, selected: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """How far a new cluster reaches.

    Args:
      x: f[n, D], embeddings of the images of the clusters that it is made from.
      selected: bool[n], those that it is made of; at least one.

    Returns:
      f[D], the mean of the selected ones; the distance from it within which the most more of the selected images lie
      than of the others, 0 where there are never more; and bool[n], the others that lie within.
    """
    centre = x[selected].mean(axis=0)
    far = distances(x, centre)
    order = np.lexsort((selected, far))  # of equal ones the others first: they cannot be told apart
    more = np.cumsum(np.where(selected[order], 1, -1))
    last = int(np.argmax(more))
    beyond = far[order[last + 1]] if last + 1 < len(far) else 2 * far[order[last]]
    radius = float(far[order[last]] + beyond) / 2 if more[last] > 0 else 0.0
    return centre, radius, (far < radius) & ~selected


def distances(x: Any, centre: Any, xp: Any = np) -> Any:
    """Euclidean distances f[N] of x f[N, D] to a centre f[D]."""
    return xp.sqrt(xp.sum((x - xp.asarray(centre, x.dtype)) ** 2, axis=1))
