"""New images, wherever they are, as uint8 of the shape in which a run keeps its own.

A folder, tar, zip, npy, npz or list of files is read as training reads it; beside these there is a single image.
Files are decoded by worker processes, into a few rows of a scratch file that are used again and again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from loky import cpu_count

from jaxclust.data import arrays, folder, lists
from jaxclust.data.cache import Listing
from jaxclust.data.content import glance
from jaxclust.data.decode import VERSION, Item
from jaxclust.data.workers import decode_all
from jaxclust.run.errors import ConfigError

CHUNK = 64  # images in a worker's task


class Images(NamedTuple):
    """Images in an order that stays, and how they become pixels."""

    listing: Listing
    ready: Callable[[range], np.ndarray] | None  # rows -> u8[n, H, W, C], of those that need no decoding

    def name(self, row: int) -> str:
        return self.listing.names[row] if self.listing.names else str(row)

    def item(self, row: int) -> Item:
        """Where an image is."""
        return self.listing.read(range(row, row + 1))[0][0]


class Chunk(NamedTuple):
    rows: np.ndarray  # i64[n]
    images: np.ndarray  # u8[n, H, W, C]
    skipped: list[tuple[int, str]]  # (row, why it cannot be used)


def find(path: Path, shape: tuple[int, int, int], size: int) -> Images:
    """The images that a user has named.

    Args:
      path: a folder, .tar, .zip, .npy, .npz, a list of files (`lists`), or an image.
      shape: (H, W, C) in which the run keeps its images.
      size: side of the network's input, pixels.

    Raises:
      ConfigError: there is nothing, or what is there cannot be read.
    """
    if not path.exists():
        raise ConfigError(f"there is nothing at {path}; give a folder, archive, array, list or image")
    if path.is_dir() or folder.is_archive(path):
        return _shaped(folder.listing(path, _side(shape, size)), shape)
    if path.suffix.lower() in arrays.SUFFIXES:
        images, *_ = arrays.read(path, "")
        status = path.stat()
        key = f"array-{_digest([path.name, status.st_size, status.st_mtime_ns, glance([path])])}"
        if isinstance(images, np.memmap):  # mapped anew each time: what was read of a mapping stays in memory
            return of_array(lambda rows: arrays.read(path, "")[0][rows.start : rows.stop], images, key, shape, size)
        return of_array(lambda rows: images[rows.start : rows.stop], images, key, shape, size)
    if lists.is_list(path):
        listed = lists.read(path)
        return of_files(listed.files, shape, size, listed.names)
    return of_files([str(path)], shape, size, [path.name])


def of_files(files: list[str], shape: tuple[int, int, int], size: int, names: list[str] | None = None) -> Images:
    """Files, each of which may be an image; one that is named again is set aside.

    Args:
      files: paths.
      shape, size: as `find` takes them.
      names: what the files are called, if not by their paths.
    """
    if not files:
        raise ConfigError("no image is named; give at least one")
    named, aside = {}, []
    for file, name in zip(files, names or files, strict=True):
        if file in named:
            aside.append((name, "named more than once"))
        named.setdefault(file, name)
    once = list(named)
    places = [os.path.abspath(file) for file in once]  # decoders may have been started in another folder
    side = _side(shape, size)
    listing = Listing(
        key=f"files-{_digest([side, glance(once), *map(_version, once)])}",
        shape=(side, side, shape[-1]),
        resize=True,
        names=[*named.values()],
        count=len(once),
        read=lambda rows: (places[rows.start : rows.stop], None),
        aside=aside,
    )
    return Images(listing, None)


def of_array(
    take: Callable[[range], np.ndarray], images: np.ndarray, key: str, shape: tuple[int, int, int], size: int
) -> Images:
    """Images that are an array.

    Args:
      take: rows -> [n, H, W, C] of it.
      images: the whole of it, u8 or floats in [0, 1]; only its shape and type are looked at.
      key: changes when its content does.
      shape, size: as `find` takes them.
    """
    side, channels = _side(shape, size), shape[-1]
    fits = images.shape[1:3] == shape[:2]
    listing = Listing(
        key=f"{key}-{_digest([shape, size])}",
        shape=shape if fits else (side, side, channels),
        resize=not fits,
        names=None,
        count=len(images),
        read=lambda rows: (list(_channels(np.array(take(rows)), channels)), None),
        aside=[],
    )
    ready = None
    if fits and images.dtype == np.uint8:
        ready = lambda rows: _channels(np.array(take(rows)), channels)  # noqa: E731
    return Images(listing, ready)


def chunks(images: Images, todo: Iterable[range], scratch: Path) -> Iterator[Chunk]:
    """Decodes ranges of rows.

    Args:
      images: which.
      todo: ranges of rows, read lazily.
      scratch: a file that is written to, of a few chunks.

    Yields:
      a chunk of at most `CHUNK` rows, in the order in which they are done.
    """
    parts = (range(i, min(i + CHUNK, rows.stop)) for rows in todo for i in range(rows.start, rows.stop, CHUNK))
    if images.ready:
        for rows in todo:
            yield Chunk(np.array(rows), images.ready(rows), [])
        return
    shape, resize = images.listing.shape, images.listing.resize
    # `decode_all` has so many under way, and takes the next only when what it has yielded was taken from its place.
    free, places = list(range(3 * cpu_count())), {}

    def placed() -> Iterator[tuple[int, list[Item]]]:
        for rows in parts:
            start = free.pop() * CHUNK
            places[start] = rows
            yield start, images.listing.read(rows)[0]

    size = int(np.prod(shape))
    scratch.touch()
    with scratch.open("rb") as f:
        for start, unusable in decode_all(str(scratch), placed(), shape, resize):
            rows, bad = places.pop(start), {at - start: reason for at, reason in unusable}
            pixels = np.zeros((len(rows), *shape), np.uint8)  # a last row that is unusable may lie beyond the file
            os.preadv(f.fileno(), [pixels], start * size)
            free.append(start // CHUNK)
            good = [i for i in range(len(rows)) if i not in bad]
            yield Chunk(np.array(rows)[good], pixels[good], [(rows[i], why) for i, why in bad.items()])


def batches(chunks: Iterable[Chunk], size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Usable images of chunks, (rows i64[n], u8[n, H, W, C]) with n = `size` but for the last."""
    waiting, held = [], 0
    for chunk in chunks:
        waiting.append((chunk.rows, chunk.images))
        held += len(chunk.rows)
        if held >= size:
            rows, pixels = (np.concatenate(parts) for parts in zip(*waiting))
            whole = held // size * size
            yield from ((rows[i : i + size], pixels[i : i + size]) for i in range(0, whole, size))
            waiting, held = [(rows[whole:], pixels[whole:])], held - whole
    if held:
        yield tuple(np.concatenate(parts) for parts in zip(*waiting))


def _side(shape: tuple[int, int, int], size: int) -> int:
    """Of the squares that files are decoded to, pixels: as the run keeps its own, where those are squares."""
    return shape[0] if shape[0] == shape[1] else size


def _shaped(listing: Listing, shape: tuple[int, int, int]) -> Images:
    side = listing.shape[0]
    return Images(listing._replace(shape=(side, side, shape[-1])), None)


def _channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Grey [n, H, W, 1] as colour, or colour as grey, with Pillow's weights."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    grey = images @ np.array([0.299, 0.587, 0.114], np.float32)
    return (np.round(grey).astype(np.uint8) if images.dtype == np.uint8 else grey)[..., None]


def _version(file: str) -> tuple:
    """Numbers that change when the file's content does."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # whoever opens it finds out, and says so
        return (file,)
    return file, status.st_size, status.st_mtime_ns


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps([VERSION, *content]).encode()).hexdigest()[:16]
