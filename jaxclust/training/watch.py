"""Notices trouble in the metrics of a run: clusters that collapse, queue rows that are dead.

A metric that is not finite ends a run, and `log` sees to it; what is here goes on, perhaps to recover.
"""

from collections.abc import Mapping

import numpy as np


class Watch:
    """Judges each epoch by its metrics, and speaks when a trouble begins and when it ends."""

    def __init__(self):
        self._epoch = None
        self._sizes = 0  # i64[K], images in each cluster over the epoch
        self._dead = 0.0
        self._known = {}  # trouble that has been reported

    def see(self, epoch: int, metrics: Mapping[str, np.ndarray | float]) -> list[str]:
        """Takes a step's metrics; returns what there is to say of the epoch before, if this step begins a new one."""
        said = self.judge() if epoch != self._epoch else []
        self._epoch = epoch
        self._sizes = self._sizes + metrics.get("sizes", 0)
        self._dead = metrics.get("dead_rows", 0.0)
        return said

    def judge(self) -> list[str]:
        """Lines about the epoch seen so far, which is then done with."""
        trouble = {}
        if np.ndim(self._sizes):
            clusters, used = len(self._sizes), np.count_nonzero(self._sizes)
            largest, share = largest_cluster(self._sizes)
            if used < clusters:
                trouble["unused"] = f"only {used} of {clusters} clusters are used"
            # One of two clusters always has half.
            if share > (0.5 if clusters > 2 else 0.95):
                trouble["largest"] = f"cluster {largest} holds {share:.0%} of the images"
        if self._dead:
            trouble["dead"] = f"{self._dead:.0f} rows of the memory queues are dead (not of unit length)"
        lines = [f"warning: epoch {self._epoch + 1}: {trouble[kind]}" for kind in trouble if kind not in self._known]
        lines += [f"epoch {self._epoch + 1}: no longer so: {self._known[k]}" for k in self._known if k not in trouble]
        self._known = {kind: self._known.get(kind, text) for kind, text in trouble.items()}
        self._sizes = 0
        return lines


def largest_cluster(sizes: np.ndarray) -> tuple[int, float]:
    """The cluster with the most images, and its share of all; `sizes` is [K]."""
    largest = int(np.argmax(sizes))
    return largest, float(sizes[largest] / max(np.sum(sizes), 1))
