"""Which encodings are read: told by a file's first bytes, opened without its pixels, and weighed before these come.

Pillow's own limit counts the pixels that a header promises. What a worker needs memory for is what is really decoded:
a JPEG at an eighth of its size takes next to nothing, and four planes of an animated WebP take four times one.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from PIL import Image
from PIL.ImageFile import ImageFile

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Jpeg2K", "Mpo", "Png", "Tiff", "WebP")
MAX_DECODED = 2**30  # bytes that decoding an image takes
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # grey, more than eight bits
# Bytes a pixel in Pillow's memory, four where nothing else is said; and of codecs that keep copies, with these.
IN_MODE = {"1": 1, "L": 1, "P": 1, **dict.fromkeys(DEEP[:-1], 2)}
IN_CODEC = {"WEBP": 16, "AVIF": 12, "JPEG2000": 24, "HEIF": 12}
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")  # brands

for plugin in PLUGINS:  # each registers its format; AVIF's came with Pillow 11.3
    try:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    except ImportError:
        continue


class Unusable(Exception):
    """The image cannot be used; the message says why and what to do, for `skipped.csv`."""


class TooLarge(Unusable):
    """It would take too much memory."""


def opened(f: BinaryIO) -> ImageFile:
    """The image that a file begins with, of which no pixel has been decoded.

    Raises:
      Unusable: it begins like nothing that is read, or its header is of a kind that is not.
    """
    f.seek(0)
    prefix = f.read(16)
    refused = None
    for kind, factory, accept in _readers():
        said = accept(prefix)
        if not said:
            continue
        if isinstance(said, str):  # Pillow was built without it
            refused = f"{kind}, which this Pillow does not read; convert it to JPEG or PNG"
            continue
        f.seek(0)
        try:
            return factory(f, "")
        except (SyntaxError, ValueError) as e:
            refused = f"{kind} that cannot be read ({' '.join(str(e).split())}); save it anew, or as PNG with 8 bits"
    raise Unusable(refused or f"not an image of a kind that is read ({', '.join(FORMATS)}); convert it to one of these")


def _readers() -> Iterator[tuple[str, Callable, Callable]]:
    """(format, how it is opened, whether a file begins like it) of each."""
    for kind in FORMATS:
        if kind in Image.OPEN:
            factory, accept = Image.OPEN[kind]
            yield kind, factory, accept or bool
    yield "HEIC", _heif, lambda prefix: prefix[4:8] == b"ftyp" and prefix[8:12] in HEIC


def _heif(f: BinaryIO, name: str) -> ImageFile:
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError:
        raise Unusable("HEIC, which pillow-heif reads: install jaxclust[heic], or convert it to JPEG") from None
    return HeifImageFile(f, name)


def weigh(image: ImageFile, copies: int) -> None:
    """Sees to it that decoding an image takes no more memory than `MAX_DECODED`.

    Args:
      image: as it is going to be decoded.
      copies: of the whole of it that there are at a time.

    Raises:
      TooLarge: it takes more.
    """
    each = IN_CODEC.get(image.format or "", IN_MODE.get(image.mode, 4))
    need = image.width * image.height * (each + 4 * (copies - 1))
    if image.info.get("progressive"):  # libjpeg keeps all coefficients, of the whole size
        need += _coefficients(image)
    if need > MAX_DECODED:
        raise TooLarge(
            f"too large: {image.width:,} x {image.height:,} pixels take {need / 1e6:,.0f} MB to decode, more than "
            f"{MAX_DECODED / 1e6:,.0f}; save it smaller, or as a JPEG that is not progressive"
        )


def _coefficients(image: ImageFile) -> int:
    """Bytes of a JPEG's coefficients, two each."""
    layers = [(h, v) for _, h, v, _ in image.layer]
    across, down = max(h for h, _ in layers), max(v for _, v in layers)
    (width, height), scale = image.size, (image.decoderconfig or (1,))[0]  # which `draft` has chosen
    return int(2 * width * height * scale**2 * sum(h * v for h, v in layers) / (across * down))
