"""Figures of what came out: sizes, confidence, and clusters against classes."""

import numpy as np
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from jaxclust.ops import metrics
from jaxclust.pages import drawing
from jaxclust.pages.drawing import BLUE, INK, ORANGE, Figure
from jaxclust.pages.report.facts import Facts

BARS = 30  # clusters that have a bar each; more are a curve
NAMED, NUMBERED = 24, 12  # rows of a matrix that have their names beside them, and numbers in them
BINS = 20  # of the confidence


def draw(facts: Facts) -> list[Figure]:
    """Sizes and confidence; with labels the confusion matrix, too."""
    matched = {} if facts.labels is None else metrics.match(facts.labels, facts.group)
    figures = [_sizes(facts), _confidence(facts, matched)]
    return figures if facts.labels is None else [*figures, _confusion(facts, matched)]


def called(facts: Facts, group: int) -> str:
    """What a person called the cluster, or its number."""
    return drawing.short(facts.groups[group]) or str(group)


def _sizes(facts: Facts) -> Figure:
    groups = [*facts.groups]
    sizes = np.bincount(facts.group, minlength=max(groups) + 1)[groups]
    bars = len(groups) <= BARS
    made = drawing.sheet(height=max(drawing.HEIGHT, 0.7 + 0.19 * len(groups)) if bars else drawing.HEIGHT)
    equal = len(facts.group) / len(groups)
    if bars:
        axes = drawing.panel(made, "images", "cluster", across="x")
        axes.barh(range(len(groups)), sizes, height=0.72, color=BLUE)
        axes.set_yticks(range(len(groups)), [called(facts, group) for group in groups])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.axvline(equal, **drawing.DASHED | {"zorder": 2})
        counted = axes.xaxis
    else:
        axes = drawing.panel(made, "rank of the cluster, largest first", "images")
        axes.stairs(np.sort(sizes)[::-1], np.arange(len(sizes) + 1) + 0.5, fill=True, color=BLUE)
        axes.set_xlim(0.5, len(sizes) + 0.5)
        axes.axhline(equal, **drawing.DASHED | {"zorder": 2})
        counted = axes.yaxis
    counted.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    counted.set_major_locator(MaxNLocator(nbins=5, integer=True))
    caption = (
        f"Images in each of the {len(groups)} clusters, of {len(facts.group):,}; at the dashed line all would be "
        "of one size."
    )
    rows = [(group, facts.groups[group], size) for group, size in zip(groups, sizes.tolist())]
    return drawing.finish(made, "cluster_sizes", "Cluster sizes", caption, ("cluster", "name", "images"), rows)


def _confidence(facts: Facts, matched: dict[int, int]) -> Figure:
    edges = np.linspace(0, 1, BINS + 1)
    confidence = np.clip(facts.confidence, 0, 1)
    total = np.histogram(confidence, edges)[0]
    made = drawing.sheet()
    axes = drawing.panel(made, "confidence: probability of the image's cluster", "images (%)")
    share = 100 / len(confidence)
    header, columns = ("from", "to", "images"), [total]
    caption = f"How sure the network is of each of {len(confidence):,} images."
    if matched:
        expected = np.full(max(facts.groups) + 1, facts.labels.min() - 1)  # of a cluster without a class: none
        expected[[*matched]] = [*matched.values()]
        right = np.histogram(confidence[expected[facts.group] == facts.labels], edges)[0]
        axes.stairs(total * share, edges, fill=True, color=ORANGE, label="another class")
        axes.stairs(right * share, edges, fill=True, color=BLUE, label="the cluster's class")
        drawing.legend(made, columns=2, reverse=True)
        header, columns = (*header, "of the cluster's class"), [total, right]
        caption += " Blue are images of the class that their cluster is matched to, orange those of another."
    else:
        axes.stairs(total * share, edges, fill=True, color=BLUE)
    chance = 1 / facts.q.shape[1]
    axes.axvline(chance, **drawing.DASHED)
    axes.set_xlim(0, 1)
    caption += f" At the dashed line, 1/{facts.q.shape[1]}, it has no idea."
    rows = list(zip(edges[:-1].round(3).tolist(), edges[1:].round(3).tolist(), *(c.tolist() for c in columns)))
    return drawing.finish(made, "confidence_histogram", "Confidence", caption, header, rows)


def _confusion(facts: Facts, matched: dict[int, int]) -> Figure:
    classes, clusters = np.unique(facts.labels), np.unique(facts.group)
    counts = metrics.contingency(facts.labels, facts.group)
    cluster_of = {label: group for group, label in matched.items()}
    paired = [cluster_of[label] for label in classes.tolist() if label in cluster_of]
    order = paired + [group for group in clusters.tolist() if group not in matched]
    counts = counts[:, np.searchsorted(clusters, order)]
    share = counts / counts.sum(axis=1, keepdims=True)
    names = [drawing.short(facts.classes[c]) if 0 <= c < len(facts.classes) else str(c) for c in classes.tolist()]
    made = drawing.sheet(height=drawing.WIDTH)
    axes = made.subplots()
    # Transparent where there is nothing, so that the page's paper shows, light or dark.
    colours = np.broadcast_to((*to_rgb(BLUE), 1.0), (*share.shape, 4)).copy()
    colours[..., 3] = share
    axes.imshow(colours, interpolation="none", aspect="auto")
    axes.spines[["top", "right"]].set_visible(True)
    _name(axes.xaxis, "clusters in matched order", [called(facts, group) for group in order])
    _name(axes.yaxis, "classes", names)
    if max(share.shape) <= NUMBERED:
        for (i, j), value in np.ndenumerate(100 * share):
            if value >= 0.5:
                axes.text(
                    j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color="#FEFEFE" if value > 55 else INK
                )
    caption = (
        f"Share of each class (row) in each cluster (column){', in %' if max(share.shape) <= NUMBERED else ''}; a row "
        "adds up to 100 %. Clusters are matched one to one to classes by the Hungarian method, so the diagonal is what "
        "is counted as right."
    )
    header = ("class", *(facts.groups[group] or f"cluster {group}" for group in order))
    rows = [
        (facts.classes[c] if 0 <= c < len(facts.classes) else c, *row)
        for c, row in zip(classes.tolist(), counts.tolist())
    ]
    return drawing.finish(made, "confusion_matrix", "Confusion matrix", caption, header, rows)


def _name(axis: Axis, what: str, names: list[str]) -> None:
    """Names beside each row or column; of very many, how many there are."""
    if len(names) > NAMED:
        axis.set_ticks([])
        axis.set_label_text(f"{len(names)} {what}")
        return
    axis.set_label_text(what)
    axis.set_ticks(range(len(names)), names, fontsize=8)
    axis.set_tick_params(length=0)
    if axis.axis_name == "x" and (max(map(len, names)) > 3 or len(names) > NUMBERED):
        axis.set_tick_params(rotation=90)
