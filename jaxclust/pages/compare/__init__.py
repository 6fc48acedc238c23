"""Several runs in one table and one page: means over seeds, paired tests, published numbers beside them.

    index.html                  the page
    results.md, results.tex     a table for each data set; `results.tex` needs LaTeX's package booktabs
    results.csv, runs.csv       the same in full: every score of every row, and of every run
    p_values.csv                every pair of rows
    figures/                    scores over epochs and of every seed, each as a PNG and as a CSV of its numbers

Needs neither the data nor a device.
"""

import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment

from jaxclust.pages import table
from jaxclust.pages.compare import groups, rows, runs, tables, words
from jaxclust.pages.compare.groups import DataSet
from jaxclust.pages.compare.rows import Row
from jaxclust.pages.table import Table
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import write_atomically, write_bytes, write_csv
from jaxclust.run.workdir import CONFIG
from jaxclust.types import Published

logger = logging.getLogger(__name__)

# Of results.csv and runs.csv.
ALL = ("nmi", "acc", "ari", "ami", "silhouette", "used_clusters", "size_entropy", "confidence", "centre_distance")


class Comparison(NamedTuple):
    """One data set, ready to be shown."""

    title: str
    stem: str  # in the names of its files
    data: DataSet
    columns: tuple[rows.Score, ...]
    groups: list[Row]
    pixels: list[Row]
    published: list[Published]
    tests: rows.Tests
    table: Table
    paired: Table | None  # each group against the best, where there is a pair of seeds
    pairs: list[Table]  # every pair of groups, by score
    every: Table  # each run
    settings: Table | None  # where the groups differ
    findings: list[str]
    notes: list[str]


def run(paths: Sequence[Path], folder: Path) -> None:
    """Compares the runs that `paths` stand for, prints the tables and writes all into `folder`.

    Args:
      paths: workdirs, folders of workdirs, or patterns of either.
      folder: made where it is not there; files of the same names are replaced, others stay.

    Raises:
      ConfigError: there are no finished runs, one is given twice, a file of one is damaged, or `folder` is a run's.
    """
    comparisons, said = gather(paths)
    if (folder / CONFIG).exists():
        raise ConfigError(f"{folder} is the workdir of a run; give another --workdir for the comparison")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"the folder {folder} cannot be made ({e.strerror}); give another --workdir") from e
    logger.info("%s", plain(comparisons, said))
    _write_tables(comparisons, said, folder)
    _write_page(comparisons, said, folder)
    page_at = folder / "index.html"
    logger.info("\nthe page is %s; the tables are beside it, in results.md, .tex and .csv", page_at)


def gather(paths: Sequence[Path]) -> tuple[list[Comparison], list[str]]:
    """Reads the runs and compares those of each data set; sentences about all of them.

    Raises:
      ConfigError: as `run`.
    """
    workdirs = runs.find(paths)
    read = {name: runs.read(path, name) for name, path in zip(runs.names(workdirs), workdirs)}
    unfinished = [name for name, found in read.items() if found is None]
    if len(unfinished) == len(read):
        raise ConfigError(
            f"none of the runs has scores yet ({', '.join(unfinished)}); wait until they are trained, "
            f"or score one as it is with --mode=evaluate"
        )
    said = [f"{name} has no scores yet, as while it trains, and is left out." for name in unfinished]
    comparisons = []
    for data in groups.group([found for found in read.values() if found]):
        stem = re.sub(r"[^a-z0-9]+", "_", data.title.lower()).strip("_")[:60] or "data"
        taken = any(stem == other.stem for other in comparisons)
        comparisons.append(compare(data, f"{stem}_{len(comparisons) + 1}" if taken else stem))
    if len(comparisons) > 1:
        said.append("Scores of different data sets, or of different labels, are not compared with each other.")
    return comparisons, said


def compare(data: DataSet, stem: str) -> Comparison:
    """All that is said of one data set's runs."""
    columns = rows.WITH_LABELS if data.labelled else rows.WITHOUT
    ours, pixels = rows.gather(data)
    printed = tables.printed(data)
    tests = rows.tests(ours, columns)
    return Comparison(
        data.title,
        stem,
        data,
        columns,
        ours,
        pixels,
        printed,
        tests,
        tables.results(data, columns, ours, pixels, printed),
        tables.against_best(data, columns, ours, tests),
        tables.pairs(data, columns, ours, tests),
        tables.every(data, columns),
        tables.settings(data),
        words.findings(data, columns, ours, tests),
        words.notes(data),
    )


def markdown(comparisons: Sequence[Comparison], said: Sequence[str]) -> str:
    """The tables and what is said of them, as Markdown."""
    how = {"drawn": table.markdown, "mark": "## ", "best": "Best in bold, second best underlined."}
    return _rendered(table.IN_MARKDOWN, comparisons, said, how)


def plain(comparisons: Sequence[Comparison], said: Sequence[str]) -> str:
    """The same for a terminal."""
    how = {"drawn": table.plain, "mark": "", "best": "* is the best, + the second best."}
    return _rendered(table.IN_WORDS, comparisons, said, how)


def _rendered(room: Environment, comparisons: Sequence[Comparison], said: Sequence[str], how: Mapping[str, Any]) -> str:
    template = room.get_template("compare/results.md")
    return template.render(comparisons=comparisons, said=said, **how).rstrip("\n")


def _write_tables(comparisons: Sequence[Comparison], said: Sequence[str], folder: Path) -> None:
    write_atomically(folder / "results.md", f"{markdown(comparisons, said)}\n")
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


def _write_page(comparisons: Sequence[Comparison], said: Sequence[str], folder: Path) -> None:
    from jaxclust.pages.compare import figures, page  # drawing is slow to import, and the tables are there before it

    drawn = [figures.draw(c.data, c.columns, c.groups, c.stem) for c in comparisons]
    (folder / "figures").mkdir(exist_ok=True)  # perhaps there with an author's own, which stay
    for figure in itertools.chain(*drawn):
        write_bytes(folder / "figures" / f"{figure.name}.png", figure.png)
        write_csv(folder / "figures" / f"{figure.name}.csv", figure.header, figure.rows)
    write_atomically(folder / "index.html", page.html(comparisons, drawn, said))


def _means(comparisons: Sequence[Comparison]) -> Iterator[tuple]:
    for c in comparisons:
        for row in (*c.groups, *c.pixels):
            cells = [tables.cell([*row.values(key).values()], 3, len(row.scores)) for key in ALL]
            yield c.title, row.group, row.clustering, len(row.scores), *(v for x in cells for v in (x.mean, x.sd))
        for p in c.published:
            values = {"nmi": p.nmi, "acc": p.acc, "ari": p.ari}
            yield c.title, p.source, tables.quantity(p), None, *(v for key in ALL for v in (values.get(key), None))


def _seeds(comparisons: Sequence[Comparison]) -> Iterator[tuple]:
    for c in comparisons:
        for row in (*c.groups, *c.pixels):
            for seed in row.scores:
                yield c.title, row.group, row.clustering, seed, *(row.values(key).get(seed) for key in ALL)


def _tests(comparisons: Sequence[Comparison]) -> Iterator[tuple]:
    for c in comparisons:
        for (key, kind, a, b), test in c.tests.items():
            yield c.title, key, kind, a, b, *test
