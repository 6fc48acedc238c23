"""Small pictures of images, many in one file: a sprite sheet is read at once and costs a page next to nothing."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

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


def sheet(images: np.ndarray, rows: Sequence[int], columns: int = 0, largest: int = LARGEST) -> Sheet:
    """Thumbnails of some rows, side by side in their order; only these are read.

    Args:
      images: u8[N, H, W, C], perhaps mapped into memory. Of other than 1 or 3 channels the first are shown.
      rows: of images.
      columns: of the sheet; as many as fit into it, unless given.
      largest: side of a thumbnail, pixels.
    """
    width, height = size(images, largest)
    columns = columns or max(min(len(rows), ACROSS // width), 1)
    lines = max(-(-len(rows) // columns), 1)
    grey = images.shape[-1] < 3
    whole = Image.new("L" if grey else "RGB", (columns * width, lines * height))
    for place, row in enumerate(rows):
        pixels = np.asarray(images[row])
        picture = Image.fromarray(pixels[..., 0] if grey else pixels[..., :3])
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        whole.paste(picture, (place % columns * width, place // columns * height))
    file = io.BytesIO()
    whole.save(file, "webp", quality=QUALITY, lossless=crisp(images), method=4)
    uri = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Sheet(uri, columns, lines, width, height)
