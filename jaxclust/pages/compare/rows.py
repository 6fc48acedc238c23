"""What is compared: the scores of each clustering of each group, by seed, and every pair of them tested."""

import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxclust.pages.compare import paired
from jaxclust.pages.compare.groups import DataSet, Group

PIXELS = "kmeans_pixels"


class Score(NamedTuple):
    key: str  # in scores.json
    name: str  # as papers call it
    digits: int = 3
    better: bool = True  # whether more of it is better, in whichever group


WITH_LABELS = (Score("nmi", "NMI"), Score("acc", "ACC"), Score("ari", "ARI"))
WITHOUT = (
    Score("silhouette", "Silhouette", 3, False),  # in an embedding of each network's own
    Score("used_clusters", "Used clusters", 1, False),
    Score("size_entropy", "Size entropy", 3, False),
    Score("confidence", "Confidence", 3, False),
)
ALL = ("nmi", "acc", "ari", "ami", "silhouette", "used_clusters", "size_entropy", "confidence", "centre_distance")


class Row(NamedTuple):
    """One clustering of one group: its scores by seed."""

    group: str
    kind: str  # of clustering
    said: str  # what the method's paper calls it, or ""
    scores: Mapping[int, Mapping[str, Any]]

    @property
    def clustering(self) -> str:
        return f"{self.kind}: {self.said}" if self.said else self.kind

    def values(self, key: str) -> dict[int, float]:
        """The score of each seed that has one."""
        found = {seed: row.get(key) for seed, row in self.scores.items()}
        return {seed: float(v) for seed, v in found.items() if isinstance(v, int | float)}


def gather(data: DataSet) -> tuple[list[Row], list[Row]]:
    """The rows of the groups, and those of k-means on pixels, which is one for all where no setting touches it."""
    rows, pixels = [], []
    for group in data.groups:
        first = group.runs[0]
        aliases = {name: _same(group, name) for name in first.paper}
        for key in first.scores:
            if not all(key in run.scores for run in group.runs):
                continue
            said = "; ".join(name for name, ours in aliases.items() if ours == key)
            row = Row(group.name, clustering(key), said, {run.seed: run.scores[key] for run in group.runs})
            (pixels if key == PIXELS else rows).append(row)
        for name, ours in aliases.items():
            if ours is None and all(name in run.paper for run in group.runs):
                kind = f"{name}, shown as in the paper"  # on `eval.paper_view`, where that is another view
                rows.append(Row(group.name, kind, "", {run.seed: run.paper[name] for run in group.runs}))
    by_seed = {}
    for row in pixels:
        for seed, scores in row.scores.items():
            by_seed.setdefault(seed, []).append(scores)
    if pixels and all(scores == of[0] for of in by_seed.values() for scores in of):
        pixels = [Row("all", clustering(PIXELS), "", {seed: of[0] for seed, of in sorted(by_seed.items())})]
    return rows, pixels


def _same(group: Group, name: str) -> str | None:
    """Our row that has just the scores which the paper's name has, in every run."""
    for key in group.runs[0].scores:
        if all(key in run.scores and run.paper.get(name) == run.scores[key] for run in group.runs):
            return key
    return None


def clustering(key: str) -> str:
    """What a row of scores.json is called."""
    if key == PIXELS:
        return "k-means on raw pixels"
    return "own clusters" if key == "cluster" else f"k-means on {key.removeprefix('kmeans_')}"


Tests = dict[tuple[str, str, str, str], paired.Paired]  # score, kind of clustering, groups a and b -> b against a


def tests(groups: Sequence[Row], columns: Sequence[Score]) -> Tests:
    """Every pair of groups, for every clustering that both have and every score that is better for being higher."""
    found = {}
    for a, b in itertools.permutations(groups, 2):
        if a.kind == b.kind and a.group != b.group:
            for column in columns:
                x, y = a.values(column.key), b.values(column.key)
                if column.better and x and y:
                    found[column.key, a.kind, a.group, b.group] = paired.test(x, y)
    return found


def shared(groups: Sequence[Row]) -> str | None:
    """The first kind of clustering that the most groups have, if two have it."""
    counts = collections.Counter(row.kind for row in groups)
    kind = max(counts, key=counts.get, default=None)
    return kind if counts[kind] > 1 else None


def best(groups: Sequence[Row], kind: str, key: str) -> Row | None:
    """The group with the highest mean."""
    candidates = [row for row in groups if row.kind == kind and row.values(key)]
    return max(candidates, key=lambda row: np.mean([*row.values(key).values()]), default=None)
