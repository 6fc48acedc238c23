"""Writing files so that a kill or a full disk leaves the old content or the new, never a part."""

import contextlib
import csv
import errno
import fcntl
import io
import json
import math
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FULL = (errno.ENOSPC, errno.EDQUOT)  # what an OSError says of a disk without room


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` to a file beside `path` and renames it into place; what UTF-8 cannot say is backslashed."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to a file beside `path` and renames it into place."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. JSON has no NaN: one is written as null."""
    write_atomically(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a header and rows as CSV, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(path, text.getvalue())


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `path` when all went well, and else vanishes.

    One process at a time; others wait. Between the old folder's going and the new one's coming lies an instant without
    either. Whoever comes next after a kill clears away what it left, and puts the old one back after a kill then.
    """
    new, old = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    with alone_in(new, f"another process is writing {path}; waiting for it"):
        if old.exists() and not path.exists():
            os.rename(old, path)
        for left in new.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield new
            shutil.rmtree(old, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, old)
            os.rename(new, path)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, none where there is no file; one that a kill cut short is left out.

    Raises:
      ValueError: a whole line is no JSON.
    """
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def finite(value: Any) -> Any:
    """`value` as JSON can say it, with NumPy's numbers as Python's and None for what is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def alone_in(folder: Path, waiting: str) -> Iterator[None]:
    """Makes `folder` and holds it, one process at a time. The lock goes with the process, however that ends.

    Whoever has waited holds an empty folder where the one before has renamed its own.

    Args:
      folder: to be held.
      waiting: what to say on stderr while another process holds it.
    """
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # the one before has just removed it
            continue
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(waiting, file=sys.stderr, flush=True)
                fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, folder):
                yield
                return
        finally:
            os.close(fd)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the file `path`, in which this process is named. The lock goes with the process, however that ends.

    Raises:
      BlockingIOError: another process holds it; the error's `strerror` is what that one is called.
    """
    with path.open("a+", encoding="utf-8") as f:
        try:
            # Over NFS, where some servers have no locks, the kernel says so with another error.
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            f.seek(0)
            raise BlockingIOError(e.errno, f.read().strip() or "another process") from e
        f.truncate(0)
        f.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        f.flush()
        yield


def _is_at(fd: int, path: Path) -> bool:
    """Whether what is open is still what `path` names: whoever held it before may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
