"""Colour profiles: pixels as sRGB shows them, which is what networks, and pictures without a profile, are made for.

Most profiles say sRGB in one way or another. What one does is tried once on a few colours, and kept; where that is
nothing, no pixel is touched.
"""

import functools
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

SAME = 2  # levels that profiles which mean sRGB may be off, by rounding
SPACES = {"L": ("GRAY", "RGB"), "RGB": ("RGB",), "CMYK": ("CMYK",)}  # of profiles that fit a mode


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image as L or RGB in sRGB.

    Args:
      image: L, RGB or CMYK.
      profile: an ICC profile; one that is broken, or of other channels, says nothing.
    """
    convert = _conversion(bytes(profile), image.mode) if profile else None
    if convert is not None:
        return convert(image)
    return image.convert("RGB") if image.mode == "CMYK" else image


@functools.lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """What a profile asks for; None where that is nothing."""
    try:
        from PIL import ImageCms

        given = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = given.profile.xcolor_space.strip()
        if space not in SPACES[mode]:
            return None
        source = space if space != "GRAY" else "L"
        transform = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), source, "RGB")
        if mode == "L":
            levels = np.arange(256, dtype=np.uint8)[None]
            ramp = ImageCms.applyTransform(Image.fromarray(levels).convert(source), transform)
            table = np.asarray(ramp.convert("L"))
            return None if _same(levels, table) else functools.partial(_through, table.ravel().tolist())
        some = np.stack(np.meshgrid(*[np.linspace(0, 255, 9)] * 3), -1).reshape(27, 27, 3).astype(np.uint8)
        if mode == "RGB" and _same(some, np.asarray(ImageCms.applyTransform(Image.fromarray(some), transform))):
            return None
        return lambda image: ImageCms.applyTransform(image, transform)
    except Exception:  # a broken profile, in one of many ways, or a Pillow without LittleCMS
        return None


def _through(table: list[int], image: Image.Image) -> Image.Image:
    return image.point(table)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return int(np.abs(a.astype(int) - b).max()) <= SAME
