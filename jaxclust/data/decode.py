"""One encoded image -> uint8 pixels, or the reason why not. This runs in worker processes and imports no JAX.

Content decides what a file is, not its name. Whatever is wrong with an image becomes a reason: nothing here stops
a run, and nothing is decoded that would take absurdly much memory.

encodings   which are read, and what decoding them takes
mend        files that are not quite whole, of pictures that are
deep        more than eight bits
flatten     eight bits, nothing transparent, and small
colour      as sRGB shows it
"""

import contextlib
import errno
import functools
import os
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from jaxclust.data import deep, mend
from jaxclust.data.colour import to_srgb
from jaxclust.data.encodings import TooLarge, Unusable, opened, weigh
from jaxclust.data.flatten import flatten, single_colour
from jaxclust.data.picture import OutOfRange, as_bytes

MAX_BYTES = 2**30  # of an encoded image; larger ones are not read
ENCRYPTED = 0x41  # of a zip member's flags: ordinarily, and strongly
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
FRAMES, PIXELS = 100, 2**27  # of an animation, after which all of its frames are taken for empty
AGAIN = "; tried again next time"  # what ends the reason where the fault may not be the image's
OF_THE_FILE = (errno.EINVAL, errno.EOVERFLOW, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
VERSION = 2  # of what comes out: a change that moves a pixel counts it up, and old cache entries are left behind


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


def decode(item: Item, side: int | None, channels: int, most: int | None = None) -> np.ndarray:
    """Reads one image: upright, in sRGB, on white where it is transparent; of an animation the first frame that shows.

    Args:
      item: where it is.
      side: of the square that it is squeezed into whole, as the papers do (antialiased bilinear); None keeps its size.
      channels: 3, or 1 for grey.
      most: pixels of the longer side of one that keeps its shape; larger ones are made smaller.

    Returns:
      u8[H, W, channels].

    Raises:
      Unusable: it is not an image, damaged, or takes too much memory.
    """
    try:
        if isinstance(item, np.ndarray):
            return _from_array(item, side)
        with open_item(item) as f, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on odd metadata and on sizes well below its limit
            read = functools.partial(_from_file, side=side, channels=channels, most=most)
            try:
                return read(f)
            except Exception as e:
                if (whole := _mended(f, e, read)) is None:
                    raise
                return whole
    except Unusable:
        raise
    except Image.DecompressionBombError:
        raise Unusable(f"too large: more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; save it smaller") from None
    except FileNotFoundError:
        raise Unusable("there is no such file (any more)") from None
    except PermissionError:
        raise Unusable(f"no permission to read it{AGAIN}") from None
    except MemoryError:
        raise Unusable(f"not enough memory for it{AGAIN}") from None
    except OSError as e:
        if e.errno is None or e.errno in OF_THE_FILE:  # Pillow's have no number
            raise _damaged(e) from e
        raise Unusable(f"cannot be read: {e.strerror}{AGAIN}") from e
    except Exception as e:  # a decoder meets damage in many ways: SyntaxError, struct.error, zlib.error ...
        raise _damaged(e) from e


def _damaged(e: Exception) -> Unusable:
    said = getattr(e, "strerror", None) or str(e) or type(e).__name__
    return Unusable(f"damaged: {' '.join(said.split())}; get it again, or take it out")


def _from_file(
    f: BinaryIO, profile: bytes | None = None, *, side: int | None, channels: int, most: int | None
) -> np.ndarray:
    """As `decode`; a profile that the file itself does not have may be given."""
    image = opened(f)
    size = _size(image, side, most)
    if size and image.format in ("JPEG", "MPO"):
        image.draft(None, (2 * size[0], 2 * size[1]))  # decoded no larger than is needed
    weigh(image, copies=1 if size else 3)  # one that is kept whole becomes RGB, and an array
    deep.planes(image)
    wide, plain, box = deep.colours(image), None, None
    for frame in _frames(image):
        frame.load()
        if wide:
            deep.brighten(frame, lambda: opened(f))
        # What is left to `resize` is three times as large as its result: the eye sees no difference.
        factor = tuple(max(1, int(n / to / 3)) for n, to in zip(frame.size, size)) if size else (1, 1)
        shown, whole = flatten(frame, factor), (0, 0, *(n / by for n, by in zip(frame.size, factor)))
        empty = image.format in ANIMATED and single_colour(shown)
        if plain is None or not empty:
            plain, box = shown, whole
        if not empty:
            break
    plain = to_srgb(plain, profile or image.info.get("icc_profile"))
    mode = "L" if channels == 1 else "RGB"
    plain = plain if plain.mode == mode else plain.convert(mode)
    if size and plain.size != size:
        plain = plain.resize(size, Image.Resampling.BILINEAR, box)
    plain = _upright(image, plain)
    return np.asarray(plain).reshape(plain.height, plain.width, channels)


def _size(image: ImageFile, side: int | None, most: int | None) -> tuple[int, int] | None:
    """To which the image is brought; None keeps its own."""
    if side:
        return side, side
    if not most or max(image.size) <= most:
        return None
    width, height = (max(1, round(n * most / max(image.size))) for n in image.size)
    return width, height


def _frames(image: ImageFile) -> Iterator[ImageFile]:
    """The image; and where it is an animation, each of its next frames, so long as they are asked for."""
    yield image
    if image.format not in ANIMATED or not image.is_animated:
        return
    for i in range(1, 1 + min(FRAMES, PIXELS // (image.width * image.height))):
        weigh(image, copies=3)  # what is shown, what was before it, and what is changed
        try:
            image.seek(i)
        except EOFError:
            return
        yield image


def _mended(f: BinaryIO, error: Exception, read: Callable[..., np.ndarray]) -> np.ndarray | None:
    """The picture of a file that was refused, where all of it is there; else None."""
    if isinstance(error, TooLarge | Image.DecompressionBombError | MemoryError):
        return None
    f.seek(0)
    begin = f.read(len(mend.PNG))
    if not begin.startswith((mend.PNG, mend.JPEG)):
        return None
    content = begin + f.read()
    if begin == mend.PNG:
        slim = mend.slim(content)
        return slim and read(*slim)
    whole = mend.completed(content) if "truncated" in str(error) else None
    return whole and read(whole)


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
        with _silent():  # once for all: for each, it would take a fifth of the time of a small image
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


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Codecs in C write about damage to the error stream, past Python; what matters of it becomes a reason."""
    try:
        stream, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # no error stream, or no descriptor is left
        yield
        return
    os.dup2(nothing, 2)
    os.close(nothing)
    try:
        yield
    finally:
        os.dup2(stream, 2)
        os.close(stream)


def open_item(item: str | Slice | Zipped | bytes) -> BinaryIO:
    """The encoded image as a file; one that stands alone has not been read yet."""
    if isinstance(item, bytes):
        return BytesIO(_checked(item, len(item)))
    if isinstance(item, Zipped):
        status = os.stat(item.path)
        archive = _archive(item.path, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        info = archive.getinfo(item.name)
        if info.flag_bits & ENCRYPTED:
            raise Unusable("encrypted; unpack the archive with its password, and give the folder")
        try:
            return BytesIO(archive.read(_checked(info, info.file_size)))
        except NotImplementedError as e:
            raise Unusable(f"packed in a way that is not read ({e}); unpack the archive, and give the folder") from None
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
def _archive(path: str, state: tuple[int, ...]) -> zipfile.ZipFile:
    """An archive in this state, which stays open in its worker, since its list of members takes long to read."""
    return zipfile.ZipFile(path)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, plain: Image.Image) -> Image.Image:
    """Turned as EXIF says of the image; unreadable EXIF says nothing, and the picture is as good without."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:
        return plain
    return plain if turn is None else plain.transpose(turn)


def _from_array(values: np.ndarray, side: int | None) -> np.ndarray:
    """An image of u8 or of floats in [0, 1], [H, W, C], as u8 at the given size."""
    if values.dtype != np.uint8:
        try:
            values = as_bytes(values)
        except OutOfRange as e:
            raise Unusable(str(e)) from None
    if side and values.shape[:2] != (side, side):
        image = Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values)
        values = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)).reshape(side, side, -1)
    return values
