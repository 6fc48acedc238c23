"""Images as the files that they come from: their bytes, compared and copied."""

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from jaxclust.data import decode
from jaxclust.data.new_images import Images


def alike(into: Path, made: Mapping[Path, os.stat_result], images: Images) -> list[tuple[list[int], list[Path]]]:
    """Rows of images, and those of the files made of images below `into` that hold the same bytes.

    A file that is an original itself, by some link, is none of them.
    """
    sizes: dict[int, list[Path]] = {}
    for path, status in made.items():
        sizes.setdefault(status.st_size, []).append(path)
    identities = {(status.st_dev, status.st_ino): path for path, status in made.items()}
    themselves, rows = set(), {}
    for row in range(images.listing.count) if sizes else ():
        with contextlib.suppress(OSError, decode.Unusable), opened(images.item(row)) as f:
            if own := identities.get(_identity(f)):
                themselves.add(own)
            elif (size := f.seek(0, os.SEEK_END)) in sizes:
                f.seek(0)
                rows.setdefault((size, _digest(f)), []).append(row)
    copies: dict[tuple[int, str], list[Path]] = {}
    for size in {size for size, _ in rows}:
        for path in sizes[size]:
            if path not in themselves:
                with contextlib.suppress(OSError), (into / path).open("rb") as f:
                    copies.setdefault((size, _digest(f)), []).append(path)
    return [(rows[content], paths) for content, paths in copies.items() if content in rows]


def are_same(item: decode.Item, path: Path) -> bool:
    """Whether a file holds the bytes of an image.

    Raises:
      Unusable, OSError: one of them cannot be read.
    """
    with opened(item) as f, path.open("rb") as copy:
        return _digest(f) == _digest(copy)


def opened(item: decode.Item) -> BinaryIO:
    """An image as a file: as it is; of an array, as PNG.

    Raises:
      Unusable: it is not there any more, or cannot be read.
    """
    try:
        if not isinstance(item, np.ndarray):
            return decode.open_item(item)
        pixels, made = decode.decode(item, None, item.shape[-1]), io.BytesIO()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(made, "PNG")
        made.seek(0)
        return made
    except decode.Unusable:
        raise
    except Exception as e:  # an archive is damaged in many ways
        raise decode.Unusable(getattr(e, "strerror", None) or str(e) or type(e).__name__) from e


def write(item: decode.Item, path: Path, since: int) -> str:
    """Writes an image to a new file, with the original's time, or that of what it is from; the file's name.

    Raises:
      Unusable: the image cannot be read.
    """
    with opened(item) as f, path.open("xb") as out:
        for chunk in _chunks(f):
            out.write(chunk)
        out.flush()
        time = since if _identity(f) is None else os.fstat(f.fileno()).st_mtime_ns
        os.utime(path, ns=(time, time))
    return path.name


def _chunks(f: BinaryIO) -> Iterator[bytes]:
    try:
        while chunk := f.read(shutil.COPY_BUFSIZE):
            yield chunk
    except OSError as e:
        raise decode.Unusable(e.strerror or str(e)) from e


def _digest(f: BinaryIO) -> str:
    return hashlib.file_digest(f, "sha256").hexdigest()


def _identity(f: BinaryIO) -> tuple[int, int] | None:
    """Of a file of its own; None of what only reads like one."""
    try:
        status = os.fstat(f.fileno())
    except io.UnsupportedOperation:
        return None
    return status.st_dev, status.st_ino
