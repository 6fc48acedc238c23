"""Decoded images on disk: made once, by worker processes, in a file that is mapped into memory.

An entry of the cache is a folder, renamed into place when it is whole. Until then it has a hidden name and a journal
of the rows that are on the disk, so a run that was killed, or met a full disk, goes on where it was. One run at a
time fills an entry, others wait for it.

    images.u8      u8[N, H, W, C], and nothing else
    labels.npy     i32[N], where the data has labels of its own
    index.json     shape, names of the rows, what was skipped
    skipped.csv    file, reason
"""

import contextlib
import errno
import functools
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxclust.config import ConfigError
from jaxclust.data.decode import Item
from jaxclust.data.workers import decode_all
from jaxclust.files import FULL, alone_in, write_atomically, write_csv

CHUNK = 64  # images in a worker's task
SYNC_SECONDS = 2.0  # at most as much work is lost when the power fails; a killed process loses less


class Listing(NamedTuple):
    """Images that are still encoded: what a cache entry is made from."""

    key: str  # the entry's name: changes with whatever changes a pixel
    shape: tuple[int, int, int]  # (H, W, C) of an image in the cache
    resize: bool  # whether images are brought to that size, or must have it
    names: list[str] | None  # of each image, where it has one
    count: int
    read: Callable[[range], tuple[list[Item], list[int] | None]]  # rows -> what a worker decodes, labels
    aside: list[tuple[str, str]]  # (name, reason) of what was found and is no candidate


class Entry(NamedTuple):
    images: np.ndarray  # u8[N, H, W, C], memory-mapped
    labels: np.ndarray | None  # i32[N]
    names: list[str] | None  # of each row
    skipped: list[tuple[str, str]]  # (name, reason)
    skipped_csv: Path


def directory() -> Path:
    """Where decoded images and compiled programs are kept: $JAXCLUST_CACHE, or the user's cache folder."""
    if os.environ.get("JAXCLUST_CACHE"):
        return Path(os.environ["JAXCLUST_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxclust"


def entry(listing: Listing) -> Entry:
    """The decoded images of `listing`, from the cache or into it.

    Where the cache cannot be written (read-only, no home), a temporary folder takes its place until the process ends.

    Raises:
      ConfigError: the disk is full, or there is no image at all.
    """
    home = directory()
    if not (home / listing.key).is_dir():
        try:
            home.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=home).close()
        except OSError as e:
            if e.errno in FULL:
                raise _full(home, listing) from e
            warnings.warn(f"{home} cannot be written ({e.strerror}); decoding for this run alone", stacklevel=2)
            home = Path(_temporary().name)
        try:
            _make(home / listing.key, listing)
        except OSError as e:
            if e.errno in FULL:
                raise _full(home, listing) from e
            raise ConfigError(f"the cache {home} cannot be written: {e}; set JAXCLUST_CACHE to another folder") from e
    return _open(home / listing.key)


def _open(folder: Path) -> Entry:
    index, labels = json.loads((folder / "index.json").read_text()), folder / "labels.npy"
    shape = (index["count"], *index["shape"])
    return Entry(
        np.memmap(folder / "images.u8", np.uint8, "r", shape=shape) if index["count"] else np.empty(shape, np.uint8),
        np.load(labels)[: index["count"]] if labels.exists() else None,
        index["names"],
        [tuple(row) for row in index["skipped"]],
        folder / "skipped.csv",
    )


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory:
    """One folder for all splits, kept until the process ends."""
    return tempfile.TemporaryDirectory(prefix="jaxclust-")


def _make(final: Path, listing: Listing) -> None:
    """Fills an entry, or waits until another run has."""
    partial = final.with_name(f".{final.name}.partial")
    with alone_in(partial, "another run is decoding these images; waiting for it"):
        if final.is_dir():
            with contextlib.suppress(OSError):
                partial.rmdir()  # made anew by us, while the other run was renaming its own
            return
        rows = _fill(partial, listing)
        count = _finish(partial, listing, rows)
        os.rename(partial, final)
    # Only now, as a run that is killed above must find every row where it was.
    os.truncate(final / "images.u8", count * int(np.prod(listing.shape)))
    (final / "journal.jsonl").unlink()


class _Rows(NamedTuple):
    skipped: dict[int, str]  # row -> reason
    labels: np.ndarray | None  # i32[N]


def _fill(partial: Path, listing: Listing) -> _Rows:
    """Decodes what an earlier run has not, and returns what the journal then says of all rows.

    A line of the journal is a chunk whose pixels are on the disk: `{"start", "skipped", "labels"}`.
    """
    images, journal = partial / "images.u8", partial / "journal.jsonl"
    images.touch()
    done = dict(_read_journal(journal))
    write_atomically(journal, "".join(json.dumps(line) + "\n" for line in done.values()))
    todo = [start for start in range(0, listing.count, CHUNK) if start not in done]
    size = int(np.prod(listing.shape))
    if (need := len(todo) * CHUNK * size) > shutil.disk_usage(partial).free:
        raise OSError(errno.ENOSPC, f"{need:,} bytes are needed")

    def chunks():
        for start in todo:
            items, labels[start] = listing.read(_rows(listing, start))
            yield start, items

    labels, fresh, synced = {}, [], time.monotonic()
    with (
        images.open("rb+") as pixels,
        journal.open("a") as lines,
        tqdm(
            total=listing.count,
            initial=listing.count - sum(len(_rows(listing, start)) for start in todo),
            desc="decoding",
            unit=" images",
            disable=not (todo and sys.stderr.isatty()),
        ) as bar,
    ):

        def sync():
            os.fsync(pixels.fileno())
            lines.write("".join(json.dumps(line) + "\n" for line in fresh))
            lines.flush()
            os.fsync(lines.fileno())
            fresh.clear()

        for start, skipped in decode_all(str(images), chunks(), listing.shape, listing.resize):
            done[start] = {"start": start, "skipped": skipped, "labels": labels.pop(start)}
            fresh.append(done[start])
            bar.update(len(_rows(listing, start)))
            if time.monotonic() - synced > SYNC_SECONDS:
                sync()
                synced = time.monotonic()
        sync()
    done = [done[start] for start in range(0, listing.count, CHUNK)]
    labelled = all(line["labels"] is not None for line in done)
    return _Rows(
        {row: reason for line in done for row, reason in line["skipped"]},
        np.array([label for line in done for label in line["labels"]], np.int32) if labelled else None,
    )


def _rows(listing: Listing, start: int) -> range:
    return range(start, min(start + CHUNK, listing.count))


def _read_journal(path: Path) -> Iterator[tuple[int, dict]]:
    """(start, line) of each whole line; a kill may have cut the last one short."""
    if path.exists():
        for text in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                yield line["start"], line


def _finish(partial: Path, listing: Listing, rows: _Rows) -> int:
    """Closes the gaps that skipped images left with the last images, and writes all but the pixels.

    Doing it twice is the same as once: a row that is copied is not written to.

    Returns:
      the number of images.
    """
    count, size = listing.count - len(rows.skipped), int(np.prod(listing.shape))
    order = np.arange(count)
    gaps = [row for row in sorted(rows.skipped) if row < count]
    fill = [row for row in range(count, listing.count) if row not in rows.skipped]
    with (partial / "images.u8").open("rb+") as f:
        for gap, row in zip(gaps, fill, strict=True):
            order[gap] = row
            os.pwrite(f.fileno(), os.pread(f.fileno(), size, row * size), gap * size)
        os.fsync(f.fileno())
    name = listing.names.__getitem__ if listing.names else "record {}".format
    skipped = [*listing.aside, *((name(row), reason) for row, reason in sorted(rows.skipped.items()))]
    if rows.labels is not None:
        np.save(partial / "labels.npy", rows.labels[order])
    write_csv(partial / "skipped.csv", ("file", "reason"), skipped)
    names = [listing.names[row] for row in order] if listing.names else None
    index = {"shape": listing.shape, "count": count, "names": names, "skipped": skipped}
    write_atomically(partial / "index.json", json.dumps(index))
    return count


def _full(home: Path, listing: Listing) -> ConfigError:
    gigabytes = listing.count * int(np.prod(listing.shape)) / 1e9
    return ConfigError(
        f"the disk of {home} is full: {listing.count:,} images of {listing.shape[0]} x {listing.shape[1]} pixels take "
        f"{gigabytes:.1f} GB; make room and run this again, which goes on where it stopped, or set JAXCLUST_CACHE to a "
        f"folder on another disk"
    )
