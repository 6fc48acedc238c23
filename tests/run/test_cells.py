"""CSV files that no spreadsheet runs, and that read back as they were written."""

import csv
import io

import numpy as np
import pytest

from jaxclust.run import cells
from jaxclust.run.files import write_csv

FORMULAS = [
    '=HYPERLINK("http://a.b","x")',
    "=1+1",
    "+1+1",
    "-1+1",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1)",
    "\t=1",
    "\tplain",
    "\r=1",
    "\rplain",
    "\nplain",
    "  =1",
    "\u00a0=1",
    "\ufeff=1",
    "\u200b+1",
    "\uff1d1+1",
    "\0=1",
    "- a list.png",
    "-",
    "--5",
    "+=5e1",
    "'=1",
    "''+1",
]
PLAIN = [
    "",
    "a.png",
    "a=1",
    "'",
    "''",
    "'quoted'",
    "'5",
    "-5",
    "+5",
    "-0.0312",
    "-1e-05",
    "+.5",
    "é ü",
    "a,b",
    'a"b',
    "a\nb",
]


def first(cell: str) -> str:
    """Of what a spreadsheet makes of a cell: what it decides by."""
    return cell.strip(" \t\r\n\0\u00a0\ufeff\u200b")[:1]


@pytest.mark.parametrize("cell", [*FORMULAS, *PLAIN], ids=repr)
def test_a_cell_is_no_formula_and_reads_back(cell, tmp_path):
    write_csv(tmp_path / "a.csv", ("file", cell), [(cell, cell), (1, cell)])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as f:
        raw = [*csv.reader(f)]
        f.seek(0)
        assert [*cells.read(f)] == [["file", cell], [cell, cell], ["1", cell]]
    for row in raw:
        for got in row:
            assert first(got) not in set("=+-@\uff1d") or (got == cell and float(cell) is not None)
            assert got[:1] not in set("\t\r\n")
    assert (raw[1][0] == cell) == (cell in PLAIN)


def test_numbers_are_written_as_they_are(tmp_path):
    rows = [(-1, -0.5, np.float32(-0.25), None, True, float("-inf"))]
    write_csv(tmp_path / "a.csv", "abcdef", rows)
    assert (tmp_path / "a.csv").read_text("utf-8") == "a,b,c,d,e,f\n-1,-0.5,-0.25,,True,-inf\n"


@pytest.mark.parametrize("seed", range(20))
def test_any_cells_read_back(seed):
    rng = np.random.default_rng(seed)
    letters = ["\r\n", *"''=+-@\t\r\n\0 ,\"5.e|\u200b\uff1dxé"]
    rows = [["".join(rng.choice(letters, rng.integers(8))) for _ in range(3)] for _ in range(100)]
    assert [*cells.read(io.StringIO(cells.text(rows), newline=""))] == rows


def test_no_cell_begins_a_line_of_its_own():
    """As a spreadsheet ends lines, which is at a bare carriage return, too."""
    text = cells.text([("a\r=1+1", "b\n=1+1", 'c\r\n"=1+1')])
    assert [*csv.reader(io.StringIO(text, newline=""))] == [["a\r=1+1", "b\n=1+1", 'c\r\n"=1+1']]
    assert text == '"a\r=1+1","b\n=1+1","c\r\n""=1+1"\n'
