"""The page of a comparison: one file that needs nothing else, in the look of the report."""

import base64
import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from jaxclust.report import table
from jaxclust.report.drawing import Figure
from jaxclust.report.table import Table

if TYPE_CHECKING:
    from jaxclust.report.compare import Comparison

HERE = Path(__file__).parent


def render(comparisons: Sequence["Comparison"], said: Sequence[str]) -> str:
    """The HTML of `index.html`.

    Args:
      comparisons: one for each data set.
      said: sentences about all of them.
    """
    style = (HERE / "page.css").read_text()
    titles = ", ".join(c.title for c in comparisons)
    count = sum(len({row[1] for row in c.every.rows}) for c in comparisons)
    return Template((HERE / "page.html").read_text()).substitute(
        style=style,
        title=_escape(f"Comparison: {titles}"),
        summary=_escape(f"{count} run{'s' * (count > 1)} on {titles}"),
        said=_list(said),
        sections="\n".join(map(_section, comparisons)),
    )


def _section(c: "Comparison") -> str:
    parts = [f"<h2>{_escape(c.title)}</h2>", _list(c.findings), _wide(c.table)]
    if c.figures:
        parts.append(f'<div class="figures">{"".join(map(_figure, c.figures))}</div>')
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


def _escape(text: str) -> str:
    return html.escape(table.plain(text))


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{_escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="said">{items}</ul>' if items else ""


def _wide(shown: Table) -> str:
    """A table in a frame of its own to scroll in, where it is wider than a phone."""
    label = _escape(shown.caption)
    return f'<div class="wide" tabindex="0" role="group" aria-label="{label}">{table.in_html(shown)}</div>'


def _details(summary: str, *parts: str) -> str:
    return f"<details><summary>{_escape(summary)}</summary>{''.join(parts)}</details>"


def _figure(figure: Figure) -> str:
    files = []
    for kind, content in (("png", figure.png), ("csv", _csv(figure))):
        data = base64.b64encode(content).decode("ascii")
        mime = "image/png" if kind == "png" else "text/csv"
        files.append(f'<a download="{figure.name}.{kind}" href="data:{mime};base64,{data}">{kind.upper()}</a>')
    return (
        f"<figure><h4>{_escape(figure.title)}</h4>{figure.svg}"
        f"<figcaption>{_escape(figure.caption)} {' '.join(files)}</figcaption></figure>"
    )


def _csv(figure: Figure) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([figure.header, *figure.rows])
    return text.getvalue().encode("utf-8", errors="backslashreplace")
