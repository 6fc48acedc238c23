"""The report of a run as one HTML file that can be mailed: findings, scores, curves, a map and images of each cluster.

report/index.html           everything, pictures and all; it fetches nothing
report/figures/NAME.png     each figure, for a paper
report/figures/NAME.csv     and its numbers
"""

from pathlib import Path

import numpy as np

from jaxclust import __version__
from jaxclust.files import replace_folder, write_atomically
from jaxclust.report import clusters, drawing, figures, findings, markup, sections, thumbnails, tsne
from jaxclust.report.facts import Facts

# Images of each kind that are shown of a cluster: of so many clusters at most, so many; of more, the last.
SHOWN = ((20, 12), (None, 8))
# Side of a thumbnail, pixels, where there are more than MANY in all: hundreds of clusters still make a page to mail.
MANY, LITTLE = 2000, 64
ON_SCREEN = 64  # pixels that a small image is enlarged to, about
POINT = 64  # side of a thumbnail of the map


def write(facts: Facts, folder: Path) -> Path:
    """Writes the report in the place of an older one, and returns the page.

    Args:
      facts: of the run.
      folder: to make, `<workdir>/report`.
    """
    maps = tsne.maps(facts)
    drawn = figures.draw(facts, maps)
    page = html(facts, maps, drawn)
    with replace_folder(folder) as made:
        figures.save(drawn, made / "figures")
        write_atomically(made / "index.html", page)
    return folder / "index.html"


def html(facts: Facts, maps: list[tsne.Map], drawn: list[figures.Figure]) -> str:
    """The page.

    Args:
      facts: of the run.
      maps: of its embedding.
      drawn: all figures; those of the maps are left to the script.
    """
    shown = next(count for most, count in SHOWN if most is None or len(facts.groups) <= most)
    found = clusters.of(facts, shown)
    rows = [np.concatenate([one.typical, one.uncertain, one.failures]) for one in found]
    largest = LITTLE if sum(map(len, rows)) > MANY else thumbnails.LARGEST
    sheets = [thumbnails.sheet(facts.images, r, len(r), largest) if len(r) else None for r in rows]
    styles = [_pictures(facts, sheets, largest)]

    named: dict[str, str] = {}
    drawn = [
        figure._replace(svg=markup.unstyled(figure.svg, named))
        for figure in drawn
        if not figure.name.startswith("tsne_")
    ]
    matrix = next((figure for figure in drawn if figure.name == "confusion_matrix"), None)
    curves = [figure for figure in drawn if figure is not matrix]
    parts = {
        "findings": ("Findings", sections.findings(facts, findings.findings(facts))),
        "scores": ("Scores", sections.scores(facts)),
    }
    if curves:
        parts["curves"] = ("Figures", _section("curves", "Figures", sections.figures(curves)))
    data = []
    if maps:
        points = thumbnails.sheet(facts.images, maps[-1].rows, largest=POINT)
        part, drawing_data = sections.embedding(facts, found, maps, points)
        parts["map-section"] = ("Map", part)
        data = [markup.embedded("map-data", drawing_data)]
        styles.append(_points(facts, points))
    parts["clusters"] = ("Clusters", sections.clusters(facts, found))
    if matrix:
        parts["confusion"] = ("Confusion", _section("confusion", "Confusion", sections.figure(matrix, large=True)))
    links = "".join(f'<a href="#{key}">{name}</a>' for key, (name, _) in parts.items())
    body = f"""<a class="skip" href="#findings">Skip to the findings</a>
<div class="bar"><div class="top"><nav aria-label="Parts of this page">{links}</nav>
<button type="button" id="theme" class="needs-js">Auto</button></div></div>
<main>{sections.head(facts)}
{"".join(part for _, part in parts.values())}</main>
<div class="tip" id="tip" role="status" hidden></div>
<footer><p>Made by jaxclust {__version__}. This page is one file and fetches nothing.</p></footer>"""
    styles = [markup.shipped("page.css"), markup.rules(named), *styles]
    return markup.document(f"{facts.name}: clusters", body, styles, [markup.shipped("page.js")], data)


def _section(key: str, title: str, content: str) -> str:
    return f'<section id="{key}"><h2>{title}</h2>{content}</section>'


def _pictures(facts: Facts, sheets: list[thumbnails.Sheet | None], largest: int) -> str:
    """The styles of the clusters' images and colours."""
    width, height = thumbnails.size(facts.images, largest)
    # Whole multiples, so that each pixel is a square; photographs of 32 pixels are enlarged twice, and smoothly.
    times = max(round(ON_SCREEN / max(width, height)), 1)
    lines = [
        f":root{{--tw:{times * width}px;--th:{times * height}px}}",
        f".big{{--tw:{2 * times * width}px;--th:{2 * times * height}px}}",
        f"@media(max-width:30rem){{.big{{--tw:{1.5 * times * width}px;--th:{1.5 * times * height}px}}}}",
    ]
    if thumbnails.crisp(facts.images):
        lines.append(".t{image-rendering:pixelated}")
    lines += [f".p{i}{{--i:{i}}}" for i in range(max((sheet.columns for sheet in sheets if sheet), default=0))]
    lines += [f".c{i}{{background:{colour}}}" for i, colour in enumerate(drawing.PALETTE)]
    lines += [f".s{i}{{background-image:url({sheet.uri})}}" for i, sheet in enumerate(sheets) if sheet]
    return "\n".join(lines)


def _points(facts: Facts, points: thumbnails.Sheet) -> str:
    """The styles of the map's images, which lie in lines."""
    times = max(round(1.5 * ON_SCREEN / max(points.width, points.height)), 1)
    width, height = times * points.width, times * points.height
    return (
        f".mapped{{--tw:{width}px;--th:{height}px;background-image:url({points.uri});"
        f"background-size:{points.columns * width}px {points.lines * height}px;"
        f"background-position:calc(var(--i)*-{width}px) calc(var(--j)*-{height}px)}}"
    )
