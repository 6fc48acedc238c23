"""What a report shows of each cluster: its images, its nearest neighbour, and what it is made of.

A cluster is what a person sees as one: a cluster of `Decisions`, which is the network's own where nobody has
decided anything.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from jaxclust.clusters.typical import typical
from jaxclust.ops import metrics
from jaxclust.pages.report.facts import Facts

CHUNK = 8192  # rows of an embedding that are in memory at a time


class Cluster(NamedTuple):
    number: int
    title: str  # its name, or "cluster 3"
    size: int
    share: float
    confidence: float  # mean over its images; nan for an empty one
    nearest: int | None  # number of the one whose centre is nearest
    typical: np.ndarray  # i64[<= shown], rows of images, as `clusters.typical` chooses them
    uncertain: np.ndarray  # i64[<= shown], the least confident first
    failures: np.ndarray  # i64[<= shown], of another class than the matched one, the most confident first
    failed: int  # how many there are of those
    label: int | None  # the class matched to it
    labels: tuple[tuple[int, int], ...]  # (class, images), the most frequent first


def of(facts: Facts, shown: int) -> list[Cluster]:
    """All clusters by number.

    Classes are matched to clusters one to one, on as many images as possible (Hungarian method). A cluster that is left
    without a class has no failures. Without labels nobody has.

    Args:
      facts: of a run.
      shown: images of each kind, at most.
    """
    numbers, _ = sizes_of(facts)
    middle = centres(facts.x, facts.group, numbers)
    between = cdist(middle, middle)
    between[np.isnan(between) | np.eye(len(numbers), dtype=bool)] = np.inf
    matched = {} if facts.labels is None else metrics.match(facts.labels, facts.group)
    found = []
    for i, (number, rows) in enumerate(zip(numbers.tolist(), members(facts))):
        sure = facts.confidence[rows]
        label = matched.get(number)
        failures = rows[:0] if label is None else rows[facts.labels[rows] != label]
        present, counts = ([], []) if facts.labels is None else np.unique(facts.labels[rows], return_counts=True)
        frequent = sorted(zip(map(int, present), map(int, counts)), key=lambda pair: -pair[1])
        found.append(
            Cluster(
                number,
                title(facts, number),
                len(rows),
                len(rows) / len(facts.group),
                float(sure.mean()) if len(rows) else float("nan"),
                int(numbers[between[i].argmin()]) if np.isfinite(between[i]).any() else None,
                typical(facts.x, rows, shown, len(numbers)),
                rows[np.argsort(sure, kind="stable")[:shown]],
                failures[np.argsort(-facts.confidence[failures], kind="stable")[:shown]],
                len(failures),
                label,
                tuple(frequent),
            )
        )
    return found


def sizes_of(facts: Facts) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the clusters, ascending, and how many images each has, i64[G]."""
    numbers = np.array(sorted(facts.groups))
    return numbers, np.bincount(np.searchsorted(numbers, facts.group), minlength=len(numbers))


def members(facts: Facts) -> list[np.ndarray]:
    """The rows of each cluster in the order of `sizes_of`, ascending."""
    numbers = np.array(sorted(facts.groups))
    return metrics.members(np.searchsorted(numbers, facts.group), len(numbers))


def title(facts: Facts, number: int) -> str:
    """What to call a cluster."""
    return facts.groups[number] or f"cluster {number}"


def class_name(facts: Facts, label: int) -> str:
    """What to call a class."""
    return facts.classes[label] if 0 <= label < len(facts.classes) else f"class {label}"


def centres(x: np.ndarray, group: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Means of the clusters `numbers` among x f32[N, D], f64[G, D]; nan for an empty one."""
    place = np.searchsorted(numbers, group)
    sizes = np.bincount(place, minlength=len(numbers))[:, None]
    sums = totals(x, place, len(numbers))
    return np.divide(sums, sizes, out=np.full_like(sums, np.nan), where=sizes > 0)


def totals(x: np.ndarray, place: np.ndarray, clusters: int) -> np.ndarray:
    """Sums of the rows of x f32[N, D] in each cluster i64[N] of 0..G-1, f64[G, D]."""
    sums = np.zeros((clusters, x.shape[1]))
    for at in range(0, len(x), CHUNK):
        here = place[at : at + CHUNK]
        # A sparse product adds each row once, where a full one would cost N x G x D.
        member = csr_array((np.ones(len(here)), here, np.arange(len(here) + 1)), (len(here), clusters))
        sums += member.T @ np.asarray(x[at : at + CHUNK], np.float64)
    return sums
