"""A user's own images: everything below a folder, or in a tar or zip archive, in the order of their names.

Nothing vanishes: whatever is found and is not an image ends up in `skipped.csv`, with a reason.
"""

import hashlib
import json
import os
import stat
import tarfile
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxclust.config import ConfigError
from jaxclust.data.cache import Listing
from jaxclust.data.decode import VERSION, Item, Slice, Zipped

ARCHIVES = (".tar", ".zip")


class Found(NamedTuple):
    files: dict[str, tuple[Item, list]]  # name -> where it is, and numbers that change when its content does
    aside: list[tuple[str, str]]  # (name, reason) of what is not to be read


def listing(path: Path, side: int) -> Listing:
    """The files below a folder, or in an archive, each of which may be an image.

    Args:
      path: a folder, a .tar or a .zip.
      side: of the squares that images are decoded to, pixels.

    Raises:
      ConfigError: `path` cannot be read, or holds no file.
    """
    try:
        found = _walk(path) if path.is_dir() else _archived(path)
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror or e}") from e
    if not found.files:
        raise ConfigError(f"there is no file in {path}; set data.dir to a folder, .tar or .zip of images")
    names = sorted(found.files)
    items = [found.files[name][0] for name in names]
    content = json.dumps([VERSION, side, *([name, *found.files[name][1]] for name in names)])
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    return Listing(
        key=f"folder-{key}",
        shape=(side, side, 3),
        resize=True,
        names=names,
        count=len(names),
        read=lambda rows: (items[rows.start : rows.stop], None),
        aside=sorted(found.aside),
    )


def _walk(root: Path) -> Found:
    """Every file once, though links may lead to it again; links are followed after all that is really there.

    What is no regular file, or cannot be read, is among the files: whoever opens it finds out, and says so.
    """
    files, aside, seen, links, folders = {}, [], {}, deque(), [("", str(root))]
    while folders or links:
        if folders:
            prefix, folder = folders.pop()
            try:
                identity, entries = _identity(os.stat(folder)), list(os.scandir(folder))
            except OSError:
                if not prefix:
                    raise
                files[prefix] = folder, []
                continue
            if identity in seen:
                aside.append((prefix, f"a link to {seen[identity] or 'the whole folder'}, which is read already"))
                continue
            seen[identity] = prefix
            for entry in sorted(entries, key=lambda e: e.name):
                name = prefix + entry.name
                if entry.is_symlink():
                    links.append((name, entry.path))
                elif not entry.is_dir(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    seen.setdefault(_identity(status), name)
                    files[name] = entry.path, [status.st_size, status.st_mtime_ns]
                elif entry.name.startswith("."):
                    aside.append((f"{name}/", "a hidden folder"))
                else:
                    folders.append((f"{name}/", entry.path))
        else:
            name, path = links.popleft()
            try:
                status = os.stat(path)
            except OSError:  # it leads nowhere, or in a circle
                files[name] = path, []
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append((f"{name}/", path))
            elif _identity(status) in seen:
                aside.append((name, f"a link to {seen[_identity(status)]}, which is read already"))
            else:
                seen[_identity(status)] = name
                files[name] = path, [status.st_size, status.st_mtime_ns]
    return Found(files, aside)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _archived(path: Path) -> Found:
    """The members of an archive, by the names that they have in it; nothing is unpacked."""
    if path.suffix.lower() not in ARCHIVES:
        raise ConfigError(f"{path} is not a folder, .tar, .zip, .npy or .npz; set data.dir to one of these")
    status = path.stat()
    version = [status.st_size, status.st_mtime_ns]
    try:
        members = _zipped if path.suffix.lower() == ".zip" else _tarred
        files, aside = {}, []
        for name, item in members(path, status.st_size):
            if item is None:
                aside.append((name, "a link or a device, not a file of the archive"))
            else:
                files[name] = item, version
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as e:
        raise ConfigError(
            f"{path} is damaged or of another kind than its name says: {e}; set data.dir to a folder, "
            f"an uncompressed .tar or a .zip of images"
        ) from e
    return Found(_without_common_folder(files), aside)


def _tarred(path: Path, size: int) -> Iterator[tuple[str, Item | None]]:
    with tarfile.open(path, "r:") as archive:  # compressed ones could only be read from the front
        for member in archive:
            if member.isfile() and not member.issparse():
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"it ends in the middle of {member.name}")
                yield member.name, Slice(str(path), member.offset_data, member.size)
            elif not member.isdir():
                yield member.name, None
        # tarfile takes the middle of a header for the end of the archive.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("it ends in the middle")


def _zipped(path: Path, size: int) -> Iterator[tuple[str, Item | None]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, Zipped(str(path), member.filename)


def _without_common_folder(files: dict) -> dict:
    """Archives often hold one folder that holds everything; names are better without it."""
    tops = {name.split("/")[0] for name in files}
    if len(tops) != 1 or any("/" not in name for name in files):
        return files
    return {name.partition("/")[2]: value for name, value in files.items()}


def labels(names: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """The number of each image's class, its first folder; and the names of these, in order.

    Raises:
      ConfigError: an image lies in no folder.
    """
    for name in names:
        if "/" not in name:
            raise ConfigError(
                f"data.labels is 'folders', but {name!r} lies in none; move it into the folder of its class, "
                f"or set data.labels to ''"
            )
    classes = sorted({name.split("/")[0] for name in names})
    number = {name: i for i, name in enumerate(classes)}
    return [number[name.split("/")[0]] for name in names], tuple(classes)
