"""How the report's figures look, and how one drawing becomes both a PNG for a paper and an SVG for the page.

A figure is one small panel, so that a phone shows it unscaled. In the SVG text stays text in the page's own font, and
ink, greys and paper are the page's: `currentColor`, `var(--muted)`, `var(--grid)` and `var(--paper)`, so that it is
right on light and on dark. Colours of data are the same on both.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Sheet
from matplotlib.ticker import MaxNLocator

INK, MUTED, GRID, PAPER = "#222222", "#666666", "#E6E6E6", "#FFFFFF"
ON_PAGE = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--paper)"}
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
# Okabe and Ito's, without the yellow and the black that white or dark paper swallows, and four that stay as far from
# them and from each other under the three kinds of colour blindness (Machado et al., 2009).
PALETTE = (BLUE, ORANGE, GREEN, PINK, "#E69F00", "#56B4E9", "#8020F8", "#685020", "#B0C880", "#982068")
DASHED = {"color": MUTED, "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 1}  # a line to compare with
WIDTH, HEIGHT = 4.2, 3.0  # inches
DPI = 300
LONGEST = 18  # characters of a name that are drawn
SPACE, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_REFERENCE = re.compile(r"(?:^|\()#([^\s)]+)")  # an attribute that is a link, or has one in url(...)


class Figure(NamedTuple):
    name: str  # a file's stem
    title: str
    caption: str
    svg: str
    png: bytes
    header: tuple[str, ...]
    rows: list[tuple]


def colour(k: int) -> str:
    """Of cluster or class number k; from the eleventh on colours come again."""
    return PALETTE[k % len(PALETTE)]


def short(name: str, longest: int = LONGEST) -> str:
    """A name as it can be drawn: on one line, and of a long one the beginning and the end."""
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    tail = longest // 3
    return name if len(name) <= longest else f"{name[: longest - tail - 1]}…{name[-tail:]}"


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Everything of a figure is made within."""
    look = {
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "text.parse_math": False,  # a name may hold dollars
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.unicode_minus": False,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.borderaxespad": 0.2,
        "svg.fonttype": "none",
        "svg.hashsalt": "jaxclust",
    }
    with matplotlib.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a name; the page's font may have it
        yield


def sheet(width: float = WIDTH, height: float = HEIGHT) -> Sheet:
    """An empty figure, in inches."""
    made = Sheet(figsize=(width, height), dpi=DPI, layout="constrained")
    made.get_layout_engine().set(w_pad=0.05, h_pad=0.05)
    return made


def panel(made: Sheet, x: str, y: str, across: str = "y") -> Axes:
    """The one panel of a figure: what its axes measure, and which of them has lines across the panel."""
    axes = made.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis=across)
    return axes


def over_epochs(axes: Axes, last: float) -> None:
    """Makes the x axis one of whole epochs up to the last."""
    axes.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], nbins=6))


def legend(made: Sheet, columns: int, **how: Any) -> None:
    """What the lines are, above them."""
    made.legend(loc="outside upper left", ncols=columns, columnspacing=1.2, **how)


def finish(made: Sheet, name: str, title: str, caption: str, header: Sequence[str], rows: Iterable[Sequence]) -> Figure:
    """The drawing as a figure; the rest is as in `Figure`."""
    # `savefig` would draw each twice, to lay it out anew.
    svg, png = io.StringIO(), io.BytesIO()
    made.draw_without_rendering()
    made.set_layout_engine("none")
    made.set_facecolor("white")
    FigureCanvasAgg(made).print_png(png, metadata={"Software": None})
    made.set_facecolor("none")
    FigureCanvasSVG(made).print_svg(svg, metadata={"Date": None})  # last, as it sets a resolution of its own
    return Figure(name, title, caption, for_page(svg.getvalue(), name, title), png.getvalue(), (*header,), [*rows])


def for_page(svg: str, name: str, title: str) -> str:
    """matplotlib's SVG file as an element of a page that has others, without a size of its own.

    Args:
      svg: the file.
      name: what its ids begin with.
      title: what a screen reader says of it.
    """
    root = ElementTree.fromstring(svg)
    for kind in ("metadata", "defs"):  # the first defs is a style for all elements of the page
        root.remove(root.find(SPACE + kind))
    root.attrib = {
        "viewBox": root.get("viewBox"),
        "role": "img",
        "aria-label": title,
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    elements = [*root.iter()]
    used = {link for element in elements for value in element.attrib.values() for link in _REFERENCE.findall(value)}
    for element in elements:
        element.tag = element.tag.removeprefix(SPACE)
        element.tail = None
        if element.tag != "text":
            element.text = None
        element.attrib = {
            key.removeprefix(LINK): _for_page(key, value, name)
            for key, value in element.attrib.items()
            if key != "id" or value in used
        }
    return ElementTree.tostring(root, encoding="unicode")


def _for_page(key: str, value: str, name: str) -> str:
    """The value of an attribute, as the page has it."""
    if key == "id":
        return f"{name}-{value}"
    if key in ("d", "x", "y", "width", "height", "transform"):
        value = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", value)
        return " ".join(value.split())
    if key == "style":
        value = re.sub(r"font-family: [^;]*", "font-family: inherit", value)
        for ours, pages in ON_PAGE.items():
            value = re.sub(rf"{ours}\b", pages, value, flags=re.IGNORECASE)
        return value
    if key == f"{LINK}href" and not value.startswith("#"):
        return "".join(value.split())  # an image, in lines
    return _REFERENCE.sub(lambda link: link[0].replace("#", f"#{name}-"), value)
