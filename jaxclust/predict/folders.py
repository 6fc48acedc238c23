"""A folder for each group, with links to its images or copies of them.

Names come from people and archives, so each is made harmless first. What is to be made is listed in `MANIFEST`
beforehand; a later sorting takes away what is listed and unchanged, and nothing else. No file that is there is
written to.
"""

import contextlib
import json
import os
import shutil
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from jaxclust.config import ConfigError, read_json
from jaxclust.data import decode
from jaxclust.files import FULL, write_atomically
from jaxclust.predict.images import Images

MANIFEST, PART = ".jaxclust.json", ".jaxclust.part"
LONGEST = 255  # bytes of a name, as file systems have it
ROOM = 12  # bytes of it for a number that tells apart what would be called alike
FORBIDDEN = set('/\\:*?"<>|')  # on some system or other
SECONDS = 2  # to which some file systems round a file's time


def make(
    into: Path, images: Images, origin: Path, found: Iterable[tuple[int, int]], groups: Mapping[int, str], copy: bool
) -> tuple[int, int]:
    """Makes the folders anew.

    Args:
      into: where; made if it is not there.
      images: what was sorted.
      origin: where they are from.
      found: (row, group).
      groups: number -> name.
      copy: whether to copy files. What is no file of its own, in an archive or an array, is written in any case.

    Returns:
      the numbers of links and of files that were made.

    Raises:
      ConfigError: they cannot be made there.
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
        _take_away(into)
        plan = _plan(into, images, origin, found, groups, copy)
        write_atomically(into / MANIFEST, json.dumps({str(path): time for _, path, time in plan}))
        for folder in sorted({path.parent for _, path, _ in plan}):
            (into / folder).mkdir(exist_ok=True)
        for row, path, time in plan:
            if time is None:
                os.symlink(os.path.abspath(images.item(row)), into / path)
            else:
                _write(images.item(row), into / PART, time)
                if os.path.lexists(into / path):
                    raise FileExistsError(None, "a file has just been made there", str(path))
                os.rename(into / PART, into / path)
    except OSError as e:
        if e.errno in FULL:
            raise
        raise ConfigError(
            f"the folders cannot be made in {into}: {e.strerror or e}{f' ({e.filename})' if e.filename else ''}; "
            f"give another --into"
        ) from e
    finally:
        (into / PART).unlink(missing_ok=True)
    links = sum(time is None for _, _, time in plan)
    return links, len(plan) - links


def _plan(
    into: Path, images: Images, origin: Path, found: Iterable[tuple[int, int]], groups: Mapping[int, str], copy: bool
) -> list[tuple[int, Path, int | None]]:
    """(row, path below `into`, time of change in ns or None for a link) of each image."""
    width, there = len(str(max(groups))), {entry.name: entry for entry in os.scandir(into)}
    real = {name for name, entry in there.items() if entry.is_dir(follow_symlinks=False)}
    outer = {_folded(name) for name in there if name not in real}
    folders, inner = {}, {}
    for number, name in groups.items():
        folder = folders[number] = _free(f"{number:0{width}d} {name}", outer)
        inner[number] = {_folded(name) for name in os.listdir(into / folder)} if folder in real else set()
    plan = []
    for row, group in found:
        item, name = images.item(row), PurePosixPath(images.name(row)).name
        is_file, is_array = isinstance(item, str), isinstance(item, np.ndarray)
        path = Path(folders[group], _free(f"{name}.png" if is_array else name, inner[group]))
        plan.append((row, path, None if is_file and not copy else os.stat(item if is_file else origin).st_mtime_ns))
    return plan


def _take_away(into: Path) -> None:
    """What an earlier sorting has made here and nobody has touched since."""
    path = into / MANIFEST
    if not path.exists():
        return
    made = {Path(name): time for name, time in read_json(path).items()}
    for name, time in made.items():
        if len(name.parts) != 2 or ".." in name.parts or (into / name.parent).is_symlink():
            continue  # none of ours
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(into / name)
            link = (into / name).is_symlink()
            if link if time is None else not link and abs(status.st_mtime_ns - time) < SECONDS * 10**9:
                os.unlink(into / name)
    for folder in {name.parent for name in made}:
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(into / folder)


def _free(name: str, taken: set[str]) -> str:
    """A harmless name like `name` that is not taken yet, whatever the file system thinks of case; it then is."""
    name = harmless(name)
    suffix = PurePosixPath(name).suffix if len(PurePosixPath(name).suffix.encode()) <= 16 else ""
    stem, number = name.removesuffix(suffix), 1
    while _folded(name) in taken:
        number += 1
        name = f"{stem} ({number}){suffix}"
    taken.add(_folded(name))
    return name


def harmless(name: str) -> str:
    """A name for one file or folder anywhere: no path, nothing invisible, not hidden, not too long."""
    name = "".join("_" if c in FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    name = name.lstrip(". ").rstrip(". ") or "_"
    suffix = PurePosixPath(name).suffix if len(PurePosixPath(name).suffix.encode()) <= 16 else ""
    room = LONGEST - ROOM - len(suffix.encode())
    return name.removesuffix(suffix).encode()[:room].decode(errors="ignore").rstrip() + suffix


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _write(item: decode.Item, path: Path, time: int) -> None:
    """An image as a file of its own, as it is; of an array, as PNG."""
    path.unlink(missing_ok=True)
    if isinstance(item, np.ndarray):
        pixels = decode.decode(item, None, item.shape[-1])
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(path, "PNG")
    else:
        with decode.open_item(item) as f, path.open("xb") as out:
            shutil.copyfileobj(f, out)
    os.utime(path, ns=(time, time))
