"""When files have come or gone: what an earlier entry has of the others is copied, and not decoded again.

A file is the same while its inode, size and times are, that of its last change on the disk among them, which no
program can set. The earlier entry is of no use then, and goes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxclust.data.decode import AGAIN, VERSION, Item
from jaxclust.data.entries import DAMAGE, open_entry
from jaxclust.run.files import write_atomically

STATES, LATEST = "states.json", "latest"


class Folder(NamedTuple):
    """A folder of files, in the state in which they are decoded."""

    origin: str  # the name of the folder, at this size
    states: dict[str, list[int]]  # of each file


class Earlier(NamedTuple):
    """An entry of the same folder in another state."""

    path: Path
    images: np.ndarray  # u8[N, H, W, C]
    rows: dict[str, int]
    unusable: dict[str, str]  # file -> reason
    states: dict[str, list[int]]

    def take(self, names: list[str], now: Folder) -> tuple[np.ndarray, list[tuple[int, str]]] | None:
        """Pixels of these files, and (place, reason) of those that are unusable; None unless all are as they were."""
        if any(name not in now.states or self.states.get(name) != now.states[name] for name in names):
            return None
        if not len(self.images) or any(name not in self.rows and name not in self.unusable for name in names):
            return None
        skipped = [(i, self.unusable[name]) for i, name in enumerate(names) if name not in self.rows]
        return self.images[[self.rows.get(name, 0) for name in names]], skipped


def folder(names: list[str] | None, items: Iterable[Item], shape: tuple[int, int, int]) -> Folder | None:
    """The folder that files of these names lie in; None where they are something else."""
    states, root = {}, None
    for name, item in zip(names or (), items):
        if not isinstance(item, str) or not item.endswith(name):
            return None
        root = root or os.path.abspath(item.removesuffix(name))
        try:
            status = os.stat(item)
        except OSError:
            continue
        states[name] = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    content = json.dumps([VERSION, shape, root])
    return Folder(hashlib.sha256(content.encode()).hexdigest()[:16], states) if states else None


def earlier(home: Path, now: Folder, key: str) -> Earlier | None:
    """The newest entry of the folder that is not `key`, where it is whole and has one."""
    try:
        path = home / (home / LATEST / now.origin).read_text("utf-8")
        states = json.loads((path / STATES).read_text("utf-8"))
        found = open_entry(path)
        unusable = {name: reason for name, reason in found.skipped if not reason.endswith(AGAIN)}
        rows = {name: row for row, name in enumerate(found.names or ())}
        return Earlier(path, found.images, rows, unusable, dict(states)) if path.name != key else None
    except DAMAGE:
        return None


def remember(home: Path, now: Folder, key: str, before: Earlier | None) -> None:
    """Makes `key` the folder's newest entry, in place of the one before."""
    (home / LATEST).mkdir(exist_ok=True)
    write_atomically(home / LATEST / now.origin, key)
    if before:
        shutil.rmtree(before.path, ignore_errors=True)  # whoever has it open keeps it
