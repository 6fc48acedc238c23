"""More than eight bits a channel, brought to eight: from as many as are used, as cameras write 10, 12 or 14 into 16.

Pillow holds grey of 16 and 32 bits as it is, and of colours of 16 bits only the upper eight. Where all of these are
dark, the lower ones are read as the upper ones of the other byte order.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from jaxclust.data.encodings import MAX_DECODED, Unusable
from jaxclust.data.picture import OutOfRange, as_bytes, strips

BITS = (8, 10, 12, 14, 16, 24, 31, 32)  # that values may be of
DARK = 64  # fourteen bits end below it, of the upper eight of sixteen
BITS_PER_SAMPLE, PHOTOMETRIC, MAX_SAMPLE, PLANES, SAMPLE_FORMAT = 258, 262, 281, 284, 339  # tags of TIFF
LITTLE = sys.byteorder == "little"
OTHER = {"L": "B", "B": "L", "N": "B" if LITTLE else "L"}  # orders of bytes
Step = Callable[[Image.Image], Image.Image]


def grey(image: Image.Image) -> Step:
    """What makes grey of eight bits of a strip of this image, grey of 16 or 32."""
    tags = getattr(image, "tag_v2", {})
    bits, kind = _first(tags.get(BITS_PER_SAMPLE, 16)), _first(tags.get(SAMPLE_FORMAT, 1))
    unsigned = bits == 32 and kind == 1  # Pillow takes them for signed ones

    def values(strip: Image.Image) -> np.ndarray:
        return np.asarray(strip).view(np.uint32) if unsigned else np.asarray(strip)

    ends = [(int(v.min()), int(v.max())) for v in map(values, strips(image, 1))]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if low < 0:
        raise Unusable(f"grey values from {low} to {high}; save it with values from 0 up, in 8 or 16 bits")
    said = [_first(tags.get(MAX_SAMPLE)), 2**bits - 1 if 8 < bits < 16 else None]
    top = next((n for n in said if isinstance(n, int) and high <= n < 2**16 - 1), None) or _top(high)
    turn = white_is_zero(image)

    def step(strip: Image.Image) -> Image.Image:
        eight = np.rint(values(strip) * (255 / top)).astype(np.uint8)
        return Image.fromarray(255 - eight if turn else eight)

    return step


def floats(image: Image.Image) -> Step:
    """What makes grey of eight bits of a strip of this image, of floats in [0, 1]."""
    turn = white_is_zero(image)

    def step(strip: Image.Image) -> Image.Image:
        try:
            eight = as_bytes(np.asarray(strip))
        except OutOfRange as e:
            raise Unusable(f"{e}; save it so, or with 8 bits") from None
        return Image.fromarray(255 - eight if turn else eight)

    return step


def white_is_zero(image: Image.Image) -> bool:
    """Of deep values, which Pillow gives as they are; those of eight bits it has turned round."""
    return getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0


def planes(image: ImageFile) -> None:
    """Tells Pillow that the planes of a TIFF, one a colour, are of sixteen bits, which it takes for eight."""
    tags = getattr(image, "tag_v2", {})
    if _planar(image) and _first(tags.get(BITS_PER_SAMPLE, 8)) == 16:
        order = ";16L" if tags.prefix == b"II" else ";16B"
        image.tile = [
            _raw(t, _rawmode(t) + order) if t.codec_name == "raw" and len(_rawmode(t)) == 1 else t for t in image.tile
        ]


def _planar(image: ImageFile) -> bool:
    return getattr(image, "tag_v2", {}).get(PLANES) == 2


def colours(image: ImageFile) -> bool:
    """Whether an image that is not decoded yet has colours of sixteen bits."""
    return image.mode in ("RGB", "RGBA") and any(";16" in _rawmode(t) for t in image.tile)


def brighten(image: ImageFile, again: Callable[[], ImageFile]) -> None:
    """Brings decoded colours of fewer than sixteen bits in sixteen to eight, in place.

    Args:
      image: with the upper eight bits of each channel.
      again: opens it again.

    Raises:
      Unusable: it is dark, and the lower bits cannot be read.
    """
    if max(high for _, high in image.getextrema()[:3]) >= DARK:
        return
    low = again()
    planes(low)
    raws = [_rawmode(t) for t in low.tile]
    # Pillow has no such order for grey with alpha, and does not look at it where libtiff reads planes.
    fixed = any(raw.startswith("LA") for raw in raws) or (_planar(low) and low.tile[0].codec_name == "libtiff")
    if fixed or 8 * image.width * image.height > MAX_DECODED:
        raise Unusable("colours of 16 bits, of which few are used; save it with 8 bits a channel")
    low.tile = [_raw(t, raw[:-1] + OTHER[raw[-1]]) for t, raw in zip(low.tile, raws)]
    low.load()
    pairs = list(zip(strips(image, 1), strips(low, 1)))
    most = np.max([_joined(*pair).max((0, 1)) for pair in pairs], 0).tolist()  # of each channel
    top, row = [_top(max(most[:3]))] * 3 + [_top(n) for n in most[3:]], 0
    for pair in pairs:
        eight = np.rint(_joined(*pair) * (255 / np.array(top))).astype(np.uint8)
        image.paste(Image.fromarray(eight), (0, row))
        row += len(eight)


def _joined(upper: Image.Image, lower: Image.Image) -> np.ndarray:
    return np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)


def _top(high: int) -> int:
    """The largest value of an image whose largest is `high`, as far as one can know."""
    return next(2**bits - 1 for bits in BITS if high < 2**bits)


def _first(value: Any) -> Any:
    """Of a TIFF's tag, which has a value a channel, or one."""
    return value[0] if isinstance(value, tuple) and value else value


def _rawmode(tile: Any) -> str:
    return tile.args if isinstance(tile.args, str) else str(tile.args[0]) if tile.args else ""


def _raw(tile: Any, rawmode: str) -> Any:
    return tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:]))
