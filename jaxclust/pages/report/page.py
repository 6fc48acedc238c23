"""The report of a run as one HTML file that can be mailed: findings, images of each cluster, a map, scores and curves.

report/index.html           everything, pictures and all; it fetches nothing
report/figures/NAME.png     each figure, for a paper
report/figures/NAME.csv     and its numbers
"""

from pathlib import Path

import numpy as np

from jaxclust import __version__
from jaxclust.pages import drawing, markup, thumbnails
from jaxclust.pages.report import clusters, figures, findings, sections, tsne
from jaxclust.pages.report.facts import Facts
from jaxclust.run.files import replace_folder, write_atomically

# Images of each kind that are shown of a cluster: of so many clusters at most, so many; of more, the last.
SHOWN = ((20, 12), (None, 8))
# Side of a thumbnail, pixels, where there are more than MANY in all: hundreds of clusters still make a page to mail.
MANY, LITTLE = 2000, 64
# Sides of thumbnails of originals, pixels: as a rule, where there are more than MANY, and on the map. A screen shows
# them half as large, so that they are sharp on fine ones and can be enlarged.
PHOTO, LITTLE_PHOTO, POINT_PHOTO = 192, 128, 128
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
    usual, little, point = (
        (thumbnails.LARGEST, LITTLE, POINT) if facts.originals is None else (PHOTO, LITTLE_PHOTO, POINT_PHOTO)
    )
    largest = little if sum(map(len, rows)) > MANY else usual
    sheets = [
        thumbnails.sheet(facts.images, r, len(r), largest, originals=facts.originals) if len(r) else None for r in rows
    ]
    styles = [_pictures(facts, sheets, largest)]

    named: dict[str, str] = {}
    drawn = [
        figure._replace(svg=markup.unstyled(figure.svg, named))
        for figure in drawn
        if not figure.name.startswith("tsne_")
    ]
    matrix = next((figure for figure in drawn if figure.name == "confusion_matrix"), None)
    curves = [figure for figure in drawn if figure is not matrix]
    mapped, data = None, {}
    if maps:
        points = thumbnails.sheet(facts.images, maps[-1].rows, largest=point, originals=facts.originals)
        mapped, data["map_data"] = sections.embedding(facts, found, maps, points)
        styles.append(_points(facts, points))
    body = markup.render(
        "report/report.html",
        name=facts.name,
        version=__version__,
        about=sections.about(facts),
        labelled=facts.labels is not None,
        findings=sections.findings(facts, findings.findings(facts)),
        scores=sections.scores(facts),
        settings=sections.settings(facts),
        cards=[sections.card(facts, one, i) for i, one in enumerate(found)],
        figures=curves,
        map=mapped,
        confusion=matrix,
        guess=1 / facts.q.shape[1],
    )
    styles = [markup.shipped("page.css"), markup.rules(named), *styles]
    return markup.document(f"{facts.name}: clusters", body, styles, [markup.shipped("report/page.js")], **data)


def _pictures(facts: Facts, sheets: list[thumbnails.Sheet | None], largest: int) -> str:
    """The styles of the clusters' images and colours."""
    if facts.originals is None:
        width, height = thumbnails.size(facts.images, largest)
        # Whole multiples, so that each pixel is a square; photographs of 32 pixels are enlarged twice, and smoothly.
        times = max(round(ON_SCREEN / max(width, height)), 1)
    else:
        width = height = largest // 2
        times = 1
    lines = [
        f":root{{--tw:{times * width}px;--th:{times * height}px}}",
        f".big{{--tw:{2 * times * width}px;--th:{2 * times * height}px}}",
        f"@media(max-width:30rem){{.big{{--tw:{1.5 * times * width}px;--th:{1.5 * times * height}px}}}}",
    ]
    if facts.originals is None and thumbnails.crisp(facts.images):
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
