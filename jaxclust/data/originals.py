"""The files that a run's images come from: decoded one by one, when they are to be shown, and only then."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxclust.data import Settings, Source
from jaxclust.data.cache import Listing
from jaxclust.data.decode import MAX_BYTES, Item, Unusable, decode
from jaxclust.run.files import expanded


class Originals:
    """Of images by row; nothing is read before one is asked for."""

    def __init__(self, root: Path, names: Sequence[str], listing: Listing | None = None):
        """
        Args:
          root: the folder, archive or list that the images were found in.
          names: of each image in it.
          listing: of what is found there; a folder of files needs none.
        """
        self._root, self._names, self._listing = root, names, listing
        found = listing.names if listing is not None and listing.names is not None else []
        self._at = {name: at for at, name in enumerate(found)}

    def decode(self, row: int, most: int) -> np.ndarray:
        """The image of a row in its own shape: upright, in sRGB, u8[H, W, 3].

        Args:
          row: of the run's images.
          most: pixels of its longer side; a larger one is made smaller.

        Raises:
          Unusable: it is not there any more, is no image, or a link leads out of the folder.
        """
        return decode(self._found(self._names[row]), None, 3, most=most)

    def _found(self, name: str) -> Item:
        try:
            folder = self._root.resolve(strict=True) if self._root.is_dir() else None
            try:
                if folder is not None:
                    return _content(folder / name, folder)
            except NotADirectoryError:  # it lies in an archive that lies in the folder
                pass
            if self._listing is None or name not in self._at:
                raise Unusable("there is no such file (any more)")
            at = self._at[name]
            (item,), _ = self._listing.read(range(at, at + 1))
            if isinstance(item, str):
                return _content(Path(item), folder)
            if folder is not None and not Path(item.path).resolve(strict=True).is_relative_to(folder):
                raise Unusable("in an archive that does not lie in the data's folder")
            return item
        except (OSError, RuntimeError, ValueError) as e:
            raise Unusable(f"it cannot be opened: {getattr(e, 'strerror', None) or e}") from e


def of(source: Source, settings: Settings) -> Originals | None:
    """The originals of a run's images; None where they were no files of the user's."""
    if settings.name != "folder" or not settings.dir or source.names is None:
        return None
    return Originals(expanded(settings.dir), source.names, source.listing)


def _content(path: Path, folder: Path | None) -> bytes:
    """What is in a regular file, which lies in a folder (None: anywhere) once links are followed."""
    path = path.resolve(strict=True)
    if folder is not None and not path.is_relative_to(folder):
        raise Unusable("a link that leads out of the data's folder")
    # Without O_NONBLOCK a named pipe would be waited for; links were followed above.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as f:
        status = os.fstat(f.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unusable("not a regular file")
        if status.st_size > MAX_BYTES:
            raise Unusable(f"too large: {status.st_size:,} bytes")
        return f.read(MAX_BYTES + 1)
