"""Figures of what came out: sizes, confidence, and clusters against classes."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from jaxclust import metrics
from jaxclust.report import drawing
from jaxclust.report.drawing import BLUE, INK, MUTED, ORANGE, Figure
from jaxclust.report.facts import Facts

BARS = 30  # clusters that have a bar each; more are a curve
NAMED, NUMBERED = 24, 12  # rows of a matrix that have their names beside them, and numbers in them
BINS = 20  # of the confidence


def draw(facts: Facts) -> list[Figure]:
    """Sizes and confidence; with labels the confusion matrix, too."""
    matched = {} if facts.labels is None else metrics.match(facts.labels, facts.group)
    figures = [_sizes(facts), _confidence(facts, matched)]
    return figures if facts.labels is None else [*figures, _confusion(facts, matched)]


def called(facts: Facts, group: int) -> str:
    """What a person called the group, or its number."""
    return drawing.short(facts.groups[group]) or str(group)


def _sizes(facts: Facts) -> Figure:
    groups = [*facts.groups]
    sizes = np.array([np.count_nonzero(facts.group == group) for group in groups]) if len(groups) <= BARS else None
    if sizes is None:
        sizes = np.bincount(facts.group, minlength=max(groups) + 1)[groups]
    equal = len(facts.group) / len(groups)
    many = len(groups) > BARS
    made = drawing.sheet(height=drawing.HEIGHT if many else max(drawing.HEIGHT, 0.7 + 0.19 * len(groups)))
    number = StrMethodFormatter("{x:,.0f}")
    if many:
        axes = drawing.panel(made, "rank of the cluster, largest first", "images")
        ordered = np.sort(sizes)[::-1]
        axes.stairs(ordered, np.arange(len(sizes) + 1) + 0.5, fill=True, color=BLUE)
        axes.set_xlim(0.5, len(sizes) + 0.5)
        axes.axhline(equal, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.yaxis.set_major_formatter(number)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    else:
        axes = drawing.panel(made, "images", "cluster")
        axes.grid(visible=False)
        axes.grid(axis="x")
        y = np.arange(len(groups))
        axes.barh(y, sizes, height=0.72, color=BLUE)
        axes.set_yticks(y, [called(facts, group) for group in groups])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.axvline(equal, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.xaxis.set_major_formatter(number)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
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
        expected = np.full(max(facts.groups) + 1, -1)
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
    axes.axvline(chance, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
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
    axes.set_xlabel("cluster, in the order of the matched classes")
    axes.set_ylabel("class")
    # Transparent where there is nothing, so that the page's paper shows, light or dark.
    colours = np.broadcast_to((*to_rgb(BLUE), 1.0), (*share.shape, 4)).copy()
    colours[..., 3] = share
    axes.imshow(colours, interpolation="none", aspect="auto")
    axes.spines[["top", "right"]].set_visible(True)
    _ticks(axes.xaxis, [called(facts, group) for group in order], len(order))
    _ticks(axes.yaxis, names, len(names))
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


def _ticks(axis, names: list[str], count: int) -> None:
    """Names beside each row or column, or, of many, none but numbers in between."""
    if count > NAMED:
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        return
    axis.set_ticks(range(count), names, fontsize=8)
    axis.set_tick_params(length=0)
    if axis.axis_name == "x" and (max(map(len, names)) > 3 or count > 16):
        axis.set_tick_params(rotation=90)
