"""Decoded images on disk: made once, by worker processes, in a file that is mapped into memory.

An entry of the cache is a folder, renamed into place when it is whole. Until then it has a hidden name and a journal
of the rows that are on the disk, so a run that was killed, or met a full disk, goes on where it was. One run at a
time fills an entry, others wait for it.

    images.u8      u8[N, H, W, C], and nothing else
    labels.npy     i32[N], where the data has labels of its own
    index.json     shape, names of the rows, what was skipped, which rows are of a single colour, checksums
    skipped.csv    file, reason
    states.json    of files in a folder: the state in which each was decoded
    checked        what the file of images was like when it was last held against its checksums

An entry that is damaged is set aside, and made again. One that lacks images for a reason that may have passed, such as
a permission, is made again when one of these can be read.
"""

import contextlib
import errno
import functools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from jaxclust.data import limit, reuse, workers
from jaxclust.data.decode import AGAIN, Item
from jaxclust.data.entries import DAMAGE, Entry, open_entry, sum_of, sums
from jaxclust.data.workers import decode_all
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import FULL, expanded, write_atomically, write_csv
from jaxclust.run.locks import alone_in

logger = logging.getLogger(__name__)

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


def directory() -> Path:
    """Where decoded images and compiled programs are kept: $JAXCLUST_CACHE, or the user's cache folder."""
    if os.environ.get("JAXCLUST_CACHE"):
        return expanded(os.environ["JAXCLUST_CACHE"])
    home = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return _homeless() if home.parts[0].startswith("~") else home / "jaxclust"


def entry(listing: Listing) -> Entry:
    """The decoded images of `listing`, from the cache or into it.

    Where the cache cannot be written (read-only, no home), a temporary folder takes its place until the process ends.

    Raises:
      ConfigError: the disk is full, the images are more than the cache may hold, or there is no image at all.
    """
    home = directory()
    found = _whole(home / listing.key, listing) if (home / listing.key).is_dir() else None
    if found is None:
        try:
            home.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=home).close()
        except OSError as e:
            if e.errno in FULL:
                raise _full(home, listing) from e
            warnings.warn(f"{home} cannot be written ({e.strerror}); decoding for this run alone", stacklevel=2)
            home = Path(_temporary().name)
        limit.make_room(home, listing.count, listing.shape)
        try:
            _make(home / listing.key, listing)
        except OSError as e:
            if e.errno in FULL:
                raise _full(home, listing) from e
            raise ConfigError(f"the cache {home} cannot be written: {e}; set JAXCLUST_CACHE to another folder") from e
        found = open_entry(home / listing.key)
    limit.touch(home / listing.key)
    return found


def _whole(folder: Path, listing: Listing) -> Entry | None:
    """The entry there; None where it had to go, and is to be made anew."""
    try:
        found = open_entry(folder)
    except DAMAGE as e:
        if not folder.is_dir():  # another run is making it anew
            return None
        aside = folder.with_name("damaged") / folder.name
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.parent.mkdir(exist_ok=True)
            os.rename(folder, aside)
        except OSError as refused:
            raise ConfigError(
                f"{folder} is damaged ({e}) and cannot be moved ({refused.strerror}); remove it, or set "
                f"JAXCLUST_CACHE to another folder"
            ) from e
        said = "warning: decoded images in %s are damaged (%s); they are in %s now, and are decoded again"
        logger.warning(said, folder, e, aside)
        return None
    if not any_readable(listing, found.again):
        return found
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".old-"))
    with contextlib.suppress(FileNotFoundError):  # another run was faster
        os.rename(folder, old / folder.name)
    shutil.rmtree(old)  # whoever has it open keeps it
    return None


def any_readable(listing: Listing, rows: list[int]) -> bool:
    """Whether one of these images, none of which could be read before, can be now."""
    if not rows:
        return False
    with tempfile.NamedTemporaryFile(prefix="jaxclust-") as scratch:
        one_by_one = ((0, listing.read(range(row, row + 1))[0]) for row in rows)
        return any(not skipped for _, skipped in decode_all(scratch.name, one_by_one, listing.shape, listing.resize))


@functools.cache
def _homeless() -> Path:
    """What takes the cache's place for a user who has no home, as an unknown one in a container."""
    logger.warning(
        "note: this user has no home folder for decoded images and compiled programs; set JAXCLUST_CACHE to keep them"
    )
    return Path(_temporary().name)


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
        now = reuse.folder(listing.names, listing.read(range(listing.count))[0] if listing.names else (), listing.shape)
        before = reuse.earlier(final.parent, now, final.name) if now else None
        rows = _fill(partial, listing, lambda names: before.take(names, now) if before and now else None)
        workers.end()
        count = _finish(partial, listing, rows)
        if now:
            write_atomically(partial / reuse.STATES, json.dumps(now.states))
        os.rename(partial, final)
        if now:
            reuse.remember(final.parent, now, final.name, before)
    # Only now, as a run that is killed above must find every row where it was.
    os.truncate(final / "images.u8", count * int(np.prod(listing.shape)))
    (final / "journal.jsonl").unlink()


class _Rows(NamedTuple):
    skipped: dict[int, str]  # row -> reason
    labels: np.ndarray | None  # i32[N]


def _fill(partial: Path, listing: Listing, known: Callable[[list[str]], tuple | None]) -> _Rows:
    """Decodes what an earlier run has not, and returns what the journal then says of all rows.

    Of a chunk of files that is `known`, pixels and unusable ones are taken from there.

    A line of the journal is a chunk whose pixels are on the disk: `{"start", "skipped", "labels"}`.
    """
    for left in partial.glob(".*"):  # by a run that was killed while it wrote
        left.unlink()
    images, journal = partial / "images.u8", partial / "journal.jsonl"
    images.touch()
    done = dict(_read_journal(journal))
    write_atomically(journal, "".join(json.dumps(line) + "\n" for line in done.values()))
    todo = [start for start in range(0, listing.count, CHUNK) if start not in done]
    size = int(np.prod(listing.shape))
    if (need := len(todo) * CHUNK * size) > shutil.disk_usage(partial).free:
        raise OSError(errno.ENOSPC, f"{need:,} bytes are needed")

    def copied() -> Iterator[tuple[int, list[tuple[int, str]]]]:
        for start in todo if listing.names else ():
            rows = _rows(listing, start)
            if found := known(listing.names[rows.start : rows.stop]):
                pixels.seek(start * size)
                pixels.write(found[0])
                labels[start] = None
                yield start, [(start + i, reason) for i, reason in found[1]]

    def chunks():
        for start in todo:
            if start in done:
                continue
            items, labels[start] = listing.read(_rows(listing, start))
            yield start, items

    labels, fresh, synced = {}, [], time.monotonic()
    with (
        images.open("rb+") as pixels,
        journal.open("a", encoding="utf-8") as lines,
        tqdm(
            total=listing.count,
            initial=listing.count - sum(len(_rows(listing, start)) for start in todo),
            desc="decoding",
            unit=" images",
            disable=not (todo and sys.stderr.isatty()),
        ) as bar,
    ):

        def sync():
            pixels.flush()
            os.fsync(pixels.fileno())
            lines.write("".join(json.dumps(line) + "\n" for line in fresh))
            lines.flush()
            os.fsync(lines.fileno())
            fresh.clear()

        for start, skipped in chain(copied(), decode_all(str(images), chunks(), listing.shape, listing.resize)):
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
        for text in path.read_text("utf-8").splitlines():
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
        plain = [row for row in range(count) if _single_colour(f.fileno(), row * size, listing.shape)]
    name = listing.names.__getitem__ if listing.names else "record {}".format
    skipped = [*listing.aside, *((name(row), reason) for row, reason in sorted(rows.skipped.items()))]
    if rows.labels is not None:
        np.save(partial / "labels.npy", rows.labels[order])
    write_csv(partial / "skipped.csv", ("file", "reason"), skipped)
    names = [listing.names[row] for row in order] if listing.names else None
    again = [row for row, reason in sorted(rows.skipped.items()) if reason.endswith(AGAIN)]
    index = {"shape": listing.shape, "count": count, "names": names, "skipped": skipped, "plain": plain}
    index |= {"again": again, "sums": sums(partial, count * size)}
    write_atomically(partial / "index.json", json.dumps(index | {"sum": sum_of(index)}))
    return count


def _single_colour(file: int, at: int, shape: tuple[int, int, int]) -> bool:
    """Whether the image there shows one colour; of most its first lines tell, and no more is read."""
    pixels, channels = shape[0] * shape[1], shape[2]
    for some in (min(pixels, 1024), pixels):
        read = os.pread(file, some * channels, at)
        if read != read[:channels] * some:
            return False
    return True


def _full(home: Path, listing: Listing) -> ConfigError:
    gigabytes = listing.count * int(np.prod(listing.shape)) / 1e9
    return ConfigError(
        f"the disk of {home} is full: {listing.count:,} images of {listing.shape[0]} x {listing.shape[1]} pixels take "
        f"{gigabytes:.1f} GB; make room and run this again, which goes on where it stopped, or set JAXCLUST_CACHE to a "
        f"folder on another disk"
    )
