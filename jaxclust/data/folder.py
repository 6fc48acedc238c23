"""A user's own images: everything below a folder, or in a tar or zip archive, in the order of their names.

Nothing vanishes: whatever is found and is not an image ends up in `skipped.csv`, with a reason. What was never meant to
be one is set aside, and does not count as a bad image. A folder that holds archives and no image is read as if these
were folders.
"""

import bz2
import contextlib
import functools
import gzip
import hashlib
import json
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from jaxclust.data import kinds
from jaxclust.data.cache import Listing
from jaxclust.data.content import glance
from jaxclust.data.decode import VERSION, Item, Slice, Zipped
from jaxclust.run.errors import ConfigError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVES = (".tar", ".zip", *COMPRESSED)
GONE = "it vanished while the folder was listed"
# (name, where it is if it is a file, its first bytes), while the archive is open at that place
Members = Iterator[tuple[str, Item | None, Callable[[], bytes | None]]]


class Found(NamedTuple):
    files: dict[str, tuple[Item, list]]  # name -> where it is, and numbers that change when its content does
    aside: list[tuple[str, str]]  # (name, reason) of what is not to be read


def listing(path: Path, side: int) -> Listing:
    """The files below a folder, or in an archive, each of which may be an image.

    Args:
      path: a folder, a .tar (compressed, too) or a .zip.
      side: of the squares that images are decoded to, pixels.

    Raises:
      ConfigError: `path` cannot be read, or holds no file.
    """
    path = path.absolute()  # decoders may have been started in another folder
    try:
        found = _in_folder(path) if path.is_dir() else _archived(path)
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror or e}") from e
    if not found.files:
        what = (
            f"no image in {path}, only {len(found.aside):,} other files and folders"
            if found.aside
            else f"no file in {path}"
        )
        raise ConfigError(f"there is {what}; give a folder, .tar or .zip of images")
    names = sorted(found.files)
    items = [found.files[name][0] for name in names]
    seen = glance([*dict.fromkeys(item if isinstance(item, str) else item.path for item in items)])
    content = json.dumps([VERSION, side, seen, *([name, *found.files[name][1]] for name in names)])
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    return Listing(
        key=f"folder-{key}",
        shape=(side, side, 3),
        resize=True,
        names=names,
        count=len(names),
        read=lambda rows: ([_at_hand(item) for item in items[rows.start : rows.stop]], None),
        aside=sorted(found.aside),
    )


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive that is read."""
    return path.name.lower().endswith(ARCHIVES)


def _in_folder(root: Path) -> Found:
    found = _walk(root)
    archives = [name for name, _ in found.aside if is_archive(Path(name))] if not found.files else []
    if not archives:
        return found
    files, aside = {}, [row for row in found.aside if row[0] not in archives]
    for name in sorted(archives):
        inner = _archived(root / name)
        files |= {f"{name}/{member}": value for member, value in inner.files.items()}
        aside += [(f"{name}/{member}", why) for member, why in inner.aside]
    return Found(files, aside)


def _walk(root: Path) -> Found:
    """Every file once, though links may lead to it again; links are followed after all that is really there.

    What is no regular file, or cannot be read, is among the files: whoever opens it finds out, and says so.
    """
    files, aside, seen, links, folders = {}, [], {}, deque(), [("", str(root))]

    def add(name: str, path: str, version: list) -> None:
        if why := kinds.file_aside(name, lambda: _head(path)):
            aside.append((name, why))
        else:
            files[name] = path, version

    def look(prefix: str, entry: os.DirEntry) -> None:
        name = prefix + entry.name
        if entry.is_symlink():
            links.append((name, entry.path))
        elif not entry.is_dir(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            seen.setdefault(_identity(status), name)
            add(name, entry.path, [status.st_size, status.st_mtime_ns])
        elif why := kinds.folder_aside(entry.name):
            aside.append((f"{name}/", why))
        else:
            folders.append((f"{name}/", entry.path))

    while folders or links:
        if folders:
            prefix, folder = folders.pop()
            try:
                identity, entries = _identity(os.stat(folder)), list(os.scandir(folder))
            except OSError as e:
                if not prefix:
                    raise
                if isinstance(e, FileNotFoundError):
                    aside.append((prefix, GONE))
                else:
                    files[prefix] = folder, []
                continue
            if identity in seen:
                aside.append((prefix, f"a link to {seen[identity] or 'the whole folder'}, which is read already"))
                continue
            seen[identity] = prefix
            for entry in sorted(entries, key=lambda e: e.name):
                try:
                    look(prefix, entry)
                except FileNotFoundError:
                    aside.append((prefix + entry.name, GONE))
                except OSError:  # the folder tells names but not more
                    add(prefix + entry.name, entry.path, [])
        else:
            name, path = links.popleft()
            try:
                status = os.stat(path)
            except OSError:  # it leads nowhere, or in a circle
                add(name, path, [])
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append((f"{name}/", path))
            elif _identity(status) in seen:
                aside.append((name, f"a link to {seen[_identity(status)]}, which is read already"))
            else:
                seen[_identity(status)] = name
                add(name, path, [status.st_size, status.st_mtime_ns])
    return Found(files, aside)


def _head(path: str) -> bytes | None:
    """The first bytes of a regular file that can be read, or None; others might wait for a writer."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(fd, kinds.HEAD) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _archived(path: Path) -> Found:
    """The members of an archive, by the names that they have in it; nothing is unpacked, but for compressed tars."""
    if not is_archive(path):
        raise ConfigError(f"{path} is not a folder, .tar, .zip, .npy, .npz or list; give one of these")
    status = path.stat()
    version = [status.st_size, status.st_mtime_ns]
    try:
        members = _zipped if path.suffix.lower() == ".zip" else _tarred
        files, aside = {}, {}
        for name, item, head in members(path, status.st_size):
            *above, _ = PurePath(name).parts or ("",)
            hidden = next((i for i, part in enumerate(above) if kinds.folder_aside(part)), None)
            if hidden is not None:
                aside[f"{'/'.join(above[: hidden + 1])}/"] = kinds.folder_aside(above[hidden])
            elif item is None:
                aside[name] = "a link or a device, not a file of the archive"
            elif why := kinds.file_aside(name, head):
                aside[name] = why
            else:
                if name in files:
                    aside[name] = "in the archive more than once; the last one is read"
                files[name] = item, version
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as e:
        raise ConfigError(
            f"{path} is damaged or of another kind than its name says: {e}; give a folder, a .tar or a .zip of images"
        ) from e
    return Found(_without_common_folder(files), [*aside.items()])


def _tarred(path: Path, size: int) -> Members:
    packed = path.name.lower().endswith(COMPRESSED)
    with tarfile.open(path, "r:*" if packed else "r:") as archive:
        for member in archive:
            if member.isfile() and not member.issparse():
                if not packed and member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"it ends in the middle of {member.name}")
                slice_ = Slice(str(path), member.offset_data, member.size)
                yield member.name, slice_, lambda member=member: archive.extractfile(member).read(kinds.HEAD)
            elif not member.isdir():
                yield member.name, None, lambda: None
        # tarfile takes the middle of a header for the end of the archive.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError("it ends in the middle")


def _zipped(path: Path, size: int) -> Members:
    with zipfile.ZipFile(path) as archive:

        def head(member: zipfile.ZipInfo) -> bytes | None:
            with contextlib.suppress(Exception), archive.open(member) as f:  # encrypted, or packed in some new way
                return f.read(kinds.HEAD)
            return None

        for member in archive.infolist():
            if not member.is_dir():
                yield member.filename, Zipped(str(path), member.filename), functools.partial(head, member)


def _at_hand(item: Item) -> Item:
    """The item where it can be read from any place; a compressed tar could only be read from the front."""
    if isinstance(item, Slice) and item.path.lower().endswith(COMPRESSED):
        status = os.stat(item.path)
        return item._replace(path=_unpacked(item.path, status.st_size, status.st_mtime_ns).name)
    return item


@functools.cache
def _unpacked(path: str, *version: int) -> "tempfile._TemporaryFileWrapper[bytes]":
    """The plain tar in a temporary file, made when an image of it is wanted; it is removed when the process ends."""
    out = tempfile.NamedTemporaryFile(  # noqa: SIM115 (workers read it by its name for as long as the process lives)
        prefix="jaxclust-", suffix=".tar"
    )
    with _opener(path)(path, "rb") as f:
        shutil.copyfileobj(f, out, 2**20)
    out.flush()
    return out


def _opener(path: str) -> Callable:
    kind = path.lower()
    return gzip.open if kind.endswith("gz") else bz2.open if kind.endswith(("bz2", "tbz2")) else lzma.open


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
