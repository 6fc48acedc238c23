"""The page of a comparison: one file that needs nothing else, in the look of the report."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxclust.pages.drawing import Figure
from jaxclust.pages.markup import document, render, rules, shipped, unstyled
from jaxclust.pages.table import in_html
from jaxclust.run import cells

if TYPE_CHECKING:
    from jaxclust.pages.compare import Comparison


def html(comparisons: Sequence["Comparison"], figures: Sequence[Sequence[Figure]], said: Sequence[str]) -> str:
    """The HTML of `index.html`.

    Args:
      comparisons: one for each data set.
      figures: of each of them.
      said: sentences about all of them.
    """
    count, titles = sum(len(c.data.runs) for c in comparisons), ", ".join(c.title for c in comparisons)
    classes: dict[str, str] = {}  # of the figures' styles
    body = render(
        "compare/comparison.html",
        summary=f"{count} run{'s' * (count > 1)} on {titles}",
        said=said,
        parts=[(c, [_figure(figure, classes) for figure in drawn]) for c, drawn in zip(comparisons, figures)],
        in_html=in_html,
    )
    styles = [shipped("page.css"), shipped("compare/page.css"), rules(classes)]
    return document(f"Comparison: {titles}", body, styles, [])


def _figure(figure: Figure, classes: dict[str, str]) -> dict[str, Any]:
    csv = cells.text([figure.header, *figure.rows]).encode("utf-8", errors="backslashreplace")
    files = (("png", "image/png", figure.png), ("csv", "text/csv", csv))
    links = [(kind, mime, base64.b64encode(content).decode("ascii")) for kind, mime, content in files]
    return {**figure._asdict(), "svg": unstyled(figure.svg, classes), "files": links}
