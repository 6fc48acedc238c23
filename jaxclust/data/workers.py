"""Decoding in worker processes, on all cores, in a way that no image can stop.

A damaged image may kill its decoder, and with it all that the pool was doing. Those chunks are decoded again, image
by image, until it is known which one it was.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any

from loky import cpu_count, get_reusable_executor

from jaxclust.data.decode import AGAIN, Item, write_rows
from jaxclust.run.errors import ConfigError

_pools: list[Executor] = []  # the one that is there

Skipped = list[tuple[int, str]]  # (row, reason)


def decode_all(
    out: str, chunks: Iterable[tuple[int, list[Item]]], shape: tuple[int, int, int], resize: bool
) -> Iterator[tuple[int, Skipped]]:
    """Decodes chunks of images into the rows of a file; a few are under way at a time, so `chunks` may be read lazily.

    Args:
      out: the file, u8[N, *shape].
      chunks: (first row, where its images are).
      shape: (H, W, C) of a row.
      resize: whether images are brought to this size, or must have it.

    Yields:
      (first row, the rows of it that cannot be used and why), in the order in which chunks are done.

    Raises:
      OSError: the file cannot be written.
    """
    chunks, waiting, pool = iter(chunks), {}, None
    most = 3 * cpu_count()  # asked once, as the answer takes many files
    try:
        while True:
            pool = pool or _pool()
            try:
                for start, items in islice(chunks, most - len(waiting)):
                    waiting[start] = items, None  # known before it is handed over, in case the pool breaks here
                    waiting[start] = items, _submit(pool, out, start, items, shape, resize)
                if not waiting:
                    return
                done, _ = wait([future for _, future in waiting.values()], return_when=FIRST_COMPLETED)
                for start in [start for start, (_, future) in waiting.items() if future in done]:
                    skipped = waiting[start][1].result()
                    del waiting[start]
                    yield start, skipped
            except BrokenProcessPool:
                pool = None
                for start in list(waiting):
                    items, _ = waiting.pop(start)
                    yield start, _one_by_one(out, start, items, shape, resize)
    except BaseException:
        if pool:
            pool.shutdown(wait=False, kill_workers=True)  # nobody waits for what they still do
        raise


def _one_by_one(out: str, first: int, items: list[Item], shape: tuple[int, int, int], resize: bool) -> Skipped:
    skipped = []
    for row, item in enumerate(items, first):
        for left in (1, 0):  # a worker may have been killed for want of memory that another took
            try:
                skipped += _submit(_pool(), out, row, [item], shape, resize).result()
                break
            except BrokenProcessPool:
                if not left:
                    skipped.append((row, f"its decoder crashed, or was killed{AGAIN}"))
    return skipped


def end() -> None:
    """Ends idle workers: what a process holds of them when it is ended in a hurry, their tracker complains about."""
    if _pools:
        _pools.pop().shutdown(wait=True, kill_workers=True)


def _pool() -> Executor:
    with _starting():
        _pools[:] = [get_reusable_executor(cpu_count(), initializer=_end_with, initargs=(os.getpid(),))]
        return _pools[0]


def _submit(pool: Executor, *args: Any) -> Future:
    with _starting():  # what workers are missing
        return pool.submit(write_rows, *args)


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Processes that are started inside do not hear Ctrl-C, which a terminal sends to all; this one hears it after.

    Raises:
      ConfigError: none can be started.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        resource_tracker.ensure_running()  # whose start would have it heard again
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        yield
    except OSError as e:
        raise ConfigError(
            f"no process can be started that decodes images: {e}; see to it that /dev/shm is there and has room, and "
            f"that more processes and open files are allowed"
        ) from e
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(parent: int) -> None:
    """In a worker: ends it when the process that started it has ended without a word, as by SIGKILL."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
