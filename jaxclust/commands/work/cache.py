"""`--mode=cache`: what lies in the cache of decoded images and compiled programs."""

import argparse
import shutil
import time
from collections.abc import Mapping

from jaxclust.data import cache, limit
from jaxclust.run.errors import ConfigError
from jaxclust.run.names import shown
from jaxclust.run.preemption import Preemption

PROGRAMS = "xla"


def run_cache(clear: bool) -> None:
    """Prints what there is, and removes it where that is asked for.

    Raises:
      ConfigError: it cannot be removed.
    """
    home = cache.directory()
    entries = limit.kept(home)
    images, programs = sum(entry.size for entry in entries), limit.size_of(home / PROGRAMS)
    rest = limit.size_of(home) - images - programs
    for entry in reversed(entries):
        days = (time.time() - entry.used) / 86400
        print(f"{entry.size / 1e9:8.2f} GB  used {days:4.0f} days ago  {shown(limit.about(entry))}")
    print(
        f"{home}: {images / 1e9:.2f} GB of decoded images (at most {limit.limit() / 1e9:g}, JAXCLUST_CACHE_GB)", end=""
    )
    print(f", {programs / 1e9:.2f} GB of compiled programs, {rest / 1e9:.2f} GB unfinished or damaged")
    if clear and home.is_dir():
        try:
            for path in home.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError as e:
            raise ConfigError(f"{e.filename} cannot be removed: {e.strerror}") from e
        print("all of it is removed")


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    run_cache(bool(args.clear))
