"""Figures of what happened over epochs: losses from `metrics.jsonl`, clusters from the looks of `progress.jsonl`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaxclust.pages import drawing
from jaxclust.pages.drawing import BLUE, GREEN, INK, ORANGE, PALETTE, Figure
from jaxclust.pages.report.facts import Facts

# What is logged beside the terms of a loss; a method of a user's own may log any term.
NO_TERM = {
    *("step", "epoch", "loss", "sizes", "grad_norm", "images_per_second", "used_clusters", "largest_cluster"),
    *("confidence", "centre_distance", "unevenness", "entropy", "moved", "dead_rows", "rotation_accuracy", "dec"),
}
CALLED = {"loss": "total", "l1": "L1, clusters", "l2": "L2, instances"}  # as TCC's paper has it
POINTS = 400  # of a curve; more are averaged
FEW = 8  # clusters that have a line each; of more there are bands


def draw(facts: Facts) -> list[Figure]:
    """Losses, scores, clusters and pairs over epochs: as many figures as the run has something to show for."""
    figures = [_losses(facts), _dec(facts), _scores(facts)]
    if facts.looks and "sizes" in facts.looks[-1]:
        figures += [_sizes(facts), _used(facts), _distance(facts), _entropy(facts)]
    spaces = dict.fromkeys(space for look in facts.looks for space in look["pairs"])
    figures += [_pairs(facts, space) for space in spaces]
    return [figure for figure in figures if figure is not None]


def _losses(facts: Facts) -> Figure | None:
    records = [record for record in facts.metrics if "loss" in record]
    terms = [name for name in dict.fromkeys(name for record in records for name in record) if name not in NO_TERM]
    values = {name: _numbers(records, name) for name in ("loss", *terms)}
    # Where each step has one term, as in passes over different tasks, a total would only repeat them.
    repeated = [np.isclose(values["loss"], values[name], rtol=1e-5) for name in terms]
    if terms and np.mean(np.any(repeated, axis=0)) > 0.5:
        del values["loss"]
    if not any(np.isfinite(y).any() for y in values.values()):
        return None
    x = _epochs(records)
    made = drawing.sheet(height=max(drawing.HEIGHT, 0.6 + 1.15 * len(values)))
    panels = made.subplots(len(values), sharex=True, squeeze=False)[:, 0]
    colours = iter(PALETTE * len(values))
    for axes, (name, y) in zip(panels, values.items()):
        there = np.array([name in record for record in records])  # a step of another task is no gap
        _line(axes, x[there], y[there], color=INK if name == "loss" else next(colours))
        if [*values] != ["loss"]:
            axes.set_title(CALLED.get(name, name.replace("_", " ")), loc="left", fontsize=9, pad=4)
        axes.set_ylabel("loss")
        axes.grid(axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    drawing.over_epochs(panels[-1], x[-1])
    panels[-1].set_xlabel("epoch")
    made.align_ylabels(panels)
    caption = "Training loss, mean over the steps between two records."
    if len(values) > 1:
        caption = "Training loss and its terms, each on its own scale; means over the steps between two records."
        caption = caption if "loss" in values else caption.replace("loss and its terms", "losses, one for each task")
    rows = _rows(records, x, values)
    return drawing.finish(made, "loss_terms", "Loss over epochs", caption, ("step", "epoch", *values), rows)


def _dec(facts: Facts) -> Figure | None:
    records = [record for record in facts.metrics if record.get("dec") is not None]
    if not records:
        return None
    x, y = _epochs(records), _numbers(records, "dec")
    made = drawing.sheet()
    axes = drawing.panel(made, "epoch", "KL divergence (nats)")
    _line(axes, x, y, color=BLUE)
    drawing.over_epochs(axes, x[-1])
    caption = "The clustering loss of DEC on the training batches: watched, not trained (as in TCC, Figure 5c)."
    rows = _rows(records, x, {"dec": y})
    return drawing.finish(made, "dec_loss", "DEC's loss over epochs", caption, ("step", "epoch", "dec"), rows)


def _scores(facts: Facts) -> Figure | None:
    called = {"acc": ("ACC", BLUE), "nmi": ("NMI", ORANGE), "ari": ("ARI", GREEN)}
    looks = [look for look in facts.looks if "acc" in look]
    if facts.labels is None or not looks:
        return None
    caption = f"Agreement of the clusters with the labels, over {_images(looks)}; 100 % is full agreement."
    lines = {name: (word, 100 * _numbers(looks, name), colour) for name, (word, colour) in called.items()}
    made, axes = _looks(looks, lines, "score (%)")
    axes.set_ylim(min(-2, np.floor(min(np.nanmin(y) for _, y, _ in lines.values()))), 102)
    rows = _rows(looks, _at(looks), {name: _numbers(looks, name) for name in called})
    title = "Agreement with the labels over epochs"
    return drawing.finish(made, "scores", title, caption, ("step", "epoch", *called), rows)


def _used(facts: Facts) -> Figure:
    used, k = _numbers(facts.looks, "used_clusters"), len(facts.looks[-1]["sizes"])
    made, axes = _looks(facts.looks, {"used_clusters": ("", used, BLUE)}, "clusters with an image")
    _reference(axes, k)
    axes.set_ylim(0, 1.08 * k)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    caption = f"Clusters that hold at least one of {_images(facts.looks)}; the dashed line is all {k} of the network."
    rows = _rows(facts.looks, _at(facts.looks), {"used_clusters": used})
    header = ("step", "epoch", "used_clusters")
    return drawing.finish(made, "used_clusters", "Clusters in use over epochs", caption, header, rows)


def _distance(facts: Facts) -> Figure | None:
    y = _numbers(facts.looks, "centre_distance")
    if not np.isfinite(y).any():
        return None
    made, axes = _looks(facts.looks, {"centre_distance": ("", y, BLUE)}, "Euclidean distance")
    axes.set_ylim(0, 1.08 * np.nanmax(y) or 1)
    caption = (
        f"Mean distance between the centres of the clusters in the embedding “{facts.space}”, over "
        f"{_images(facts.looks)} (as in Anchor, Figure 2). It has the units of the embedding."
    )
    rows = _rows(facts.looks, _at(facts.looks), {"centre_distance": y})
    title, header = "Distance between cluster centres over epochs", ("step", "epoch", "centre_distance")
    return drawing.finish(made, "centre_distance", title, caption, header, rows)


def _entropy(facts: Facts) -> Figure:
    values = {name: _numbers(facts.looks, name) for name in ("entropy", "size_entropy")}
    lines = {
        "entropy": ("of an image's assignment", values["entropy"], BLUE),
        "size_entropy": ("of the cluster sizes", values["size_entropy"], ORANGE),
    }
    made, axes = _looks(facts.looks, lines, "entropy (share of log K)")
    axes.set_ylim(-0.02, 1.04)
    caption = (
        f"Entropy over {_images(facts.looks)}, as a share of its largest value, log K. Of an image's assignment, "
        "mean over images: 0 is certain, 1 undecided. Of the cluster sizes: 0 is one cluster with everything, 1 is all "
        "of one size."
    )
    rows = _rows(facts.looks, _at(facts.looks), values)
    title, header = "Entropy of assignments over epochs", ("step", "epoch", *values)
    return drawing.finish(made, "assignment_entropy", title, caption, header, rows)


def _sizes(facts: Facts) -> Figure:
    x, counts = _at(facts.looks), np.array([look["sizes"] for look in facts.looks])  # i64[L, K]
    share = 100 * counts / counts.sum(axis=1, keepdims=True)
    k = share.shape[1]
    made = drawing.sheet()
    axes = drawing.panel(made, "epoch", "images in a cluster (%)")
    if k <= FEW:
        for i in range(k):
            _line(axes, x, share[:, i], color=drawing.colour(i), label=str(i))
        drawing.legend(made, columns=k, title="cluster")
        how = "One line for each cluster"
    else:
        _band(axes, x, *np.percentile(share, (0, 100), axis=1), 0.2, "smallest to largest")
        _band(axes, x, *np.percentile(share, (25, 75), axis=1), 0.4, "middle half")
        _line(axes, x, np.median(share, axis=1), color=BLUE, label="median")
        drawing.legend(made, columns=3)
        how = f"The {k} clusters by size"
    beyond = ""
    if len(share) > 2 and share[0].max() > 2 * share[1:].max():  # one cluster with everything, as many a run begins
        top = 1.25 * share[1:].max()
        beyond = f" At first the largest has {share[0].max():.0f} %, beyond the top."
    else:
        top = axes.get_ylim()[1]
    axes.set_ylim(-0.015 * top, top)
    _reference(axes, 100 / k)
    drawing.over_epochs(axes, x[-1])
    caption = (
        f"{how}, over {_images(facts.looks)} (as in TCC, Figure 6). At the dashed line all would be of one "
        f"size.{beyond} Clusters are the network's, before any were merged or split by hand."
    )
    header = ("step", "epoch", *(f"cluster {i}" for i in range(k)))
    rows = _rows(facts.looks, x, dict(enumerate(counts.T)))
    return drawing.finish(made, "size_over_epochs", "Cluster sizes over epochs", caption, header, rows)


def _pairs(facts: Facts, space: str) -> Figure:
    looks = [look for look in facts.looks if space in look["pairs"]]
    x, made = _at(looks), drawing.sheet()
    axes = drawing.panel(made, "epoch", "cosine similarity")
    columns = {}
    for kind, colour in (("positive", BLUE), ("negative", ORANGE)):
        mean, sd = np.array([look["pairs"][space][kind] for look in looks], float).T
        columns |= {f"{kind}_mean": mean, f"{kind}_sd": sd}
        axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
        _line(axes, x, mean, color=colour, label=f"{kind} pairs")
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, -1.04), min(top, 1.04))
    drawing.over_epochs(axes, x[-1])
    drawing.legend(made, columns=2)
    what = "clusters" if space == "clusters" else f"images in the embedding “{space}”"
    same = "cluster" if space == "clusters" else "image"
    caption = (
        f"Similarity of {what} under two augmentations: a positive pair is twice the same {same}, a negative pair is "
        f"two different ones. Lines are means and bands one standard deviation to either side, over {_images(looks)} "
        "(as in CC, Figure 3)."
    )
    title = f"Similarity of pairs of {what} over epochs"
    rows = _rows(looks, x, columns)
    return drawing.finish(made, f"pairs_{space}", title, caption, ("step", "epoch", *columns), rows)


def _looks(looks: Sequence[Mapping], lines: Mapping[str, tuple[str, np.ndarray, str]], unit: str):
    """A panel with lines (label, values, colour) over the epochs of the looks."""
    made = drawing.sheet()
    axes = drawing.panel(made, "epoch", unit)
    for label, y, colour in lines.values():
        _line(axes, _at(looks), y, color=colour, label=label)
    drawing.over_epochs(axes, _at(looks)[-1])
    if len(lines) > 1:
        drawing.legend(made, columns=len(lines))
    return made, axes


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, **how: Any) -> None:
    """y over x; of very many points, means of neighbours. What is not finite is a gap."""
    if len(x) > POINTS:
        cuts = np.linspace(0, len(x), POINTS + 1).astype(int)
        x, y = (np.add.reduceat(values, cuts[:-1]) / np.diff(cuts) for values in (x, y))
    axes.plot(
        x, y, marker="o" if len(x) <= 30 else None, markersize=3.5, linewidth=1.8 if len(x) <= 100 else 1.2, **how
    )


def _band(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, alpha: float, label: str) -> None:
    axes.fill_between(x, low, high, color=BLUE, alpha=alpha, linewidth=0, label=label)


def _reference(axes: Axes, y: float) -> None:
    """A dashed line to compare with, which the caption explains."""
    axes.axhline(y, **drawing.DASHED)


def _epochs(records: Sequence[Mapping]) -> np.ndarray:
    """Epochs done at each record: of n records of one epoch, the j-th is at j/n of it. f64[R]."""
    epoch = np.array([record["epoch"] for record in records])
    _, first, count = np.unique(epoch, return_index=True, return_counts=True)
    within = np.arange(len(epoch)) - np.repeat(first, count) + 1
    return epoch + within / np.repeat(count, count)


def _at(looks: Sequence[Mapping]) -> np.ndarray:
    return np.array([look["epoch"] for look in looks], float)


def _numbers(records: Sequence[Mapping], name: str) -> np.ndarray:
    """f64[R], not a number where a record has none, and where it is not finite."""
    y = np.array([np.nan if record.get(name) is None else record[name] for record in records], float)
    return np.where(np.isfinite(y), y, np.nan)


def _rows(records: Sequence[Mapping], x: np.ndarray, columns: Mapping[Any, np.ndarray]) -> list[tuple]:
    """Steps, epochs and columns for a CSV; an empty cell is a gap."""
    table = [[_cell(value) for value in np.asarray(column).tolist()] for column in columns.values()]
    return list(zip([record["step"] for record in records], x.round(3).tolist(), *table))


def _cell(value: float) -> float | str:
    return "" if value != value else value if isinstance(value, int) else float(f"{value:.6g}")


def _images(looks: Sequence[Mapping]) -> str:
    return f"a sample of {looks[-1]['images']:,} images"
