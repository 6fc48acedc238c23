"""Decoding in worker processes, on all cores, in a way that no image can stop.

A damaged image may kill its decoder, and with it all that the pool was doing. Those chunks are decoded again, image
by image, until it is known which one it was.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from loky import cpu_count, get_reusable_executor

from jaxclust.data.decode import Item, write_rows

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
    chunks, waiting = iter(chunks), {}
    try:
        while True:
            pool = get_reusable_executor(cpu_count())  # a new one where the last has broken
            try:
                for start, items in islice(chunks, 3 * cpu_count() - len(waiting)):
                    waiting[start] = items, None  # known before it is handed over, in case the pool breaks here
                    waiting[start] = items, pool.submit(write_rows, out, start, items, shape, resize)
                if not waiting:
                    return
                done, _ = wait([future for _, future in waiting.values()], return_when=FIRST_COMPLETED)
                for start in [start for start, (_, future) in waiting.items() if future in done]:
                    skipped = waiting[start][1].result()
                    del waiting[start]
                    yield start, skipped
            except BrokenProcessPool:
                for start in list(waiting):
                    items, _ = waiting.pop(start)
                    yield start, _one_by_one(out, start, items, shape, resize)
    except BaseException:
        pool.shutdown(wait=False, kill_workers=True)  # nobody waits for what they still do
        raise


def _one_by_one(out: str, first: int, items: list[Item], shape: tuple[int, int, int], resize: bool) -> Skipped:
    skipped = []
    for row, item in enumerate(items, first):
        try:
            skipped += get_reusable_executor(cpu_count()).submit(write_rows, out, row, [item], shape, resize).result()
        except BrokenProcessPool:
            skipped.append((row, "damaged: its decoder crashed"))
    return skipped
