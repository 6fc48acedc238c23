"""A table of results as Markdown, LaTeX and HTML. All text in it may be anybody's, and is shown as it is.

The best of a column is bold and the second best underlined, as papers do; what prints alike ranks alike.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxclust.report.markup import shown, text

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


def placed(cells: Sequence[Cell], competing: Sequence[bool]) -> list[Cell]:
    """The cells of a column with the best (the highest) and the second best marked, unless only one competes."""
    printed = [round(c.mean, c.digits) if c.mean is not None and ok else None for c, ok in zip(cells, competing)]
    values = sorted({v for v in printed if v is not None}, reverse=True)[:2]
    if sum(v is not None for v in printed) < 2:
        return list(cells)
    return [c._replace(place=values.index(v) + 1 if v in values else 0) for c, v in zip(cells, printed)]


def in_markdown(words: str) -> str:
    """Text that Markdown shows as it is, also in a table."""
    return re.sub(r"[\\`*\[\]|~$]|<(?=\S)|&(?=\S)|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", shown(words))


def in_latex(words: str) -> str:
    """Text that LaTeX shows as it is; a letter that pdfLaTeX may not know is written as its code point."""
    letters = (LATEX.get(c, c if c.isascii() else f"(U+{ord(c):04X})") for c in re.sub("-(?=-)", "-\0", shown(words)))
    return "".join(letters).replace("\0", "{}")  # two hyphens in a name are no dash


def markdown(table: Table) -> str:
    """As a Markdown table, with columns of even width so that it can be read on a terminal."""
    lines = [[in_markdown(word) for word in table.head]]
    lines += [[_mark(cell, in_markdown, "**{}**", "<ins>{}</ins>") for cell in row] for row in table.rows]
    widths = [max(map(_width, column)) for column in zip(*lines)]
    rule = ["-" * w if i < table.texts else f"{'-' * (w - 1)}:" for i, w in enumerate(widths)]
    body = [[_pad(cell, w, i < table.texts) for i, (cell, w) in enumerate(zip(line, widths))] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (body[0], rule, *body[1:]))


def latex(table: Table, label: str) -> str:
    """As a LaTeX table that needs `\\usepackage{booktabs}`."""
    columns = "l" * table.texts + "c" * (len(table.head) - table.texts)
    lines = [
        r"\begin{table}[t]",
        r"  \centering\small",
        f"  \\caption{{{in_latex(table.caption)}}}",
        f"  \\label{{{label}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {' & '.join(map(in_latex, table.head))} \\\\",
        r"    \midrule",
    ]
    above = None
    for i, row in enumerate(table.rows):
        if i in table.breaks and i:
            lines.append(r"    \midrule")
            above = None
        cells = [_mark(cell, in_latex, r"\textbf{{{}}}", r"\underline{{{}}}") for cell in row]
        first, above = ("" if cells[0] == above else cells[0]), cells[0]
        lines.append(f"    {' & '.join([first, *cells[1:]])} \\\\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def in_html(table: Table) -> str:
    """As an HTML table, where rows of one group share its name."""
    left = [f'<th scope="col">{text(word)}</th>' for word in table.head[: table.texts]]
    right = [f'<th scope="col" class="number">{text(word)}</th>' for word in table.head[table.texts :]]
    head = "".join(left + right)
    bodies, i = [], 0
    while i < len(table.rows):
        stop = i + 1
        while stop < len(table.rows) and stop not in table.breaks and table.rows[stop][0] == table.rows[i][0]:
            stop += 1
        rows = []
        for k in range(i, stop):
            cells = [_mark(cell, text, "<b>{}</b>", "<u>{}</u>") for cell in table.rows[k]]
            first = f'<th scope="rowgroup" rowspan="{stop - i}">{cells[0]}</th>' if k == i else ""
            words = "".join(f"<td>{cell}</td>" for cell in cells[1 : table.texts])
            numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells[table.texts :])
            rows.append(f"<tr>{first}{words}{numbers}</tr>")
        rule = ' class="break"' if i in table.breaks and i else ""
        bodies.append(f"<tbody{rule}>{''.join(rows)}</tbody>")
        i = stop
    return (
        f"<table><caption><span>{text(table.caption)}</span></caption>"
        f"<thead><tr>{head}</tr></thead>{''.join(bodies)}</table>"
    )


def _mark(cell: str | Cell, escape: Callable[[str], str], best: str, second: str) -> str:
    if isinstance(cell, str):
        return escape(cell)
    return {1: best, 2: second}.get(cell.place, "{}").format(escape(cell.text))


def _width(text: str) -> int:
    """Columns of a terminal that text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text
