"""What a user may give for images, as images."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxclust.data import new_images
from jaxclust.data.new_images import Images
from jaxclust.data.picture import OutOfRange, as_bytes
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import expanded


def is_path(X: Any) -> bool:
    return isinstance(X, str | os.PathLike)


def is_list(X: Any) -> bool:
    """Whether X is a list of files, be it an array or a pandas Series of them."""
    if isinstance(X, list | tuple):
        return len(X) > 0 and is_path(X[0])
    return np.ndim(X) == 1 and len(X) > 0 and is_path(np.asarray(X)[0])


def find(X: Any, shape: tuple[int, int, int], size: int, pixels: Callable[[Any], np.ndarray]) -> tuple[Images, Any]:
    """The images X as they can be read, and where those of X are among them.

    Args:
      X: a path, a list, array or Series of them, or an array of images.
      shape, size: as `predict.images.find` takes them.
      pixels: makes u8[N, H, W, C] of an array.
    """
    if is_path(X):
        return new_images.find(expanded(X), shape, size), slice(None)
    if is_list(X):
        if strange := [file for file in X if not is_path(file)]:
            raise ConfigError(f"{strange[0]!r} among the files is no path; give a path for each image")
        files = [str(os.fspath(file)) for file in X]
        found = new_images.of_files(files, shape, size)
        row = {name: row for row, name in enumerate(found.listing.names or ())}
        return found, np.array([row[file] for file in files])
    x = pixels(X)
    return new_images.of_array(lambda rows: x[rows.start : rows.stop], x, "memory", shape, size), slice(None)


def as_pixels(X: Any) -> np.ndarray:
    """An array of images as u8[N, H, W, C].

    Raises:
      ConfigError: it is not [N, H, W] or [N, H, W, C] of uint8 or of floats in [0, 1], with one or three channels.
    """
    try:
        x = np.asarray(X)
    except ValueError as e:
        raise ConfigError(f"the images are not of one shape ({e}); give files, which are brought to one") from e
    if x.ndim not in (3, 4):
        raise ConfigError(
            f"X is {x.shape}; give images as [N, H, W] or [N, H, W, C], a list of files or a folder, or set "
            f"image_shape for flat ones"
        )
    x = x[..., None] if x.ndim == 3 else x
    if not x.size:
        raise ConfigError(f"Found array with 0 sample(s) (shape={x.shape}) while a minimum of 1 is required.")
    if x.shape[-1] not in (1, 3):
        raise ConfigError(
            f"X is {x.shape}; the last axis must be 1 (grey) or 3 (red, green, blue) channels"
            + (", so move the second one there: numpy.moveaxis(X, 1, -1)" if x.shape[1] in (1, 3) else "")
        )
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise ConfigError(f"X is {x.dtype}; give uint8, or floats in [0, 1]")
    try:
        return as_bytes(x)
    except OutOfRange as e:
        raise ConfigError(f"X has {e}") from None
