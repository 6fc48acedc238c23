"""Finding files by their base name, in folders and in archives, without unpacking an archive to disk.

A member of a tar, also of a tar within a tar, is read where it lies: of ImageNet's 138 GB only the headers and the
wanted images are. The wanted members of a compressed tar or a zip are unpacked once, into a temporary file without
a name, of which a killed process leaves nothing.
"""

import contextlib
import gzip
import io
import logging
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from tqdm import tqdm

from jaxclust.run.errors import ConfigError

logger = logging.getLogger(__name__)

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


class File(NamedTuple):
    """Some bytes of a file on disk."""

    name: str  # base name, without .gz
    place: str  # a path to show, in which an archive is a folder
    source: Path | IO[bytes]
    offset: int
    size: int

    def read(self) -> bytes:
        with self.source.open("rb") if isinstance(self.source, Path) else contextlib.nullcontext(self.source) as f:
            return os.pread(f.fileno(), self.size, self.offset)

    def map(self) -> np.ndarray:
        """u8[size], mapped into memory."""
        if not self.size:
            return np.empty(0, np.uint8)
        return np.memmap(self.source, np.uint8, "r", self.offset, (self.size,))


def find(origin: Path, scratch: Path | None, layouts: Sequence[Sequence[str]]) -> list[dict[str, File]]:
    """The folders, or failing these archives' folders, that hold all files of a layout.

    Idx files' two spellings (`-idx3-ubyte`, `.idx3-ubyte`) are one.

    Args:
      origin: a folder, which is searched with all that is in it, or a file.
      scratch: a folder for temporary files; None is the system's.
      layouts: lists of base names; one that is whole is enough.

    Returns:
      For each folder that holds a layout, `{base name: file}`; a layout whose files lie in several folders is
      one, where none of its files is there twice.

    Raises:
      ConfigError: no layout is whole; the message names the missing files of the one that most was found of.
    """
    names = {name for layout in layouts for name in layout}
    folders: dict[str, dict[str, File]] = {}

    def whole(files: dict[str, File]) -> bool:
        return any(files.keys() >= set(layout) for layout in layouts)

    for stage in stages(origin, scratch, lambda name: _spelt(name) in names):
        for file in stage:
            folders.setdefault(os.path.dirname(file.place), {}).setdefault(_spelt(file.name), file)
        if found := [files for files in folders.values() if whole(files)]:
            return found
    together: dict[str, list[File]] = {name: [f[name] for f in folders.values() if name in f] for name in names}
    if whole(once := {name: files[0] for name, files in together.items() if len(files) == 1}):
        return [once]
    layout = max(layouts, key=lambda layout: sum(bool(together[name]) for name in layout))
    missing = [name for name in layout if not together[name]]
    if not missing:
        name = next(name for name in layout if len(together[name]) > 1)
        places = " and ".join(file.place for file in together[name])
        raise ConfigError(f"{name} is in {origin} twice, as {places}; give --from=PATH to the folder that is meant")
    raise ConfigError(
        f"{origin} has {len(layout) - len(missing)} of the {len(layout)} files {', '.join(layout)}; "
        f"missing: {', '.join(missing)}; add them, or give --from=PATH to where all are"
    )


def stages(
    origin: Path,
    scratch: Path | None,
    wanted: Callable[[str], bool],
    enter: Callable[[str], bool] = lambda name: True,
) -> Iterator[Iterator[File]]:
    """Iterates over the wanted files: those that lie unpacked, and then archive by archive, small ones first.

    Args:
      origin: a folder, which is searched with all that is in it, or a file.
      scratch: a folder for temporary files; None is the system's.
      wanted: whether a file of this base name (without .gz) is.
      enter: whether to look into a folder or an archive of this name (without .tar and the like).

    Raises:
      ConfigError: there is no `origin`, or it is an archive that is damaged.
    """
    if not origin.exists():
        raise ConfigError(f"there is no {origin}; give --from=PATH to the folder or archive that the files are in")
    search = _Search(scratch, wanted, enter)
    if origin.is_dir():
        archives: list[Path] = []
        yield search.folder(origin, archives)
        for path in sorted(archives, key=lambda path: (path.stat().st_size, path.name)):
            yield search.archive(path, alone=False)
    elif origin.name.lower().endswith(SUFFIXES):
        yield search.archive(origin, alone=True)
    else:
        yield search.file(origin)


class _Search:
    def __init__(self, scratch: Path | None, wanted: Callable[[str], bool], enter: Callable[[str], bool]):
        self.scratch, self.wanted, self.enter = scratch, wanted, enter

    def folder(self, origin: Path, archives: list[Path]) -> Iterator[File]:
        seen = set()
        for folder, folders, names in os.walk(origin, followlinks=True):  # synsets are often linked to
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if self.enter(name))
            for name in sorted(names):
                if not name.lower().endswith(SUFFIXES):
                    yield from self.file(Path(folder, name))
                elif self.enter(_stem(name)):
                    archives.append(Path(folder, name))

    def file(self, path: Path) -> Iterator[File]:
        if not self.wanted(path.name.removesuffix(".gz")):
            return
        if path.suffix == ".gz":
            with path.open("rb") as stream:
                yield _unpack(stream, str(path), self._spool())
        else:
            yield File(path.name, str(path), path, 0, path.stat().st_size)

    def archive(self, path: Path, alone: bool) -> Iterator[File]:
        read = {".tar": self._tar, ".zip": self._zip}.get(path.suffix.lower(), self._compressed_tar)
        try:
            yield from read(path)
        except DAMAGE as e:
            damage = f"{path} is damaged or breaks off ({e})"
            if alone:
                raise ConfigError(f"{damage}; fetch it again") from e
            logger.warning("warning: %s; it is passed by", damage)

    def _tar(self, path: Path, place: str = "", offset: int = 0, size: int | None = None) -> Iterator[File]:
        place = place or str(path)
        size = path.stat().st_size if size is None else size
        spool = self._spool()
        with _Window(path, offset, size) as window, tarfile.open(fileobj=window, mode="r:") as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                name, at = os.path.basename(member.name), f"{place}/{member.name}"
                where = (offset + member.offset_data, member.size)
                if member.offset_data + member.size > size:
                    raise EOFError(f"it ends within {member.name}")
                if name.endswith(".tar"):
                    if self.enter(_stem(name)):
                        yield from self._tar(path, at, *where)
                elif self.wanted(name.removesuffix(".gz")):
                    packed = name.endswith(".gz")
                    yield _unpack(tar.extractfile(member), at, spool) if packed else File(name, at, path, *where)

    def _compressed_tar(self, path: Path) -> Iterator[File]:
        spool = self._spool()
        bar = tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, leave=False, disable=None)
        with path.open("rb") as f, bar, tarfile.open(fileobj=_Counted(f, bar), mode="r|gz") as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                if self.wanted(os.path.basename(member.name).removesuffix(".gz")):
                    yield _unpack(tar.extractfile(member), f"{path}/{member.name}", spool)

    def _zip(self, path: Path) -> Iterator[File]:
        spool = self._spool()
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = os.path.basename(member.filename)
                if self.wanted(name.removesuffix(".gz")):
                    with archive.open(member) as stream:
                        yield _unpack(stream, f"{path}/{member.filename}", spool)

    def _spool(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self.scratch)


def _unpack(stream: IO[bytes], place: str, spool: IO[bytes]) -> File:
    """Appends the content of `stream` to the file `spool`, without the gzip around it where its name has .gz."""
    offset = spool.seek(0, os.SEEK_END)
    with gzip.GzipFile(fileobj=stream) if place.endswith(".gz") else contextlib.nullcontext(stream) as plain:
        shutil.copyfileobj(plain, spool, 1 << 20)
    spool.flush()
    return File(os.path.basename(place).removesuffix(".gz"), place, spool, offset, spool.tell() - offset)


def _spelt(name: str) -> str:
    return name.replace(".idx", "-idx")


def _stem(name: str) -> str:
    return next((name[: -len(s)] for s in SUFFIXES if name.lower().endswith(s)), name)


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, path: Path, offset: int, size: int):
        self._file, self._offset, self._size, self._at = path.open("rb"), offset, size, 0

    def readinto(self, buffer) -> int:
        n = min(len(buffer), self._size - self._at)
        data = os.pread(self._file.fileno(), n, self._offset + self._at) if n > 0 else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


class _Counted:
    """A stream that shows on a progress bar how much of it has been read."""

    def __init__(self, stream: IO[bytes], bar: tqdm):
        self._stream, self._bar = stream, bar

    def read(self, n: int) -> bytes:
        data = self._stream.read(n)
        self._bar.update(len(data))
        return data
