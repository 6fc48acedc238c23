"""The figures of a report: each for the page, and as a PNG and a CSV for a paper.

curves    losses, scores, clusters and pairs over epochs
matrix    sizes, confidence, clusters against classes
tsne      the embedding in two dimensions
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxclust.pages import drawing
from jaxclust.pages.drawing import Figure
from jaxclust.pages.report import curves, matrix, tsne
from jaxclust.pages.report.facts import Facts
from jaxclust.pages.report.tsne import Map
from jaxclust.run.files import write_bytes, write_csv

__all__ = ["Figure", "draw", "save"]


def draw(facts: Facts, maps: Sequence[Map]) -> list[Figure]:
    """All figures that there is something for; `maps` are from `tsne.maps`."""
    with drawing.style():
        return [*curves.draw(facts), *matrix.draw(facts), *tsne.draw(facts, maps)]


def save(figures: Iterable[Figure], folder: Path) -> None:
    """Writes NAME.png and NAME.csv of each figure, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        write_bytes(folder / f"{figure.name}.png", figure.png)
        write_csv(folder / f"{figure.name}.csv", figure.header, figure.rows)
