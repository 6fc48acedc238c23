"""One encoded image -> uint8 pixels, or the reason why not. This runs in worker processes and imports no JAX.

Content decides what a file is, not its name. Whatever is wrong with an image becomes a reason: nothing here stops
a run, and nothing is read past a header that promises absurdly many pixels.
"""

import functools
import os
import stat
import warnings
import zipfile
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import (  # the plugins are imported for the formats that they register
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_BYTES = 2**30  # of an encoded image; larger ones are not read
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # grey, sixteen bits
VERSION = 1  # of what comes out: a change that moves a pixel counts it up, and old cache entries are left behind


class Slice(NamedTuple):
    """A file that lies whole in another one, as the members of a tar do."""

    path: str
    start: int
    size: int


class Zipped(NamedTuple):
    """A member of a zip archive."""

    path: str
    name: str


# Where an encoded image is: a file's path, a part of an archive, its bytes; or an image as an array that is not u8.
Item = str | Slice | Zipped | bytes | np.ndarray


class Unusable(Exception):
    """The image cannot be used; the message says why, for `skipped.csv`."""


def decode(item: Item, side: int | None, channels: int) -> np.ndarray:
    """Reads one image: the first frame, upright, on white where it is transparent.

    Args:
      item: where it is.
      side: of the square that it is squeezed into whole, as the papers do (antialiased bilinear); None keeps its size.
      channels: 3, or 1 for grey.

    Returns:
      u8[H, W, channels].

    Raises:
      Unusable: it is not an image, damaged, or has too many pixels.
    """
    try:
        if isinstance(item, np.ndarray):
            return _from_array(item, side)
        with open_item(item) as f, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on odd metadata and on sizes well below its limit
            image = Image.open(f, formats=FORMATS)
            if side:
                image.draft(None, (2 * side, 2 * side))  # a JPEG is decoded no larger than is needed
            image.load()
            image = _flatten(_upright(image))
            mode = "L" if channels == 1 else "RGB"
            image = image if image.mode == mode else image.convert(mode)
            if side and image.size != (side, side):
                image = image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
            return np.asarray(image).reshape(image.height, image.width, channels)
    except Unusable:
        raise
    except UnidentifiedImageError:
        raise Unusable(f"not an image of a kind that is read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise Unusable(f"too large: more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except FileNotFoundError:
        raise Unusable("there is no such file (any more)") from None
    except PermissionError:
        raise Unusable("no permission to read it") from None
    except Exception as e:  # a decoder meets damage in many ways: OSError, SyntaxError, struct.error, MemoryError ...
        said = getattr(e, "strerror", None) or str(e) or type(e).__name__
        raise Unusable(f"damaged: {' '.join(said.split())}") from e


def write_rows(out: str, first: int, items: list[Item], shape: tuple[int, int, int], resize: bool):
    """Decodes items into consecutive rows of a file, a worker's task.

    Args:
      out: the file, u8[N, *shape].
      first: the row of the first item.
      items: the images.
      shape: (H, W, C) of a row.
      resize: whether images are brought to this size, or must have it.

    Returns:
      [(row, reason)] of the images that cannot be used; nothing is written to their rows.

    Raises:
      OSError: the file cannot be written.
    """
    unusable, size = [], shape[0] * shape[1] * shape[2]
    fd = os.open(out, os.O_WRONLY)
    try:
        for row, item in enumerate(items, first):
            try:
                image = decode(item, shape[0] if resize else None, shape[2])
                if image.shape != shape:
                    raise Unusable(f"{image.shape} (height, width, channels), but the others are {shape}")
            except Unusable as e:
                unusable.append((row, str(e)))
                continue
            pixels, at = memoryview(np.ascontiguousarray(image)).cast("B"), row * size
            while pixels:  # a write may be a partial one, above all on a disk that is nearly full
                written = os.pwrite(fd, pixels, at)
                pixels, at = pixels[written:], at + written
    finally:
        os.close(fd)
    return unusable


def open_item(item: str | Slice | Zipped | bytes) -> BinaryIO:
    """The encoded image as a file; one that stands alone has not been read yet."""
    if isinstance(item, bytes):
        return BytesIO(_checked(item, len(item)))
    if isinstance(item, Zipped):
        info = _archive(item.path).getinfo(item.name)
        return BytesIO(_archive(item.path).read(_checked(info, info.file_size)))
    if isinstance(item, Slice):
        with open(item.path, "rb") as f:
            f.seek(item.start)
            return BytesIO(f.read(_checked(item.size, item.size)))
    status = os.stat(item)
    if stat.S_ISDIR(status.st_mode):
        raise Unusable("a folder that cannot be read")
    if not stat.S_ISREG(status.st_mode):  # to open a named pipe would be to wait for its writer
        raise Unusable("not a regular file")
    return open(_checked(item, status.st_size), "rb")


def _checked(value: Any, size: int) -> Any:
    """`value`, where an encoded image of `size` bytes is one to read."""
    if not size:
        raise Unusable("empty")
    if size > MAX_BYTES:
        raise Unusable(f"too large: {size:,} bytes, more than {MAX_BYTES:,}")
    return value


@functools.lru_cache(maxsize=2)
def _archive(path: str) -> zipfile.ZipFile:
    """An archive that stays open in its worker, since its list of members takes long to read."""
    return zipfile.ZipFile(path)


def _flatten(image: Image.Image) -> Image.Image:
    """Eight bits a channel, without transparency."""
    if image.mode in DEEP:
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise Unusable(f"grey values from {grey.min()} to {grey.max()}; sixteen bits hold 0 to 65535")
        return Image.fromarray((grey / 257).round().astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(_from_array(np.asarray(image), None))
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; unreadable EXIF says nothing, and the picture is as good without."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)


def _from_array(values: np.ndarray, side: int | None) -> np.ndarray:
    """An image of u8 or of floats in [0, 1], [H, W, C], as u8 at the given size."""
    if values.dtype != np.uint8:
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise Unusable(f"values from {values.min()} to {values.max()}; floats must lie in [0, 1]")
        values = (values * 255).round().astype(np.uint8)
    if side and values.shape[:2] != (side, side):
        image = Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values)
        values = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)).reshape(side, side, -1)
    return values
