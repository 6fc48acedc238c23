"""What lies in the cache, and that it does not grow without end: what was used longest ago goes first."""

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxclust.run.errors import ConfigError
from jaxclust.run.files import read_json

GIGABYTES = 50.0  # of decoded images, unless JAXCLUST_CACHE_GB says otherwise
RECENT = 3600.0  # seconds, within which an entry may be in use
MADE = "index.json"  # what makes a folder an entry


class Kept(NamedTuple):
    """Decoded images in the cache."""

    path: Path
    size: int  # bytes
    used: float  # seconds since 1970


def limit() -> float:
    """Bytes of decoded images that may lie in the cache.

    Raises:
      ConfigError: JAXCLUST_CACHE_GB is no number.
    """
    given = os.environ.get("JAXCLUST_CACHE_GB") or str(GIGABYTES)
    try:
        found = float(given)
    except ValueError:
        found = -1.0
    if not found > 0:
        raise ConfigError(f"JAXCLUST_CACHE_GB is {given!r}; give the gigabytes that the cache may take, such as 50")
    return found * 1e9


def kept(home: Path) -> list[Kept]:
    """The decoded images in the cache, those first that were used longest ago."""
    found = []
    for path in home.iterdir() if home.is_dir() else ():
        with contextlib.suppress(OSError):
            if (path / MADE).exists() and not path.name.startswith("."):
                found.append(Kept(path, size_of(path), max((path / name).stat().st_mtime for name in os.listdir(path))))
    return sorted(found, key=lambda entry: entry.used)


def size_of(path: Path) -> int:
    """Bytes of the files in a folder and below it."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def make_room(home: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Removes what was used longest ago, where so many images of (H, W, C) would not fit beside it.

    Raises:
      ConfigError: they are more than the whole cache may hold.
    """
    need, most = count * int(np.prod(shape)), limit()
    if need > most:
        raise ConfigError(
            f"{count:,} images of {shape[0]:,} x {shape[1]:,} pixels take {need / 1e9:,.0f} GB decoded, and the cache "
            f"holds at most {most / 1e9:,.0f}; give a smaller data.size or data.stored, or set JAXCLUST_CACHE_GB"
        )
    entries = kept(home)
    total = sum(entry.size for entry in entries)
    for entry in entries:
        if total + need <= most or time.time() - entry.used < RECENT:
            return
        shutil.rmtree(entry.path, ignore_errors=True)  # whoever has it open keeps it
        total -= entry.size


def touch(path: Path) -> None:
    """An entry is used."""
    with contextlib.suppress(OSError):  # of a cache that may only be read
        os.utime(path / "checked")


def about(entry: Kept) -> str:
    """What an entry holds, in words."""
    try:
        index = read_json(entry.path / MADE)
        return f"{index['count']:,} images of {index['shape'][0]} x {index['shape'][1]}, {_of(index['names'])}"
    except (ConfigError, KeyError, TypeError, IndexError, ValueError):
        return "damaged"


def _of(names: list[str] | None) -> str:
    return f"{min(names)} ... {max(names)}" if names else "of a data set or an array"
