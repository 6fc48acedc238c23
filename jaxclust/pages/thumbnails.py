"""Small pictures of images, many in one file: a sprite sheet is read at once and costs a page next to nothing."""

import base64
import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from loky import cpu_count
from PIL import Image

from jaxclust.data.encodings import Unusable
from jaxclust.data.originals import Originals
from jaxclust.data.picture import picture

LARGEST = 96  # pixels a side of a thumbnail
# Up to this side images are few pixels that all count: kept without loss, and enlarged as squares.
CRISP = 28
BLOCK = 16  # WebP's lossy blocks: a cell of whole blocks has no trace of its neighbours
QUALITY = 80
ACROSS = 4096  # pixels across a sheet; WebP ends at 16,383


class Sheet(NamedTuple):
    uri: str  # data:image/webp
    columns: int
    lines: int
    width: int  # of a thumbnail, pixels
    height: int


def crisp(images: np.ndarray) -> bool:
    """Whether images u8[N, H, W, C] are so small that their pixels should be seen."""
    return max(images.shape[1:3]) <= CRISP


def size(images: np.ndarray, largest: int = LARGEST) -> tuple[int, int]:
    """Width and height in pixels of a thumbnail of images u8[N, H, W, C]."""
    height, width = images.shape[1:3]
    if crisp(images):
        return width, height
    scale = min(1.0, largest / max(width, height))
    # A picture of some other side is shown a little smaller than it could be, so as to fill whole blocks.
    return tuple(max(round(side * scale) // BLOCK, 1) * BLOCK for side in (width, height))


def small(images: np.ndarray, rows: Sequence[int], width: int, height: int) -> list[Image.Image]:
    """Some rows of images u8[N, H, W, C], each brought to a size in pixels; only these are read."""
    # Hamming's filter is as sharp as the cubic one where images become smaller, for half of Lanczos' time.
    whole = (picture(np.asarray(images[row])) for row in rows)
    return [
        one if one.size == (width, height) else one.resize((width, height), Image.Resampling.HAMMING) for one in whole
    ]


def photo(originals: Originals, images: np.ndarray, row: int, side: int) -> Image.Image:
    """An image's original in its own shape, as large as it fits into a square, the rest of which is transparent.

    Args:
      originals: of the images.
      images: u8[N, H, W, C]; from these is shown what has no original any more.
      row: of the image.
      side: of the square, pixels.
    """
    try:
        whole = picture(originals.decode(row, side))
    except Unusable:
        whole = picture(np.asarray(images[row]))
    scale = side / max(whole.size)
    width, height = (max(round(n * scale), 1) for n in whole.size)
    how = Image.Resampling.NEAREST if max(whole.size) <= CRISP else Image.Resampling.BICUBIC
    tile = Image.new("RGBA", (side, side))
    tile.paste(whole.resize((width, height), how).convert("RGBA"), ((side - width) // 2, (side - height) // 2))
    return tile


def photos(originals: Originals, images: np.ndarray, rows: Sequence[int], side: int) -> list[Image.Image]:
    """`photo` of each of some rows; decoding lets go of Python's lock."""
    with warnings.catch_warnings(), ThreadPoolExecutor(cpu_count()) as pool:  # decoders set filters, and set them back
        return [*pool.map(lambda row: photo(originals, images, row, side), rows)]


def mosaic(tiles: Sequence[Image.Image], columns: int, gutter: int = 0) -> Image.Image:
    """Pictures of one size side by side, line by line.

    Args:
      tiles: the pictures, at least one.
      columns: in a line.
      gutter: pixels of a picture's own edge that are repeated around it, so that enlarging mixes in no neighbour.
    """
    pixels = np.stack([np.atleast_3d(np.asarray(tile)) for tile in tiles])
    lines = -(-len(tiles) // columns)
    pixels = np.pad(pixels, ((0, lines * columns - len(tiles)), (0, 0), (0, 0), (0, 0)))
    pixels = np.pad(pixels, ((0, 0), (gutter, gutter), (gutter, gutter), (0, 0)), mode="edge")
    _, h, w, c = pixels.shape
    whole = pixels.reshape(lines, columns, h, w, c).swapaxes(1, 2).reshape(lines * h, columns * w, c)
    return Image.fromarray(whole.squeeze(-1) if c == 1 else whole)


def sheet(
    images: np.ndarray,
    rows: Sequence[int],
    columns: int = 0,
    largest: int = LARGEST,
    originals: Originals | None = None,
) -> Sheet:
    """Thumbnails of some rows, side by side in their order; only these are read.

    Args:
      images: u8[N, H, W, C], perhaps mapped into memory. Of other than 1 or 3 channels the first are shown.
      rows: of images, at least one.
      columns: of the sheet; as many as fit into it, unless given.
      largest: side of a thumbnail, pixels.
      originals: of the images; where there are any, thumbnails are squares into which these fit.
    """
    width, height = size(images, largest) if originals is None else (largest, largest)
    columns = columns or max(min(len(rows), ACROSS // width), 1)
    tiles = small(images, rows, width, height) if originals is None else photos(originals, images, rows, largest)
    whole, file = mosaic(tiles, columns), io.BytesIO()
    whole.save(file, "webp", quality=QUALITY, lossless=originals is None and crisp(images), method=4)
    uri = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Sheet(uri, columns, whole.height // height, width, height)
