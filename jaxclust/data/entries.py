"""An entry of the cache of decoded images, as `cache` lays it out: opened, and held against its checksums."""

import contextlib
import json
import math
import os
import stat
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from jaxclust.run.files import write_atomically

BLOCK = 2**24  # bytes that have a checksum
# What a damaged entry makes its readers say.
DAMAGE = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RecursionError, BadZipFile)
FILES = ("images.u8", "labels.npy", "index.json")


class Entry(NamedTuple):
    images: np.ndarray  # u8[N, H, W, C], memory-mapped
    labels: np.ndarray | None  # i32[N]
    names: list[str] | None  # of each row
    skipped: list[tuple[str, str]]  # (name, reason)
    skipped_csv: Path
    plain: list[int]  # rows of images of a single colour
    again: list[int]  # rows of the listing that were skipped for a reason that may pass


def open_entry(folder: Path) -> Entry:
    """The entry, held against its checksums unless that was done since its files were last written to.

    Raises:
      *DAMAGE: it is damaged, in one of many ways.
    """
    seen, checked = _stamp(folder), folder / "checked"
    known = checked.is_file() and checked.read_text("utf-8") == seen
    index, labels = json.loads((folder / "index.json").read_text("utf-8")), folder / "labels.npy"
    if not known and index.pop("sum") != sum_of(index):
        raise ValueError("index.json is not what was written")
    shape = (index["count"], *index["shape"])
    if index["names"] is not None and len(index["names"]) != index["count"]:
        raise ValueError(f"{len(index['names']):,} names for {index['count']:,} images")
    size, there = math.prod(shape), (folder / "images.u8").stat().st_size
    if there < size:
        raise ValueError(f"{there:,} bytes are there of {size:,}")
    if not known and sums(folder, size) != index["sums"]:
        raise ValueError("not what was written")
    if not known:
        with contextlib.suppress(OSError):  # of a cache that is read alone it is checked each time
            write_atomically(checked, seen)
    return Entry(
        np.memmap(folder / "images.u8", np.uint8, "r", shape=shape) if index["count"] else np.empty(shape, np.uint8),
        np.load(labels)[: index["count"]] if labels.exists() else None,
        index["names"],
        [tuple(row) for row in index["skipped"]],
        folder / "skipped.csv",
        index["plain"],
        index["again"],
    )


def _stamp(folder: Path) -> str:
    """Changes when one of the entry's files is written to, goes, or comes."""
    found = {name: (folder / name).stat() for name in FILES if (folder / name).exists()}
    for name, status in found.items():
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise ValueError(f"{name} is no file")
    return json.dumps({name: [s.st_ino, s.st_size, s.st_mtime_ns] for name, s in found.items()})


def sum_of(index: dict[str, Any]) -> int:
    """The checksum of what `index.json` says."""
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())


def sums(folder: Path, size: int) -> dict[str, list[int]]:
    """Checksums of an entry's arrays by blocks, of the first `size` bytes of its images."""
    found = {}
    for path, most in ((folder / "images.u8", size), (folder / "labels.npy", sys.maxsize)):
        if path.exists():
            with path.open("rb") as f:
                starts = range(0, min(most, os.fstat(f.fileno()).st_size), BLOCK)
                found[path.name] = [zlib.crc32(f.read(min(BLOCK, most - start))) for start in starts]
    return found
