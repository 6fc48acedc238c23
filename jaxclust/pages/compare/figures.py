"""Two kinds of figures: scores over epochs with their spread over seeds, and the score of every seed."""

import re
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from jaxclust.pages import drawing
from jaxclust.pages.compare.groups import DataSet, Group
from jaxclust.pages.compare.rows import Row, Score, shared
from jaxclust.pages.drawing import Figure

DRAWN = len(drawing.PALETTE)  # groups; more could not be told apart
LONG = 22  # characters of a name beside which there is no room for another
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))  # for those who tell colours apart badly


def draw(data: DataSet, columns: Sequence[Score], groups: Sequence[Row], stem: str) -> list[Figure]:
    """As many figures as there is something for; `stem` is in the names of their files."""
    with drawing.style():
        made = []
        for column in columns:
            made.append(_over_epochs(data, column, stem))
            made.append(_seeds(data, column, groups, stem) if column.better else None)
    return [figure for figure in made if figure is not None]


def _over_epochs(data: DataSet, column: Score, stem: str) -> Figure | None:
    """Mean over seeds of what looks at a sample of images saw, ± a standard deviation."""
    curves = {group.name: found for group in data.groups if (found := _curve(group, column.key))}
    curves = dict(list(curves.items())[:DRAWN])
    if not curves or all(len(curve) < 2 for curve in curves.values()):
        return None
    columns = 1 if max(map(len, map(_label, curves))) > LONG else 2
    lines = sum(1 + _label(name).count("\n") for name in curves) / columns
    made = drawing.sheet(height=drawing.HEIGHT + 0.18 * max(lines - 2, 0))
    axes = drawing.panel(made, "epoch", column.name)
    last = 0
    for name, curve in curves.items():
        i = _number(data, name)
        x = np.array(list(curve))
        mean = np.array([np.mean(v) for v in curve.values()])
        sd = np.array([np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in curve.values()])
        if sd.any():
            axes.fill_between(x, mean - sd, mean + sd, color=drawing.colour(i), alpha=0.2, linewidth=0)
        axes.plot(x, mean, color=drawing.colour(i), linestyle=DASHES[i % len(DASHES)], label=_label(name))
        last = max(last, x[-1])
    drawing.over_epochs(axes, last)
    if len(curves) > 1:
        drawing.legend(made, columns)
    rows = [
        (name, epoch, float(np.mean(v)), float(np.std(v, ddof=1)) if len(v) > 1 else None, len(v))
        for name, curve in curves.items()
        for epoch, v in curve.items()
    ]
    several = any(row[-1] > 1 for row in rows)
    caption = f"{column.name} of the own clusters on a sample of {data.title}"
    caption += ", mean over seeds; the bands are ± one sample standard deviation." if several else ", of one run each."
    caption += _of(len(curves), data)
    header = ("group", "epoch", f"{column.key}_mean", f"{column.key}_sd", "seeds")
    title = f"{column.name} over epochs"
    return drawing.finish(made, f"curves_{stem}_{column.key}", title, caption, header, rows)


def _curve(group: Group, key: str) -> Mapping[int, list[float]]:
    """The values of all runs of a group, by epoch, where all of them looked."""
    seen = [{look["epoch"]: look[key] for look in run.looks if _is_number(look.get(key))} for run in group.runs]
    shared = sorted(set.intersection(*map(set, seen)))
    return {epoch: [looks[epoch] for looks in seen] for epoch in shared}


def _is_number(value) -> bool:
    return isinstance(value, int | float)


def _seeds(data: DataSet, column: Score, groups: Sequence[Row], stem: str) -> Figure | None:
    """A point for each seed and a line at the mean, of the clustering that most groups have."""
    kind = shared(groups)
    shown = {row.group: row.values(column.key) for row in groups if row.kind == kind}
    shown = {name: values for name, values in list(shown.items())[:DRAWN] if values}
    if len(shown) < 2 or all(len(values) < 2 for values in shown.values()):
        return None
    made = drawing.sheet(height=0.9 + 0.42 * len(shown))
    axes = made.subplots()
    axes.set_xlabel(f"{column.name} of {kind}")
    axes.grid(axis="x")
    for i, (name, values) in enumerate(shown.items()):
        points, mean, colour = (
            list(values.values()),
            np.mean(list(values.values())),
            drawing.colour(_number(data, name)),
        )
        axes.plot([mean, mean], [i - 0.28, i + 0.28], color=colour, linewidth=2)
        how = dict(color=colour, markersize=5.5, alpha=0.75, markeredgewidth=0)
        axes.plot(points, [i] * len(points), "o", **how)
    axes.set_yticks(range(len(shown)), [_label(name) for name in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    rows = [(name, seed, value) for name, values in shown.items() for seed, value in values.items()]
    caption = (
        f"{column.name} of {kind} on {data.title}: a point is a seed, the line is the mean.{_of(len(shown), data)}"
    )
    header = ("group", "seed", column.key)
    return drawing.finish(made, f"seeds_{stem}_{column.key}", f"{column.name} of every seed", caption, header, rows)


def _label(name: str) -> str:
    """A group's name as a figure has room for it, without the sections of settings; the table has the whole of it."""
    clean = "".join(c if c.isprintable() else " " for c in name)
    return textwrap.fill(re.sub(r"\b\w+\.(?=\w+=)", "", clean), 26, max_lines=2, placeholder="…")


def _number(data: DataSet, name: str) -> int:
    """Of a group, so that it has one colour in all figures."""
    return [group.name for group in data.groups].index(name)


def _of(count: int, data: DataSet) -> str:
    return f" The first {count} of {len(data.groups)} groups." if count < len(data.groups) else ""
