"""The page of a comparison: one file that needs nothing else, in the look of the report."""

import base64
import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxclust.report import table
from jaxclust.report.drawing import Figure
from jaxclust.report.markup import document, rules, shipped, text, unstyled
from jaxclust.report.table import Table

if TYPE_CHECKING:
    from jaxclust.report.compare import Comparison


def render(comparisons: Sequence["Comparison"], figures: Sequence[Sequence[Figure]], said: Sequence[str]) -> str:
    """The HTML of `index.html`.

    Args:
      comparisons: one for each data set.
      figures: of each of them.
      said: sentences about all of them.
    """
    titles = ", ".join(c.title for c in comparisons)
    count = sum(len(c.data.runs) for c in comparisons)
    summary = f"{count} run{'s' * (count > 1)} on {titles}"
    header = f"<header><h1>Comparison</h1><p>{text(summary)}</p>{_list(said)}</header>"
    classes = {}  # of the figures' styles
    body = f"<main>{header}{''.join(_section(c, drawn, classes) for c, drawn in zip(comparisons, figures))}</main>"
    styles = [shipped("page.css"), shipped("compare/page.css"), rules(classes)]
    return document(f"Comparison: {titles}", body, styles, [])


def _section(c: "Comparison", figures: Sequence[Figure], classes: dict[str, str]) -> str:
    parts = [f"<h2>{text(c.title)}</h2>", _wide(c.table), _list(c.findings)]
    if figures:
        parts.append(f'<div class="figures">{"".join(_figure(f, classes) for f in figures)}</div>')
    if c.paired:
        parts += ["<h3>Paired tests</h3>", _wide(c.paired)]
    if c.pairs:
        parts.append(_details("Every pair", *map(_wide, c.pairs)))
    if c.notes:
        parts += ["<h3>Before you believe it</h3>", _list(c.notes)]
    if c.settings and c.settings.rows:
        parts.append(_details("Where the settings differ", _wide(c.settings)))
    parts.append(_details("Every run", _wide(c.every)))
    return f"<section>{''.join(parts)}</section>"


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
    return f'<ul class="said">{items}</ul>' if items else ""


def _wide(shown: Table) -> str:
    """A table in a frame of its own to scroll in, where it is wider than a phone."""
    label = text(shown.caption)
    return f'<div class="wide" tabindex="0" role="group" aria-label="{label}">{table.in_html(shown)}</div>'


def _details(summary: str, *parts: str) -> str:
    return f"<details><summary>{text(summary)}</summary>{''.join(parts)}</details>"


def _figure(figure: Figure, classes: dict[str, str]) -> str:
    files = []
    for kind, content in (("png", figure.png), ("csv", _csv(figure))):
        data = base64.b64encode(content).decode("ascii")
        mime = "image/png" if kind == "png" else "text/csv"
        files.append(f'<a download="{figure.name}.{kind}" href="data:{mime};base64,{data}">{kind.upper()}</a>')
    return (
        f"<figure><figcaption><b>{text(figure.title)}</b></figcaption>{unstyled(figure.svg, classes)}"
        f"<figcaption>{text(figure.caption)} {' '.join(files)}</figcaption></figure>"
    )


def _csv(figure: Figure) -> bytes:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([figure.header, *figure.rows])
    return written.getvalue().encode("utf-8", errors="backslashreplace")
