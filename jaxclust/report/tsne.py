"""The embedding in two dimensions, at several epochs of a run (Anchor, Figure 3; CC, Figure 4; TCC, Figure 3).

The same images each time. Each map starts from the one before, so that a cluster can be followed from map to map.
t-SNE (van der Maaten and Hinton, JMLR 2008) keeps neighbours together; distances between groups mean little.
"""

from typing import NamedTuple

import numpy as np

from jaxclust import metrics
from jaxclust.report import drawing
from jaxclust.report.drawing import GRID, MUTED, PAPER, Figure
from jaxclust.report.facts import Facts

MOST = 5  # maps
WIDTH = 50  # principal components that neighbours are sought in
PERPLEXITY = 30
PLURAL = {"cluster": "clusters", "class": "classes"}
FEWEST = 5  # points that a map is made of
LABELLED = 30  # clusters whose numbers fit into a map


class Map(NamedTuple):
    step: int
    epoch: int
    rows: np.ndarray  # i64[P], of the run's images
    xy: np.ndarray  # f32[P, 2], each axis from 0 to 1
    clusters: np.ndarray | None  # i64[P], the network's at that step; None where it has none of its own


def maps(facts: Facts) -> list[Map]:
    """Up to five maps, evenly over the run, the first and the last of its looks among them.

    Deterministic: on one thread, from the run's seed.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if not facts.placed:
        return []
    epochs = {look["step"]: look["epoch"] for look in facts.looks}
    last = facts.placed[max(facts.placed)]
    images = last["rows"][last["placed"]]
    # A run that went on with another sample has placed others before.
    steps = [
        s for s, at in sorted(facts.placed.items()) if s in epochs and np.array_equal(at["rows"][at["placed"]], images)
    ]
    if len(images) < FEWEST:
        return []
    chosen = dict.fromkeys(steps[i] for i in np.linspace(0, len(steps) - 1, MOST).round().astype(int))
    seed = facts.settings["seed"]
    found, start = [], None
    with threadpool_limits(1):
        for step in chosen:
            at = facts.placed[step]
            x = np.nan_to_num(at["x"].astype(np.float32))
            x = PCA(min(WIDTH, *x.shape), random_state=seed).fit_transform(x)
            scale = x[:, 0].std()
            start = x[:, :2] / (scale or 1) if start is None else start
            start = start.astype(np.float32)
            start = 1e-4 * (start - start.mean(axis=0)) / start[:, 0].std()
            made = TSNE(perplexity=min(PERPLEXITY, (len(x) - 1) / 3), init=start, random_state=seed, n_jobs=1)
            start = made.fit_transform(x / (scale or 1))
            low = start.min(axis=0)
            xy = (start - low) / np.maximum((start - low).max(axis=0), 1e-12)
            clusters = at["clusters"][at["placed"]].astype(np.int64) if "clusters" in at else None
            found.append(Map(step, epochs[step], images.astype(np.int64), xy.astype(np.float32), clusters))
    return found


def draw(facts: Facts, maps: list[Map]) -> list[Figure]:
    """Each map coloured by cluster and, where there are labels, by class.

    A class has the colour of the cluster that it is matched to in the last map.
    """
    if not maps:
        return []
    rows = maps[-1].rows
    clusters = [facts.group[rows] if at.clusters is None else at.clusters for at in maps]
    cluster_colours = {k: drawing.colour(k) for k in np.unique(np.concatenate(clusters)).tolist()}
    class_colours = {} if facts.labels is None else _colours(facts.labels[rows], clusters[-1])
    figures = []
    for at, members in zip(maps, clusters):
        when = f"after {at.epoch} epochs" if at.epoch else "before training"
        figures.append(_map(facts, at, members, "cluster", when, cluster_colours))
        if facts.labels is not None:
            figures.append(_map(facts, at, facts.labels[rows], "class", when, class_colours))
    return figures


def _map(facts: Facts, at: Map, members: np.ndarray, kind: str, when: str, colours: dict[int, str]) -> Figure:
    """One map, coloured by i64[P]."""
    made = drawing.sheet(height=drawing.WIDTH)
    axes = made.subplots()
    axes.set(xticks=[], yticks=[], xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.set_xlabel("first t-SNE axis, no unit", color=MUTED, fontsize=8)
    axes.set_ylabel("second t-SNE axis, no unit", color=MUTED, fontsize=8)
    axes.spines[:].set(visible=True, color=GRID)
    for k, colour in colours.items():
        here = at.xy[members == k]
        axes.plot(*here.T, linestyle="none", marker="o", markersize=3, color=colour, markeredgewidth=0)
    present = [k for k in colours if (members == k).any()]
    if len(present) <= LABELLED:
        for k in present:
            x, y = np.median(at.xy[members == k], axis=0)
            box = dict(boxstyle="round,pad=0.15", facecolor=PAPER, edgecolor="none", alpha=0.8)
            axes.text(x, y, drawing.short(_called(facts, kind, k)), ha="center", va="center", fontsize=8, bbox=box)
    caption = (
        f"The embedding “{facts.space}” of {len(members):,} images in two dimensions by t-SNE, {when}, coloured by "
        f"{kind}. Each map starts from the one before; distances between groups of points mean little."
    )
    if len(present) > len(drawing.PALETTE):
        caption += f" There are {len(drawing.PALETTE)} colours, so several {PLURAL[kind]} share one."
    header = ("image", "x", "y", kind)
    names = at.rows.tolist() if facts.files is None else [facts.files[row] for row in at.rows]
    rows = list(
        zip(names, *at.xy.astype(float).round(4).T.tolist(), [_called(facts, kind, k) for k in members.tolist()])
    )
    name = f"tsne_epoch_{at.epoch}" + ("_classes" if kind == "class" else "")
    title = f"t-SNE {when}, by {kind}"
    return drawing.finish(made, name, title, caption, header, rows)


def _colours(labels: np.ndarray, clusters: np.ndarray) -> dict[int, str]:
    """Of each class the colour of the cluster that it is matched to; classes left over have colours left over."""
    classes = np.unique(labels).tolist()
    taken = {label: cluster for cluster, label in metrics.match(labels, clusters).items()}
    free = iter([k for k in range(len(classes) + max(taken.values()) + 1) if k not in taken.values()])
    return {label: drawing.colour(taken[label] if label in taken else next(free)) for label in classes}


def _called(facts: Facts, kind: str, k: int) -> str:
    return facts.classes[k] if kind == "class" and 0 <= k < len(facts.classes) else str(k)
