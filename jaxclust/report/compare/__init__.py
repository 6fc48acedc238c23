"""Several runs in one table and one page: means over seeds, paired tests, published numbers beside them.

    index.html                  the page
    results.md, results.tex     a table for each data set; `results.tex` needs LaTeX's package booktabs
    results.csv, runs.csv       the same in full: every score of every row, and of every run
    p_values.csv                every pair of rows
    curves_*.png, seeds_*.png   scores over epochs and of every seed, each with its numbers as a CSV of that name

Needs neither the data nor a device.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxclust.config import ConfigError
from jaxclust.files import write_atomically, write_bytes, write_csv
from jaxclust.report import table
from jaxclust.report.compare import rows, runs, tables, words
from jaxclust.report.compare.rows import Row
from jaxclust.report.compare.runs import DataSet
from jaxclust.report.drawing import Figure
from jaxclust.report.published import Published
from jaxclust.report.table import Table

# Of results.csv and runs.csv.
ALL = ("nmi", "acc", "ari", "ami", "silhouette", "used_clusters", "size_entropy", "confidence", "centre_distance")


class Comparison(NamedTuple):
    """One data set, ready to be shown."""

    title: str
    table: Table
    paired: Table | None  # each group against the best, where there is a pair of seeds
    pairs: list[Table]  # every pair of groups, by score
    findings: list[str]
    notes: list[str]
    figures: list[Figure]
    every: Table  # each run
    settings: Table | None  # where the groups differ
    rows: list[Row]
    published: list[Published]
    tests: rows.Tests


def run(paths: Sequence[Path], folder: Path) -> None:
    """Compares the runs that `paths` stand for, prints the tables and writes all into `folder`.

    Args:
      paths: workdirs, folders of workdirs, or patterns of either.
      folder: made where it is not there; files of an earlier comparison are replaced.

    Raises:
      ConfigError: there are no finished runs, one is given twice, or a file of one is damaged.
    """
    from jaxclust.report.compare import page  # drawing is slow to import

    workdirs = runs.find(paths)
    read = {name: runs.read(path, name) for name, path in zip(runs.names(workdirs), workdirs)}
    unfinished = [name for name, found in read.items() if found is None]
    if len(unfinished) == len(read):
        raise ConfigError(
            f"none of the runs has scores yet ({', '.join(unfinished)}); wait until they are trained, "
            f"or score one as it is with --mode=evaluate"
        )
    said = [f"{name} has no scores yet, as while it trains, and is left out." for name in unfinished]
    sets = runs.group([found for found in read.values() if found])
    comparisons = [compare(data, stem) for data, stem in zip(sets, _stems(sets))]
    if len(comparisons) > 1:
        said.append("Scores of different data sets, or of different labels, are not compared with each other.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"the folder {folder} cannot be made: {e.strerror}; give another --workdir") from e
    text = _markdown(comparisons, said)
    print(text)
    _write(comparisons, said, text, folder)
    write_atomically(folder / "index.html", page.render(comparisons, said))
    print(f"the page is {folder / 'index.html'}, the tables are in results.md, .tex and .csv beside it", flush=True)


def compare(data: DataSet, stem: str) -> Comparison:
    """All that is said of one data set's runs; `stem` is in the names of its files."""
    from jaxclust.report.compare import figures

    columns = rows.WITH_LABELS if data.labelled else rows.WITHOUT
    groups, pixels = rows.gather(data)
    printed = tables.printed(data)
    tests = rows.tests(groups, columns)
    return Comparison(
        data.title,
        tables.results(data, columns, groups, pixels, printed),
        tables.against_best(data, columns, groups, tests),
        tables.pairs(data, columns, groups, tests),
        words.findings(data, columns, groups, tests),
        words.notes(data),
        figures.draw(data, columns, groups, stem),
        tables.every(data, columns),
        tables.settings(data),
        groups + pixels,
        printed,
        tests,
    )


def _stems(sets: Sequence[DataSet]) -> list[str]:
    """A word for each data set that can be in a file's name, no two the same."""
    stems = []
    for i, data in enumerate(sets):
        stem = re.sub(r"[^a-z0-9]+", "_", data.title.lower()).strip("_")[:60] or "data"
        stems.append(f"{stem}_{i + 1}" if stem in stems else stem)
    return stems


def _markdown(comparisons: Sequence[Comparison], said: Sequence[str]) -> str:
    parts = []
    for c in comparisons:
        parts += [f"## {table.in_markdown(c.title)}", table.in_markdown(c.table.caption), table.markdown(c.table)]
        if c.paired:
            parts += [table.in_markdown(c.paired.caption), table.markdown(c.paired)]
        if lines := [f"- {table.in_markdown(line)}" for line in (*c.findings, *c.notes)]:
            parts.append("\n".join(lines))
    return "\n\n".join([*parts, *map(table.in_markdown, said)])


def _write(comparisons: Sequence[Comparison], said: Sequence[str], text: str, folder: Path) -> None:
    write_atomically(folder / "results.md", f"{text}\n")
    tex = ["% Needs \\usepackage{booktabs}; \\input this file."]
    for i, c in enumerate(comparisons):
        label = f"tab:results{'-' + str(i + 1) if len(comparisons) > 1 else ''}"
        tex.append(table.latex(c.table, label))
        if c.paired:
            tex.append(table.latex(c.paired, f"{label}-paired"))
    write_atomically(folder / "results.tex", "\n\n".join(tex) + "\n")
    means = [f"{key}_{what}" for key in ALL for what in ("mean", "sd")]
    write_csv(folder / "results.csv", ("data", "group", "clustering", "seeds", *means), _means(comparisons))
    write_csv(folder / "runs.csv", ("data", "group", "clustering", "seed", *ALL), _seeds(comparisons))
    head = ("data", "score", "clustering", "a", "b", "pairs", "difference_b_minus_a", "low_95", "high_95", "p")
    write_csv(folder / "p_values.csv", head, _tests(comparisons))
    for c in comparisons:
        for figure in c.figures:
            write_bytes(folder / f"{figure.name}.png", figure.png)
            write_csv(folder / f"{figure.name}.csv", figure.header, figure.rows)


def _means(comparisons: Sequence[Comparison]) -> Iterator[tuple]:
    for c in comparisons:
        for row in c.rows:
            cells = [tables.cell([*row.values(key).values()], 3, len(row.scores)) for key in ALL]
            yield c.title, row.group, row.clustering, len(row.scores), *(v for x in cells for v in (x.mean, x.sd))
        for p in c.published:
            values = {"nmi": p.nmi, "acc": p.acc, "ari": p.ari}
            yield c.title, p.source, tables.quantity(p), None, *(v for key in ALL for v in (values.get(key), None))


def _seeds(comparisons: Sequence[Comparison]) -> Iterator[tuple]:
    for c in comparisons:
        for row in c.rows:
            for seed in row.scores:
                yield c.title, row.group, row.clustering, seed, *(row.values(key).get(seed) for key in ALL)


def _tests(comparisons: Sequence[Comparison]) -> Iterator[tuple]:
    for c in comparisons:
        for (key, kind, a, b), test in c.tests.items():
            yield c.title, key, kind, a, b, *test
