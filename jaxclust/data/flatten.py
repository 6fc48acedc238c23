"""Decoded images as plain ones: eight bits a channel, nothing transparent, and no larger than they are needed.

Large images are made so in strips, so that beside the image itself there is never more than one strip.
"""

from collections.abc import Callable

from PIL import Image

from jaxclust.data import deep
from jaxclust.data.encodings import DEEP
from jaxclust.data.picture import strips

HIDDEN = 2  # the most of 255 at which the most opaque pixel is still not to be seen
Step = Callable[[Image.Image], Image.Image]


def flatten(image: Image.Image, factor: tuple[int, int]) -> Image.Image:
    """An image as L, RGB or CMYK.

    Args:
      image: a decoded one.
      factor: by which its width and height become smaller, as means of so many pixels.

    Raises:
      Unusable: its values are none of an image.
    """
    if image.mode in DEEP:
        return _reduced(image, factor, deep.grey(image))
    if image.mode == "F":
        return _reduced(image, factor, deep.floats(image))
    if not image.has_transparency_data:
        return _reduced(image, factor, _opaque)
    if max(_rgba(part).getchannel("A").getextrema()[1] for part in strips(image, 1)) <= HIDDEN:
        # Nobody makes a picture that cannot be seen: whoever wrote it left a channel of zeros (or of ones) unused.
        return _reduced(image, factor, lambda strip: _rgba(strip).convert("RGB"))
    white = _reduced(image, factor, lambda strip: _on(strip, "white"))
    if not single_colour(white):
        return white
    black = _reduced(image, factor, lambda strip: _on(strip, "black"))  # shows a white drawing on nothing
    return white if single_colour(black) else black


def single_colour(image: Image.Image) -> bool:
    bands = image.getextrema()
    return all(low == high for low, high in (bands if isinstance(bands[0], tuple) else (bands,)))


def _reduced(image: Image.Image, factor: tuple[int, int], step: Step) -> Image.Image:
    if factor == (1, 1):
        return step(image)
    size, out, top = tuple(-(-n // by) for n, by in zip(image.size, factor)), None, 0
    for strip in strips(image, factor[1]):
        part = step(strip).reduce(factor)
        if part.size == size:
            return part
        out = out or Image.new(part.mode, size)
        out.paste(part, (0, top))
        top += part.height
    return out


def _opaque(strip: Image.Image) -> Image.Image:
    if strip.mode in ("L", "RGB", "CMYK"):
        return strip
    return strip.convert("L" if strip.mode == "1" else "RGB")


def _on(strip: Image.Image, ground: str) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", strip.size, ground), _rgba(strip)).convert("RGB")


def _rgba(strip: Image.Image) -> Image.Image:
    return strip if strip.mode == "RGBA" else strip.convert("RGBA")
