"""The cells of CSV files, written so that no spreadsheet runs what a name holds, and read back as they were.

A spreadsheet takes a cell that begins with =, +, - or @ for a formula; some do so behind white space or a tab. Such a
cell gets an apostrophe before it, and so does one that would be such a cell but for apostrophes of its own; a reader
takes one off again. Numbers stay as they are.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# The wide forms of the signs count where spreadsheets are set to East Asian text.
FORMULA = re.compile(r"'*([\t\r\n]|[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20])")


class _Lines:
    """What `csv.writer` writes to. It quotes a cell with the end of a line in it, and of these it knows its own."""

    def __init__(self, f: TextIO):
        self._f = f

    def write(self, line: str) -> int:
        return self._f.write(line.removesuffix("\r\n") + "\n")


def write(f: TextIO, rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows, the header among them, to a file that was opened with `newline=""`."""
    lines = csv.writer(_Lines(f), lineterminator="\r\n")
    for row in rows:
        lines.writerow(f"'{cell}" if isinstance(cell, str) and _runs(cell) else cell for cell in row)


def text(rows: Iterable[Sequence[Any]]) -> str:
    """The same as a text."""
    written = io.StringIO(newline="")
    write(written, rows)
    return written.getvalue()


def read(lines: Iterable[str]) -> Iterator[list[str]]:
    """The rows of a file that was written so and opened with `newline=""`, header and all."""
    for row in csv.reader(lines):
        yield [cell[1:] if cell.startswith("'") and _runs(cell[1:]) else cell for cell in row]


def _runs(cell: str) -> bool:
    return bool(FORMULA.match(cell)) and not NUMBER.fullmatch(cell)
