"""The embedding in two dimensions, at several epochs of a run (Anchor, Figure 3; CC, Figure 4; TCC, Figure 3).

The same images each time. Each map starts from the one before, so that a cluster can be followed from map to map.
t-SNE (van der Maaten and Hinton, JMLR 2008) keeps neighbours together; distances between heaps mean little.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from jaxclust.ops import metrics
from jaxclust.ops.components import leading
from jaxclust.pages import drawing
from jaxclust.pages.drawing import GRID, MUTED, PAPER, Figure
from jaxclust.pages.report.facts import Facts

MOST = 5  # maps
WIDTH = 50  # principal components that neighbours are sought in
PERPLEXITY = 30
ITERATIONS = 600  # 1000, the usual number, bring the divergence 4 % lower
PLURAL = {"cluster": "clusters", "class": "classes"}
FEWEST = 5  # points that a map is made of
LABELLED = 30  # clusters whose numbers fit into a map


class Map(NamedTuple):
    step: int
    epoch: int
    rows: np.ndarray  # i64[P], of the run's images
    xy: np.ndarray  # f32[P, 2], each axis from 0 to 1
    clusters: np.ndarray | None  # i64[P], the network's at that step; None where it has none of its own
    space: str  # the embedding that it is a map of


def maps(facts: Facts) -> list[Map]:
    """Up to five maps, evenly over the run, the first and the last of its looks among them.

    Deterministic: on one thread, from the run's seed.
    """
    from threadpoolctl import threadpool_limits

    epochs = {look["step"]: look["epoch"] for look in facts.looks}
    placed = {step: at for step, at in sorted(facts.placed.items()) if step in epochs}
    rows = {step: at["rows"][at["placed"]].astype(np.int64) for step, at in placed.items()}
    spaces = {step: str(at.get("space", facts.space)) for step, at in placed.items()}  # older looks do not say
    # A run that went on with another sample, or a later version, has placed others before.
    last = max(placed, default=0)
    steps = [step for step in placed if np.array_equal(rows[step], rows[last]) and spaces[step] == spaces[last]]
    if not steps or len(rows[steps[-1]]) < FEWEST:
        return []
    chosen = dict.fromkeys(steps[i] for i in np.linspace(0, len(steps) - 1, MOST).round().astype(int))
    found, xy = [], None
    for step in chosen:
        at = placed[step]
        with threadpool_limits(1):
            xy = _place(at["x"], xy, facts.settings["seed"])
        clusters = at["clusters"][at["placed"]].astype(np.int64) if "clusters" in at else None
        found.append(Map(step, epochs[step], rows[step], xy, clusters, spaces[step]))
    return found


def _place(x: np.ndarray, start: np.ndarray | None, seed: int) -> np.ndarray:
    """t-SNE of x f[P, D] from `start` f32[P, 2], or from the first two principal components; f32[P, 2] in [0, 1]."""
    from sklearn.manifold import TSNE

    most = np.finfo(x.dtype).max
    x = np.nan_to_num(x, posinf=most, neginf=-most).astype(np.float32)  # half precision ends at 65,504
    x = leading(x, WIDTH).transform(x)
    # Of an embedding in one point, or on a line, there is nothing to place apart: noise far below any distance does it.
    noise = np.random.default_rng(seed).normal(size=(len(x), 2))
    before = 1e-6 * noise + (_unit(x[:, :2], x) if start is None else _unit(start, start))
    made = TSNE(
        perplexity=min(PERPLEXITY, (len(x) - 1) / 3),
        # Drawn together into a point first, clusters are shuffled: right for a first map, but the next ones follow it.
        # Spread out as they are they moved less and ended at a lower divergence (a run on the digits: 5 % in the last).
        init=((1e-4 if start is None else 1) * before).astype(np.float32),
        early_exaggeration=12 if start is None else 1,
        max_iter=ITERATIONS,
        random_state=seed,
        n_jobs=1,
    )
    xy = made.fit_transform(_unit(x, x))
    # A map may come out turned or mirrored; back to where it started from, as far as that can be (Procrustes).
    left, _, right = np.linalg.svd((xy - xy.mean(axis=0)).T @ before)
    xy = (xy @ (left @ right)).astype(np.float32)
    xy -= xy.min(axis=0)
    return xy / np.maximum(xy.max(axis=0), 1e-12)


def _unit(x: np.ndarray, by: np.ndarray) -> np.ndarray:
    """x around its mean, in standard deviations of the first column of `by`."""
    return (x - x.mean(axis=0)) / (by[:, 0].std() or 1)


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
        when = f"after {at.epoch} epoch{'s' * (at.epoch > 1)}" if at.epoch else "before training"
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
    for k in present if len(present) <= LABELLED else ():
        if np.count_nonzero(members == k) < FEWEST:  # its name would hide it
            continue
        x, y = _densest(at.xy[members == k])
        side = "left" if x < 0.2 else "right" if x > 0.8 else "center"
        box = dict(boxstyle="round,pad=0.15", facecolor=PAPER, edgecolor="none", alpha=0.8)
        text = drawing.short(_called(facts, kind, k), 14)
        axes.text(x, y, text, ha=side, va="center", fontsize=8, bbox=box).set_in_layout(False)
    whose = "the network's cluster at that time" if kind == "cluster" and at.clusters is not None else kind
    caption = (
        f"The embedding “{at.space}” of {len(members):,} images in two dimensions by t-SNE, {when}, coloured by "
        f"{whose}. Each map starts from the one before; distances between heaps of points mean little."
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


def _densest(xy: np.ndarray) -> np.ndarray:
    """The point of f[n, 2] that has a third of them nearest around it: within a cluster even where it is in pieces."""
    distance = cdist(xy, xy)
    return xy[np.partition(distance, len(xy) // 3, axis=1)[:, len(xy) // 3].argmin()]
