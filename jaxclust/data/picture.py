"""Pixels as Pillow's images, whole and in strips; and as bytes, where they are floats."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

STRIP = 2**21  # pixels


class OutOfRange(ValueError):
    """Floats are none of an image; the message says why."""


def picture(pixels: np.ndarray) -> Image.Image:
    """Pixels u8[H, W, C] as an image: the first channel in grey, or the first three where there are so many."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]))


def strips(image: Image.Image, multiple: int) -> Iterator[Image.Image]:
    """Parts of an image from the top, each a multiple of so many rows high, but for the last."""
    rows = max(1, STRIP // (image.width * multiple)) * multiple
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] as u8. Beyond that, what rounds to 0 or 255 is these: resizing makes 1.0000002 of 1.

    Raises:
      OutOfRange: some lie elsewhere, or are no numbers.
    """
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise OutOfRange("NaN or infinity among its values; floats must lie in [0, 1]")
    if low * 255 < -0.5 or high * 255 > 255.5:
        raise OutOfRange(f"values from {low:g} to {high:g}; floats must lie in [0, 1]")
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
