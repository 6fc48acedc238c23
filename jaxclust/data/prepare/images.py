"""Images as the records hold them: arrays become PNG, encoded files stay as they are once they were looked at."""

import io

import numpy as np
from PIL import Image, ImageOps

from jaxclust.data.picture import picture
from jaxclust.data.prepare.archives import File
from jaxclust.run.errors import ConfigError


def encode(image: np.ndarray | File) -> bytes:
    """The bytes for a record: of an array u8[H, W, 1 or 3] a PNG, of a file its own.

    The PNG is packed quickly: on photographs of 96 pixels that takes half of the usual time, for 9% more bytes.
    """
    if isinstance(image, File):
        return image.read()
    buffer = io.BytesIO()
    picture(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def check(file: File, shape: tuple[int, int] | None) -> np.ndarray:
    """Decodes the file at an eighth of its size, which reads all of its bytes in less time.

    Args:
      file: a JPEG (or, as one image of ImageNet is, a PNG).
      shape: the height and width that it must have; None takes any.

    Returns:
      f64[3], the mean of its pixels, in 0..1.

    Raises:
      ConfigError: it cannot be decoded, or has another size.
    """
    try:
        with Image.open(io.BytesIO(file.read()), formats=("JPEG", "PNG")) as image:
            width, height = image.size
            image.draft(None, (1, 1))
            pixels = np.asarray(image.convert("RGB"))
    except Exception as e:  # Pillow raises several kinds for damaged files
        raise ConfigError(f"{file.place} cannot be decoded ({e}); get it again") from e
    if shape and shape != (height, width):
        raise ConfigError(f"{file.place} is {height} x {width} pixels, not {shape[0]} x {shape[1]}; get it again")
    return np.mean(pixels, (0, 1)) / 255


def thumbnail(image: np.ndarray | File, side: int) -> Image.Image:
    """The middle of an image as a square of at most `side` pixels; a small one is enlarged by a whole number."""
    whole = Image.open(io.BytesIO(image.read())) if isinstance(image, File) else picture(image)
    whole = whole.convert("RGB")
    short = min(whole.size)
    if short > side:
        return ImageOps.fit(whole, (side, side), Image.Resampling.LANCZOS)
    return ImageOps.fit(whole, (side // short * short,) * 2, Image.Resampling.NEAREST)
