"""Rows of a run as pictures for a browser. Whatever goes out was encoded here: no file is passed on as it is."""

from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxclust.data.originals import Originals
from jaxclust.data.picture import picture
from jaxclust.pages import thumbnails

COLUMNS = 8
MOST = 64  # thumbnails on a sheet
AT_ONCE = 16  # of originals on one, so that the first are there before all are decoded
KEPT = 512  # thumbnails in memory, at most
SIDE, PHOTO = 128, 192  # of a thumbnail, pixels, at most: of what the network gets; of an original, which fits into it
EXACT = 64  # up to this side a picture is small enough to be sent without loss
GUTTER = 1  # pixels around each thumbnail
LARGE = 2048  # side of an original on the screen, pixels, at most


class Picture(NamedTuple):
    kind: str  # the media type
    content: bytes


def thumbnail_size(shape: Sequence[int], originals: Originals | None = None) -> tuple[int, int]:
    """Height and width of the thumbnail of an image of shape (H, W, C)."""
    if originals is not None:
        return PHOTO, PHOTO
    height, width, _ = shape
    scale = min(1, SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def thumbnail(images: np.ndarray, originals: Originals | None, row: int) -> Image.Image:
    """The thumbnail of one of images u8[N, H, W, C]: of its original, where there is one."""
    if originals is not None:
        return thumbnails.photo(originals, images, row, PHOTO)
    height, width = thumbnail_size(images.shape[1:])
    return thumbnails.small(images, [row], width, height)[0]


def sheet(tiles: Sequence[Image.Image]) -> Picture:
    """Thumbnails side by side, `COLUMNS` in a line, each within its gutter."""
    return _encode(thumbnails.mosaic(tiles, COLUMNS, GUTTER), exact=max(tiles[0].size) <= EXACT)


def stored(images: np.ndarray, row: int) -> Picture:
    """An image as the network gets it."""
    return _encode(picture(np.asarray(images[row])), exact=True)


def original(originals: Originals, row: int) -> Picture:
    """The file that an image came from, decoded and brought to the screen's size.

    Raises:
      Unusable: it is no image any more, or does not lie in the data's folder once links are followed.
    """
    image = picture(originals.decode(row, LARGE))
    return _encode(image, exact=max(image.size) <= 512)


def _encode(image: Image.Image, exact: bool) -> Picture:
    out = BytesIO()
    if exact:
        image.save(out, "PNG", compress_level=1)
        return Picture("image/png", out.getvalue())
    if image.mode == "RGBA":  # what is beside a picture is the page's to colour
        image.save(out, "WEBP", quality=80, method=0)
        return Picture("image/webp", out.getvalue())
    image.save(out, "JPEG", quality=88)
    return Picture("image/jpeg", out.getvalue())
