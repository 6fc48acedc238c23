"""Rows of a run as pictures for a browser. Whatever goes out was encoded here: no file is passed on as it is."""

import os
import stat
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxclust.data.decode import MAX_BYTES, Unusable, decode

COLUMNS = 8
MOST = 64  # thumbnails on a sheet
SIDE = 128  # of a thumbnail, pixels, at most
EXACT = 64  # up to this side a picture is small enough to be sent without loss
GUTTER = 1  # pixels of its own edge around each thumbnail, so that enlarging mixes in no neighbour
LARGE = 2048  # side of an original on the screen, pixels, at most


class Picture(NamedTuple):
    kind: str  # the media type
    content: bytes


def thumbnail_size(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of the thumbnail of an image of shape (H, W, C)."""
    height, width, _ = shape
    scale = min(1, SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def sheet(images: np.ndarray, rows: Sequence[int]) -> Picture:
    """Thumbnails of some rows side by side, `COLUMNS` in a line, each within its gutter.

    Args:
      images: u8[N, H, W, C].
      rows: at most `MOST` of them.
    """
    height, width = thumbnail_size(images.shape[1:])
    tiles = np.asarray(images[np.asarray(rows)])
    if tiles.shape[1:3] != (height, width):
        small = [_image(tile).resize((width, height), Image.Resampling.BOX, reducing_gap=2.0) for tile in tiles]
        tiles = np.stack([np.asarray(tile).reshape(height, width, -1) for tile in small])
    lines = -(-len(tiles) // COLUMNS)
    spare = lines * COLUMNS - len(tiles)
    tiles = np.pad(tiles, ((0, spare), (0, 0), (0, 0), (0, 0)))
    tiles = np.pad(tiles, ((0, 0), (GUTTER, GUTTER), (GUTTER, GUTTER), (0, 0)), mode="edge")
    _, h, w, c = tiles.shape
    page = tiles.reshape(lines, COLUMNS, h, w, c).swapaxes(1, 2).reshape(lines * h, COLUMNS * w, c)
    return _encode(_image(page), exact=max(height, width) <= EXACT)


def stored(images: np.ndarray, row: int) -> Picture:
    """An image as the network gets it."""
    return _encode(_image(np.asarray(images[row])), exact=True)


def original(root: Path, file: str) -> Picture:
    """The file that an image came from, decoded and brought to the screen's size.

    Args:
      root: the folder of the run's data.
      file: within it.

    Raises:
      Unusable: it is no image any more, or does not lie in `root` once links are followed.
    """
    try:
        path = (root / file).resolve(strict=True)
        if not path.is_relative_to(root.resolve(strict=True)):
            raise Unusable("a link that leads out of the data's folder")
        # Without O_NONBLOCK a named pipe would be waited for; links were followed above.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, RuntimeError, ValueError) as e:
        raise Unusable(f"it cannot be opened: {getattr(e, 'strerror', None) or e}") from e
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Unusable("not a regular file")
        if status.st_size > MAX_BYTES:
            raise Unusable(f"too large: {status.st_size:,} bytes")
        with open(fd, "rb", closefd=False) as f:
            image = _image(decode(f.read(MAX_BYTES + 1), None, 3))
    finally:
        os.close(fd)
    image.thumbnail((LARGE, LARGE), reducing_gap=2.0)
    return _encode(image, exact=max(image.size) <= 512)


def _image(pixels: np.ndarray) -> Image.Image:
    """Of u8[H, W, C]."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _encode(image: Image.Image, exact: bool) -> Picture:
    out = BytesIO()
    if exact:
        image.save(out, "PNG", compress_level=1)
        return Picture("image/png", out.getvalue())
    image.save(out, "JPEG", quality=88)
    return Picture("image/jpeg", out.getvalue())
