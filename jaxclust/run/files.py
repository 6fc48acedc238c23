"""Writing files so that a kill or a full disk leaves the old content or the new, never a part.

The folders may come from anybody, with links to anywhere in place of what is to be written: none is followed.
"""

import contextlib
import errno
import json
import logging
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxclust.run import cells
from jaxclust.run.errors import ConfigError
from jaxclust.run.locks import alone_in

logger = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT)  # what an OSError says of a disk without room
MAX_TEXT = 2**30  # bytes


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` to a file beside `path` and renames it into place, as `encoded` has it."""
    write_bytes(path, encoded(text))


def encoded(text: str) -> bytes:
    """A text as UTF-8; what that cannot say is backslashed."""
    return text.encode("utf-8", errors="backslashreplace")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to a file beside `path` and renames it into place."""
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to be written, which takes its place when all went well, and else vanishes.

    Raises:
      ConfigError: a folder has its name.
    """
    partial = _new_beside(path)
    try:
        yield partial
        with partial.open("rb") as f:
            os.fsync(f.fileno())
        put(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def put(new: Path, path: Path) -> None:
    """Renames a file into the place of another.

    Raises:
      ConfigError: a folder has its name.
    """
    try:
        os.replace(new, path)
    except IsADirectoryError as e:
        raise ConfigError(f"{path} is a folder, and a file of that name is to be written; move it away") from e


def _new_beside(path: Path) -> Path:
    """An empty file that was not there before."""
    while True:
        new = path.with_name(f".{path.name}.{secrets.token_hex(3)}")
        with contextlib.suppress(FileExistsError):
            new.open("xb").close()
            return new


def in_place(path: str, flags: int) -> int:
    """Opens a regular file that lies right there, or makes it: the `opener` of `open` for a file that is written to.

    Raises:
      ConfigError: something else has its name.
    """
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)  # to open a pipe would be to wait for a reader
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
    except OSError as e:
        if e.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise
    raise ConfigError(f"{path} is a link, or no file at all, and would be written to; move it away")


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the user's home for a `~`, which shells leave alone after `=`; as it is where no home is known."""
    return Path(os.path.expanduser(path))


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path leads to a folder or into it, by whatever links; one that cannot be followed is taken as it is."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """Makes a folder and those above it, and at the end takes away those of them that are empty."""
    absent = [one for one in (folder, *folder.parents) if not os.path.exists(one)]
    try:
        for one in (*reversed(absent), folder):  # not by recursion, which a deep path would exhaust
            one.mkdir(exist_ok=True)
        yield
    finally:
        for one in absent:
            with contextlib.suppress(OSError):  # it is not empty, as when all went well
                one.rmdir()


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. JSON has no NaN: one is written as null."""
    write_atomically(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a header and rows as CSV that no spreadsheet runs (see `cells`), atomically."""
    write_atomically(path, cells.text([header, *rows]))


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `path` when all went well, and else vanishes.

    One process at a time; others wait. Between the old folder's going and the new one's coming lies an instant without
    either. Whoever comes next after a kill clears away what it left, and puts the old one back after a kill then.
    """
    new, old = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    for left in (new, old):
        if left.is_symlink():
            left.unlink()
    with alone_in(new, f"another process is writing {path}; waiting for it"):
        if old.exists() and not path.exists():
            os.rename(old, path)
        for left in new.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        try:
            yield new
            shutil.rmtree(old, ignore_errors=True)
            if path.is_symlink():
                path.unlink()
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, old)
            os.rename(new, path)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_text(path: Path, errors: str = "replace") -> str:
    """The text of a regular file, or of what a link leads to: a pipe is not waited for, nor a device read for ever.

    Args:
      path: of the file.
      errors: what becomes of bytes that are not UTF-8, as `bytes.decode` has it.

    Raises:
      UnicodeDecodeError: some are not, and `errors` is "strict".
      ConfigError: it is something else, larger than `MAX_TEXT`, or cannot be read.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as f:
            about = os.fstat(f.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ConfigError(f"{path} is no regular file; move it away, or put the file back")
            if about.st_size > MAX_TEXT:
                raise ConfigError(f"{path} is damaged (it has {about.st_size:,} bytes); move it away")
            return f.read(MAX_TEXT).decode("utf-8", errors=errors)
    except OSError as e:
        if e.errno in (errno.EISDIR, errno.ENXIO):
            raise ConfigError(f"{path} is no regular file; move it away, or put the file back") from e
        raise ConfigError(f"{path} cannot be read: {e.strerror}") from e


def read_json(path: Path) -> dict[str, Any]:
    """What a run keeps in its workdir.

    Raises:
      ConfigError: it is damaged, or cannot be read.
    """
    try:
        found = json.loads(read_text(path, "strict"))
    except (ValueError, RecursionError) as e:
        if isinstance(e, ConfigError):
            raise
        raise ConfigError(f"{path} is damaged ({e}); move it away, or give another --workdir") from e
    if not isinstance(found, dict):
        what = f"a {type(found).__name__}, not names and values"
        raise ConfigError(f"{path} is damaged (it holds {what}); move it away, or give another --workdir")
    return found


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, none where there is no file; one that a kill cut short is left out.

    Each has the number of a `step`, by which whoever resumes or evaluates takes those that count.

    Raises:
      ConfigError: the file cannot be read, or a whole line of it is no such record.
    """
    found = []
    for number, line in enumerate(read_text(path).splitlines(keepends=True) if path.exists() else [], 1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or type(record["step"]) not in (int, float):
                raise ValueError("it has no number of a step")
        except (ValueError, KeyError, RecursionError) as e:
            why = f"no {e}" if isinstance(e, KeyError) else str(e)
            raise ConfigError(f"line {number} of {path} is damaged ({why}); take that line out") from e
        found.append(record)
    return found


def write_array(path: Path, x: Any) -> None:
    """Writes what `np.save` does, whose own error on a full disk does not say so."""
    x = np.ascontiguousarray(x)
    with path.open("wb") as f:
        np.lib.format.write_array_header_1_0(f, np.lib.format.header_data_from_array_1_0(x))
        f.write(x.reshape(-1).view(np.uint8))


def finite(value: Any) -> Any:
    """`value` as JSON can say it, with NumPy's numbers as Python's and None for what is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
