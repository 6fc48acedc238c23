"""What earlier commands have made in a folder of sorted images, as they have listed it there.

The list may come from anybody, and be of any form. So a name counts only where it names something in a folder that
really lies here, and never where a link leads. And being listed takes no content away: `folders` asks for the same
bytes elsewhere.
"""

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jaxclust.run.errors import ConfigError
from jaxclust.run.files import write_atomically

MANIFEST = ".jaxclust.json"
LARGEST = 2**30  # bytes of a list; that of a million images has a tenth of it


class Made(NamedTuple):
    links: list[Path]  # below the folder
    copies: dict[Path, os.stat_result]


def read(into: Path) -> Made:
    """What is listed and is still there as what it is listed as.

    Raises:
      ConfigError: there is a list, but it cannot be read as one.
    """
    path = into / MANIFEST
    try:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return Made([], {})
        with open(fd, encoding="utf-8") as f:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
                raise ValueError("it is not a file that jaxclust has written")
            names = json.load(f)
        if not isinstance(names, dict):
            raise ValueError(f"it holds {names!r:.40}, not names")
        if strange := [x for x in names.values() if type(x) not in (int, type(None))]:
            raise ValueError(f"it holds {strange[0]!r:.40}, not a time or null")
    except (OSError, ValueError, RecursionError) as e:
        raise ConfigError(
            f"{path} should list what was made there, and cannot be read as that ({e}); move it away, or give another "
            f"folder"
        ) from e
    made, seen = Made([], {}), set()
    for name, time in names.items():
        status = _found(into, name)
        if status is None or (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        if time is None and stat.S_ISLNK(status.st_mode):
            made.links.append(Path(name))
        elif time is not None and stat.S_ISREG(status.st_mode):
            made.copies[Path(name)] = status
    return made


def write(into: Path, links: Iterable[Path], copies: Iterable[Path]) -> None:
    """Lists what is there or about to be."""
    # A copy had its time here, by which versions up to 0.2.0 knew what to remove. Of time 0 they find none.
    names = {str(path): 0 for path in copies} | {str(path): None for path in links}
    write_atomically(into / MANIFEST, json.dumps(names))


def _found(into: Path, name: str) -> os.stat_result | None:
    """What `FOLDER/FILE` is, in a folder right below `into`; None of any other name, and where there is nothing."""
    path = PurePosixPath(name)
    if path.is_absolute() or len(path.parts) != 2 or ".." in path.parts:
        return None
    try:
        return os.lstat(into / path) if stat.S_ISDIR(os.lstat(into / path.parent).st_mode) else None
    except (OSError, ValueError):  # nothing is called that, or could be
        return None
