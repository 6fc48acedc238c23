"""Locks of folders and files, which go with their process, however that ends. No link is followed to one."""

import contextlib
import errno
import fcntl
import functools
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from jaxclust.run.errors import ConfigError

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def alone_in(folder: Path, waiting: str) -> Iterator[None]:
    """Makes `folder` and holds it, one process at a time. The lock goes with the process, however that ends.

    Whoever has waited holds an empty folder where the one before has renamed its own. What is locked is a file beside
    the folder, as network file systems lock no folders; it is removed at the end.

    Args:
      folder: to be held.
      waiting: what to say while another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}.lock")
    while True:
        fd = open_lock(path)
        try:
            try:
                lock(fd, path)
            except BlockingIOError:
                logger.warning("%s", waiting)
                lock(fd, path, wait=True)
            if not _is_at(fd, path):
                continue
            if folder.is_symlink():  # nobody but a stranger makes one, and what it points to is not ours to fill
                folder.unlink()
            folder.mkdir(exist_ok=True)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(fd)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the file `path`, in which this process is named. The lock goes with the process, however that ends.

    Raises:
      BlockingIOError: another process holds it; the error's `strerror` is what that one is called.
    """
    with open(open_lock(path), "r+", encoding="utf-8", errors="replace") as f:
        try:
            lock(f.fileno(), path)
        except BlockingIOError as e:
            raise BlockingIOError(e.errno, f.read().strip() or "another process") from e
        f.truncate(0)
        f.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        f.flush()
        yield


def lock(fd: int, path: Path, wait: bool = False) -> None:
    """Locks an open file; where the file system has no locks, says so and goes on without.

    Args:
      fd: of the file, open for writing: over NFS the kernel locks no other.
      path: its name, to be told.
      wait: for whoever holds it.

    Raises:
      BlockingIOError: another process holds it, and nobody is to wait.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as e:
        _tell_unlocked(path.parent, e.strerror)


@functools.cache
def _tell_unlocked(folder: Path, why: str) -> None:
    logger.warning("%s cannot be locked (%s), so let no second command write there at the same time", folder, why)


def open_lock(path: Path) -> int:
    """Opens a lock's file, or makes it; a link is not followed, as it may lead to somebody's own file.

    Raises:
      ConfigError: something else is in its place.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o666)
    except OSError as e:
        if e.errno not in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):
            raise
        raise ConfigError(f"{path} is no file to be locked; remove it") from e
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ConfigError(f"{path} is no file to be locked; remove it")
    return fd


def _is_at(fd: int, path: Path) -> bool:
    """Whether what is open is still what `path` names: whoever held it before has removed it at the end."""
    try:
        # Opened and not asked by name, since NFS answers that from memory.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as now:
            return os.path.samestat(os.fstat(fd), os.fstat(now.fileno()))
    except OSError:
        return False
