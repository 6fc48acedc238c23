"""Lists of files, as people, Windows and spreadsheets write them: a path on each line, or a table with a header.

A line is a path where a file of that name exists. Failing that a comment, quotes or spaces around it are no part of it.
"""

import codecs
import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from jaxclust.data import kinds
from jaxclust.run.errors import ConfigError, hint

TABLES = (".csv", ".tsv")
SUFFIXES = (".txt", ".lst", ".list", *TABLES)
COLUMNS = ("file", "files", "filename", "file_name", "path", "filepath", "file_path", "image", "images", "image_path")
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Listed(NamedTuple):
    names: list[str]  # of the files, as the list has them
    files: list[str]  # their paths
    labels: list[str] | None  # of each


def is_list(path: Path) -> bool:
    """Whether a file is a list of others: by its name, or by its content where its name says nothing."""
    if path.suffix or not path.is_file():
        return path.suffix.lower() in SUFFIXES and path.is_file()
    with path.open("rb") as f:
        head = f.read(kinds.HEAD)
    return bool(head) and not kinds.is_picture(head) and (head.startswith(tuple(BOMS)) or b"\0" not in head)


def read(path: Path, labels: str = "") -> Listed:
    """The files of a list, each of them relative to the list's own folder or, failing that, to the current one.

    Args:
      path: of the list: a .csv or .tsv with a header, or a path on each line, in UTF-8 or UTF-16.
      labels: the column of a table that holds each file's label; "" for none.

    Raises:
      ConfigError: it cannot be read, names no file, or has no such column.
    """
    text, home = _text(path), path.parent
    if path.suffix.lower() in TABLES:
        return _table(path, text, labels)
    if labels:
        raise ConfigError(f"data.labels is {labels!r}; for {path} it is '', as only a .csv has columns of labels")
    lines = text.split("\n") if "\n" in text else text.split("\r")
    found = [_found(line.rstrip("\r"), home) for line in lines if line.strip()]
    found = [(name, file) for name, file in found if os.path.lexists(file) or not name.startswith("#")]
    return _listed(path, found, None)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        encoding = next((name for bom, name in BOMS.items() if content.startswith(bom)), "utf-8")
        text = content.decode(encoding, "strict" if encoding == "utf-16" else "surrogateescape")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"the list {path} cannot be read: {e}") from e
    if "\0" in text:
        raise ConfigError(f"{path} is no list of files: it is not text in UTF-8, or in UTF-16 with its mark")
    return text


def _table(path: Path, text: str, labels: str) -> Listed:
    lines = text.splitlines()
    first = lines[0] if lines else ""
    comma = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    try:
        header, *rows = [row for row in csv.reader(lines, delimiter=comma) if any(cell.strip() for cell in row)] or [[]]
    except csv.Error as e:
        raise ConfigError(f"the list {path} is no table: {e}") from e
    names = [cell.strip() for cell in header]
    known = [i for i, name in enumerate(names) if name.lower() in COLUMNS]
    if not known and len(header) == 1:  # a list of files that is called a table
        known, rows = [0], [header, *rows]
    if not known:
        raise ConfigError(f"{path} has the columns {', '.join(names) or 'none'}; call the one with the files 'file'")
    if labels and labels not in names:
        raise ConfigError(f"data.labels is {labels!r}, but {path} has no such column{hint(labels, names)}")
    wanted = [known[0]] + ([names.index(labels)] if labels else [])
    for row in rows:
        if len(row) <= max(wanted) or not all(row[i].strip() for i in wanted):
            raise ConfigError(f"{path} has a row without its file or label, {comma.join(row)!r}; complete or remove it")
    found = [_found(row[known[0]], path.parent) for row in rows]
    return _listed(path, found, [row[wanted[1]].strip() for row in rows] if labels else None)


def _listed(path: Path, found: Iterable[tuple[str, str]], labels: list[str] | None) -> Listed:
    if not found:
        raise ConfigError(f"the list {path} names no file; give at least one")
    names, files = zip(*found, strict=True)
    return Listed([*names], [*files], labels)


def _found(line: str, home: Path) -> tuple[str, str]:
    """(name, path) of the file that a line means; where there is none, what it most likely means."""
    bare = line.strip()
    quoted = len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'"
    meant = bare[1:-1] if quoted else bare
    for name in dict.fromkeys((line, bare, meant)):
        for file in (os.path.join(home, name), name, os.path.expanduser(name)):
            if os.path.lexists(file) and not os.path.isdir(file):
                return name, file
    return meant, os.path.join(home, os.path.expanduser(meant))
