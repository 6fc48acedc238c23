"""`clusters.csv`: what it says of each image, and that it is written whole, and only when it says something else."""

import csv
import io
import itertools
import os

import numpy as np
import pytest

from jaxclust.clusters import table
from jaxclust.run import cells, files, workdir

GROUPS = {0: "", 1: "cats", 7: "=1+1"}
STRANGE = ["=HYPERLINK(1)", "+1", "-a.png", "@b", "\t=c", "a,b.png", 'a"b.png', "two\nlines.png", "'=d", "💛", "5.png"]


def read(text: str) -> list[list[str]]:
    header, *rows = cells.read(io.StringIO(text, newline=""))
    assert header == ["file", "cluster", "name", "confidence"]
    return rows


def test_rows_are_in_the_order_of_the_names():
    text = table.text(
        ["b.png", "a/z.png", "B.png", "a.png"], GROUPS, np.array([0, 1, 7, 1]), np.array([0.5, 1, 1e-9, 1])
    )
    assert read(text) == [
        ["B.png", "7", "=1+1", "0.0000"],
        ["a.png", "1", "cats", "1.0000"],
        ["a/z.png", "1", "cats", "1.0000"],
        ["b.png", "0", "", "0.5000"],
    ]


def test_images_without_names_are_called_by_their_rows_in_the_order_of_numbers():
    count = 12
    rows = read(table.text(None, GROUPS, np.ones(count, int), np.linspace(0, 1, count, dtype=np.float32)))
    assert [row[0] for row in rows] == [str(row) for row in range(count)]
    assert {row[1] for row in rows} == {"1"}


def test_no_name_of_a_file_or_cluster_is_a_formula_and_each_reads_back():
    groups = dict(enumerate(STRANGE))
    text = table.text(STRANGE, groups, np.arange(len(STRANGE)), np.ones(len(STRANGE)))
    for cell in itertools.chain(*csv.reader(io.StringIO(text, newline=""))):
        assert cell.strip()[:1] not in set("=+-@") or cells.NUMBER.fullmatch(cell)
    assert read(text) == [[name, str(STRANGE.index(name)), name, "1.0000"] for name in sorted(STRANGE)]
    assert table.text([], {0: "x"}, np.zeros(0, int), np.zeros(0)) == "file,cluster,name,confidence\n"


def test_as_many_names_as_images():
    with pytest.raises(ValueError, match="longer"):
        table.text(["a.png"], GROUPS, np.array([0, 1]), np.ones(2))


def write(tmp_path, name="cats", called=("b.png", "a.png")):
    return table.write(tmp_path, called, {0: name}, np.zeros(len(called), int), np.ones(len(called)))


def test_it_is_written_only_when_it_changed(tmp_path):
    path = write(tmp_path)
    assert path == tmp_path / workdir.CLUSTERS
    then = path.stat()
    assert write(tmp_path).stat().st_ino == then.st_ino
    assert write(tmp_path, "dogs").stat().st_ino != then.st_ino  # another file in its place
    assert read(path.read_text("utf-8")) == [["a.png", "0", "dogs", "1.0000"], ["b.png", "0", "dogs", "1.0000"]]
    assert [*tmp_path.iterdir()] == [path]


def test_what_ends_in_the_middle_leaves_the_table_as_it_was(tmp_path, monkeypatch):
    before = write(tmp_path).read_bytes()

    def fails(fd):
        raise OSError("no room")

    monkeypatch.setattr(files.os, "fsync", fails)
    with pytest.raises(OSError, match="no room"):
        write(tmp_path, "dogs")
    assert (tmp_path / workdir.CLUSTERS).read_bytes() == before
    assert len([*tmp_path.iterdir()]) == 1


def test_a_link_in_its_place_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / workdir.CLUSTERS).symlink_to(tmp_path / "mine")
    assert not write(tmp_path).is_symlink()
    assert (tmp_path / "mine").read_text("utf-8") == "mine"


def test_names_that_are_not_utf_8_are_backslashed_and_the_run_knows_them_no_less(tmp_path):
    name = os.fsdecode(b"no utf-8 \xff.png")
    path = write(tmp_path, "half \ud800", (name, "a.png"))
    assert read(path.read_text("utf-8"))[1] == ["no utf-8 \\udcff.png", "0", "half \\ud800", "1.0000"]
    inode = path.stat().st_ino
    assert write(tmp_path, "half \ud800", (name, "a.png")).stat().st_ino == inode


@pytest.mark.parametrize("there", ["", "file,cluster,name,confidence\n", "another table\n1\n"])
def test_another_table_in_its_place_is_replaced(there, tmp_path):
    (tmp_path / workdir.CLUSTERS).write_text(there)
    assert len(read(write(tmp_path).read_text("utf-8"))) == 2
