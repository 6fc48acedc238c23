"""What a user may give for images, as images."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxclust.config import ConfigError
from jaxclust.predict import images
from jaxclust.predict.images import Images


def is_path(X: Any) -> bool:
    return isinstance(X, str | os.PathLike)


def is_list(X: Any) -> bool:
    """Whether X is a list of files."""
    return isinstance(X, list | tuple) and len(X) > 0 and is_path(X[0])


def find(X: Any, shape: tuple[int, int, int], size: int, pixels: Callable[[Any], np.ndarray]) -> tuple[Images, Any]:
    """The images X as they can be read, and where those of X are among them.

    Args:
      X: a path, a list of them, or an array.
      shape, size: as `predict.images.find` takes them.
      pixels: makes u8[N, H, W, C] of an array.
    """
    if is_path(X):
        return images.find(Path(X).expanduser(), shape, size), slice(None)
    if is_list(X):
        files = [os.fspath(file) for file in X]
        found = images.of_files(files, shape, size)
        row = {name: row for row, name in enumerate(found.listing.names)}
        return found, np.array([row[file] for file in files])
    x = pixels(X)
    return images.of_array(lambda rows: x[rows.start : rows.stop], x, "memory", shape, size), slice(None)


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
    if not np.isfinite(x).all():
        raise ConfigError("X has NaN or infinity among its values; floats must lie in [0, 1]")
    if x.min() < 0 or x.max() > 1:
        raise ConfigError(f"X has values from {x.min():g} to {x.max():g}; floats must lie in [0, 1]")
    return np.round(x * 255).astype(np.uint8)
