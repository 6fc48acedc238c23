"""Images that are an array already: a .npy file, or an .npz that may hold their labels too."""

import hashlib
import json
from pathlib import Path

import numpy as np

from jaxclust.data.cache import Listing
from jaxclust.data.content import glance
from jaxclust.data.decode import VERSION
from jaxclust.run.errors import ConfigError, hint

SUFFIXES = (".npy", ".npz")


def read(path: Path, labels: str) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """The images [N, H, W, C], memory-mapped where the file allows it, their labels i32[N], and what these are called.

    Args:
      path: a .npy or .npz file with one array of three or four axes, [N, H, W] or [N, H, W, C].
      labels: the name of the array that holds the labels, [N] or [N, 1], or "" for none. Whole numbers, as floats, too,
        stay as they are and have no names, where 32 bits hold them; larger ones, words and truth values are numbered
        in their order.

    Raises:
      ConfigError: the file is missing or damaged, or its arrays are not what they should be.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ConfigError(f"{path} is no regular file; give a .npy or .npz file")
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = dict(content) if isinstance(content, np.lib.npyio.NpzFile) else {"": content}
    except Exception as e:  # a damaged header makes NumPy raise whatever Python's own parser does
        raise ConfigError(f"{path} cannot be read as an array of numbers: {e}") from e
    candidates = {name: a for name, a in arrays.items() if a.ndim in (3, 4)}
    if len(candidates) != 1:
        held = ", ".join(f"{name or 'array'} {a.shape}" for name, a in arrays.items())
        raise ConfigError(
            f"{path} must hold one array of images, [N, H, W] or [N, H, W, C]; it holds {held or 'nothing'}"
        )
    (images,) = candidates.values()
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[-1] not in (1, 3):
        raise ConfigError(
            f"the images in {path} are {images.shape}; the last axis must be 1 (grey) or 3 (red, green, blue) channels"
        )
    if not images.size:
        raise ConfigError(f"the images in {path} are {images.shape}, which is not a single pixel; give another file")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise ConfigError(f"the images in {path} are {images.dtype}; give uint8, or floats in [0, 1]")
    if not labels:
        return images, None, ()
    if labels not in arrays:
        raise ConfigError(
            f"data.labels is {labels!r}, but {path} has no such array{hint(labels, filter(None, arrays))}"
        )
    y = arrays[labels]
    if y.shape not in ((len(images),), (len(images), 1)) or not (y.dtype.kind in "iubU" or _whole(y)):
        said = f"the labels {labels!r} in {path} are {y.dtype} {y.shape}"
        raise ConfigError(f"{said}; give {len(images)} whole numbers or words")
    return images, *_numbered(y.ravel())


def _whole(y: np.ndarray) -> bool:
    return y.dtype.kind == "f" and bool((np.abs(y) < 2**53).all()) and bool((y == np.round(y)).all())


def _numbered(y: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any kind as i32[N], and the names of those that had to be numbered."""
    of_32_bits = np.iinfo(np.int32)
    if y.dtype.kind in "iuf" and of_32_bits.min <= y.min() and y.max() <= of_32_bits.max:
        return y.astype(np.int32), ()
    classes, number = np.unique(y, return_inverse=True)
    return number.astype(np.int32), tuple(map(str, classes.astype(np.int64) if y.dtype.kind == "f" else classes))


def listing(path: Path, images: np.ndarray, labels: np.ndarray | None, side: int | None) -> Listing:
    """Those that must be converted: floats, or images to be stored at another size.

    Args:
      path: where they come from.
      images: [N, H, W, C].
      labels: i32[N], or None.
      side: of the squares they are brought to, pixels; None keeps their size.
    """
    status = path.stat()
    content = json.dumps(
        [VERSION, path.name, status.st_size, status.st_mtime_ns, glance([path]), side, labels is not None]
    )
    shape = (side, side, images.shape[-1]) if side else images.shape[1:]
    return Listing(
        key=f"array-{hashlib.sha256(content.encode()).hexdigest()[:16]}",
        shape=shape,
        resize=side is not None,
        names=None,
        count=len(images),
        read=lambda rows: (
            list(np.array(images[rows.start : rows.stop])),
            None if labels is None else labels[rows.start : rows.stop].tolist(),
        ),
        aside=[],
    )
