"""A table of results as plain text, Markdown, LaTeX and HTML. All text in it may be anybody's, and is shown as it is.

The best of a column is bold and the second best underlined, as papers do; what prints alike ranks alike. Plain text has
signs for it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from jaxclust.pages.markup import render, templates
from jaxclust.run.names import in_markdown, shown

DASH = "–"
MINUS = "−"
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # after a line's end it would be a distance
    "`": "`{}",
    "'": "'{}",
    DASH: "--",
    MINUS: "$-$",
    "±": r"$\pm$",
    **{c: f"\\{c}" for c in "&%$#_"},
}


class Cell(NamedTuple):
    mean: float | None
    sd: float | None = None  # sample standard deviation; None of a single run
    note: str = ""
    digits: int = 3
    place: int = 0  # 1 the best of its column, 2 the second best

    @property
    def text(self) -> str:
        if self.mean is None:
            return DASH
        spread = "" if self.sd is None else f" ± {self.sd:.{self.digits}f}"
        return f"{self.mean:.{self.digits}f}{spread}{self.note}".replace("-", MINUS)


class Table(NamedTuple):
    title: str
    caption: str
    head: tuple[str, ...]
    rows: list[tuple[str | Cell, ...]]
    breaks: tuple[int, ...] = ()  # rows that a line is drawn above
    texts: int = 2  # columns at the left that hold words

    @property
    def ranked(self) -> bool:
        return any(isinstance(cell, Cell) and cell.place for row in self.rows for cell in row)


def placed(cells: Sequence[Cell], competing: Sequence[bool]) -> list[Cell]:
    """The cells of a column with the best (the highest) and the second best marked, unless only one competes."""
    printed = [round(c.mean, c.digits) if c.mean is not None and ok else None for c, ok in zip(cells, competing)]
    values = sorted({v for v in printed if v is not None}, reverse=True)[:2]
    if sum(v is not None for v in printed) < 2:
        return list(cells)
    return [c._replace(place=values.index(v) + 1 if v in values else 0) for c, v in zip(cells, printed)]


def in_latex(words: object) -> str:
    """Text that LaTeX shows as it is; a letter that pdfLaTeX may not know is written as its code point."""
    letters = (LATEX.get(c, c if c.isascii() else f"(U+{ord(c):04X})") for c in re.sub("-(?=-)", "-\0", shown(words)))
    return "".join(letters).replace("\0", "{}")  # two hyphens in a name are no dash


class Ready(str):
    """What a template of text takes as it is."""


# LaTeX's own marks are braces and percent signs, so a template's are not.
MARKS = {
    "block_start_string": "((*",
    "block_end_string": "*))",
    "variable_start_string": "(((",
    "variable_end_string": ")))",
}
IN_LATEX = templates(in_latex, **MARKS)
IN_MARKDOWN = templates(lambda value: value if isinstance(value, Ready) else in_markdown(value))
IN_WORDS = templates(lambda value: value if isinstance(value, Ready) else shown(value))


def markdown(table: Table) -> Ready:
    """As a Markdown table, with columns of even width so that it can be read in an editor, too."""
    widths, (head, *body) = _columns(table, in_markdown, ("{}", "**{}**", "<ins>{}</ins>"))
    rule = ["-" * w if i < table.texts else f"{'-' * (w - 1)}:" for i, w in enumerate(widths)]
    return Ready("\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body)))


def plain(table: Table) -> Ready:
    """For a terminal."""
    widths, (head, *body) = _columns(table, shown, ("{}  ", "{} *", "{} +") if table.ranked else ("{}",) * 3)
    rule = "  ".join("-" * w for w in widths)
    lines = ["  ".join(head), rule]
    for i, line in enumerate(body):
        lines += [rule] * (i in table.breaks and i > 0) + ["  ".join(line)]
    return Ready("\n".join(line.rstrip() for line in lines))


def latex(table: Table, label: str) -> str:
    """As a LaTeX table that needs `\\usepackage{booktabs}`."""
    lines, above = [], None
    for i, (first, *others) in enumerate(table.rows):
        broken = i in table.breaks and i > 0
        lines.append((broken, ["" if first == above and not broken else first, *others]))
        above = first
    return IN_LATEX.get_template("table.tex").render(table=table, lines=lines, label=label)


def in_html(table: Table) -> Markup:
    """As an HTML table, where rows that share a name share its cell, too."""
    starts = [i for i, row in enumerate(table.rows) if not i or i in table.breaks or row[0] != table.rows[i - 1][0]]
    bodies = [table.rows[start:stop] for start, stop in zip(starts, [*starts[1:], None])]
    breaks = [start in table.breaks and start > 0 for start in starts]
    return render("table.html", table=table, bodies=list(zip(bodies, breaks)))


def _columns(
    table: Table, written: Callable[[str], str], marks: Sequence[str]
) -> tuple[list[int], Iterator[list[str]]]:
    """The width of each column, and the head and the rows in cells of these; `marks` by the place of a cell."""
    lines = [[written(word) for word in table.head]]
    lines += [
        [written(cell) if isinstance(cell, str) else marks[cell.place].format(written(cell.text)) for cell in row]
        for row in table.rows
    ]
    widths = [max(map(_width, column)) for column in zip(*lines)]
    return widths, ([_pad(cell, w, i < table.texts) for i, (cell, w) in enumerate(zip(line, widths))] for line in lines)


def _width(text: str) -> int:
    """Columns of a terminal that text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text
