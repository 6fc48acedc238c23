"""The tables of a comparison, ready for Markdown, LaTeX and HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxclust import methods
from jaxclust.pages import table
from jaxclust.pages.compare import paired
from jaxclust.pages.compare.groups import DataSet, value
from jaxclust.pages.compare.rows import PIXELS, Row, Score, Tests, best, clustering, shared
from jaxclust.pages.compare.runs import METHOD
from jaxclust.pages.table import DASH, MINUS, Cell, Table
from jaxclust.types import Published

MOST = 12  # groups that a table of pairs has room for


def printed(data: DataSet) -> list[Published]:
    """What the papers of the methods print for this data set."""
    known = {(run.settings["method.name"], run.settings["clusters"]): None for run in data.runs}
    name = data.runs[0].settings["data.name"]
    return [p for method, k in known for p in methods.published(method, name, k)] if data.labelled else []


def quantity(p: Published) -> str:
    """Which clustering a published number is of, and how it came about."""
    return f"{p.quantity}, {p.detail}" if p.detail else p.quantity


def results(
    data: DataSet, columns: Sequence[Score], groups: list[Row], pixels: list[Row], printed: list[Published]
) -> Table:
    """Every row of the data set: the groups', that of k-means on pixels, the published ones."""
    ours = groups + pixels
    counted = [len(row.scores) for row in ours]
    cells = []
    for column in columns:
        found = [cell(list(row.values(column.key).values()), column.digits, n) for row, n in zip(ours, counted)]
        found += [Cell(getattr(p, column.key)) for p in printed]
        competing = [column.better] * len(ours) + [not p.best_of_several for p in printed]
        cells.append(table.placed(found, competing))
    words = [(row.group, row.clustering) for row in ours]
    words += [(p.source, quantity(p)) for p in printed]
    counts = [str(n) for n in counted] + [DASH] * len(printed)
    seen = sorted({len(group.runs) for group in data.groups})
    over = f"{seen[0]}" if len(seen) == 1 else f"{seen[0]} to {seen[-1]}"
    caption = f"{data.title}: " + (
        "one run of each setting." if seen == [1] else f"mean ± sample standard deviation over {over} seeds."
    )
    return Table(
        data.title,
        caption,
        (heading(data), "Clustering", *(c.name for c in columns), "Seeds"),
        [(*w, *row, n) for w, row, n in zip(words, zip(*cells), counts)],
        tuple(dict.fromkeys((len(groups), len(ours)))) if pixels or printed else (),
    )


def heading(data: DataSet) -> str:
    return "Method" if data.naming == (METHOD,) else "Setting"


def cell(values: Sequence[float], digits: int, expected: int) -> Cell:
    if not values:
        return Cell(None)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    note = f" (of {len(values)})" if len(values) != expected else ""
    return Cell(float(np.mean(values)), sd, note, digits)


def against_best(data: DataSet, columns: Sequence[Score], groups: Sequence[Row], tests: Tests) -> Table | None:
    """Each group against the best one, as TCC's Table 6 has pairs."""
    better = [column for column in columns if column.better]
    rows, kinds = [], dict.fromkeys(row.kind for row in groups)
    breaks = []
    for kind in kinds:
        members = [row for row in groups if row.kind == kind]
        if len(members) < 2:
            continue
        breaks.append(len(rows))
        for row in members:
            cells, counts = [], set()
            for column in better:
                top = best(groups, kind, column.key)
                if top is None or not row.values(column.key):
                    cells.append(DASH)
                elif top is row:
                    cells.append("best")
                else:
                    found = tests[column.key, kind, top.group, row.group]
                    cells.append(_difference(found, column.digits))
                    counts.add(found.n)
            rows.append((kind, row.group, *cells, ", ".join(map(str, sorted(counts))) or DASH))
    if not any(test.n > 1 for test in tests.values()):
        return None
    return Table(
        data.title,
        f"{data.title}: difference to the best group, and p of a two-sided paired t-test over their common seeds.",
        ("Clustering", heading(data), *(column.name for column in better), "Pairs"),
        rows,
        tuple(breaks),
    )


def pairs(data: DataSet, columns: Sequence[Score], groups: Sequence[Row], tests: Tests) -> list[Table]:
    """p of every pair of groups, a table for each score of the first clustering that two groups have (TCC, Table 6)."""
    kind = shared(groups)
    members = [row.group for row in groups if row.kind == kind]
    if not 2 < len(members) <= MOST:
        return []  # of two, all is said already
    made = []
    for column in (c for c in columns if c.better):
        found = {(a, b): tests.get((column.key, kind, a, b)) for a in members for b in members}
        if any(test and test.p is not None for test in found.values()):
            body = [(a, *(_p_of(found[a, b], a == b) for b in members)) for a in members]
            caption = f"{column.name} of {kind}: p of a two-sided paired t-test, not corrected for their number."
            made.append(Table(data.title, caption, (heading(data), *members), body, texts=1))
    return made


def _p_of(test: paired.Paired | None, same: bool) -> str:
    if same:
        return ""
    return DASH if test is None or test.p is None else p_value(test.p).removeprefix("= ")


def _difference(found: paired.Paired, digits: int) -> str:
    if found.difference is None:
        return "no seed in common"
    said = signed(found.difference, digits)
    return f"{said} (p {p_value(found.p)})" if found.p is not None else f"{said} (no test)"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign."""
    text = f"{abs(value):.{digits}f}"
    return text if not float(text) else f"{'+' if value > 0 else MINUS}{text}"


def every(data: DataSet, columns: Sequence[Score]) -> Table:
    keys = [key for key in dict.fromkeys(k for run in data.runs for k in run.scores) if key != PIXELS]
    rows = [
        (
            *(group.name, run.name, clustering(key)),
            *(Cell(number(run.scores[key], column.key), digits=column.digits) for column in columns),
            *(str(run.seed), f"{run.step:,}", f"{run.speed:,.0f}" if run.speed else DASH, run.devices or DASH),
        )
        for group in data.groups
        for run in group.runs
        for key in keys
        if key in run.scores
    ]
    head = (heading(data), "Run", "Clustering", *(c.name for c in columns), "Seed", "Step", "Images/s", "Devices")
    return Table(data.title, f"Every run on {data.title}.", head, rows, texts=3)


def number(scores: Mapping[str, Any], key: str) -> float | None:
    value = scores.get(key)
    return float(value) if isinstance(value, int | float) else None


def settings(data: DataSet) -> Table | None:
    if len(data.groups) < 2:
        return None
    rows = [(key, *(value(group.runs[0], key) for group in data.groups)) for key in data.differing]
    head = ("Setting", *(group.name for group in data.groups))
    return Table(data.title, f"Where the groups on {data.title} differ.", head, rows, texts=len(head))
