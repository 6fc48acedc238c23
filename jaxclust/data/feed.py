"""From a source to batches on the devices, in an order that is a function of the seed and the epoch.

A data set that fits lies on every device whole, and a step gathers its batch by row: nothing but row numbers
crosses from the host. A larger one is streamed through grain, each process reading its own part of each batch.
"""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from jaxclust.run import sharding
from jaxclust.run.preemption import Due, Preempted, never
from jaxclust.types import Array, PyTree


class Chunk(NamedTuple):
    """A batch as it reaches a compiled function: `pool[rows]` are the images, or `pool` when rows is None."""

    ids: Array  # i32[B]
    pool: Array  # u8[N, H, W, C] on every device, or u8[B, H, W, C] over the devices
    rows: Array | None  # i32[B]

    @property
    def images(self) -> Array:  # u8[B, H, W, C]
        return self.pool if self.rows is None else self.pool[self.rows]


def epoch_order(seed: int, epoch: int, part: int, n: int, batch_size: int) -> np.ndarray:
    """The rows of each step of one pass: every row at most once, the short last batch left out.

    Args:
      seed: the run's seed.
      epoch: the epoch's number.
      part: the number of the pass within the epoch.
      n: rows in the split.
      batch_size: rows in a batch, over all devices.

    Returns:
      i32[n // batch_size, batch_size]. A different batch is left out each epoch.
    """
    order = np.random.Generator(np.random.Philox([seed, epoch, part])).permutation(n).astype(np.int32)
    return order[: n // batch_size * batch_size].reshape(-1, batch_size)


class Feed:
    """A split of images, ready to be drawn from by row."""

    def __init__(self, images: np.ndarray, mesh: Mesh, resident: str):
        self.images, self.mesh = images, mesh
        keep = resident == "always" or (resident == "auto" and images.nbytes <= _room(mesh))
        self.pool = sharding.put(np.ascontiguousarray(images), sharding.replicated(mesh)) if keep else None

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: np.ndarray) -> Iterator[Chunk]:
        """The batches whose rows are `order`, i32[steps, B]; B must be a multiple of the number of devices."""
        over = sharding.batched(self.mesh)
        if self.pool is not None:
            for rows in order:
                ids = sharding.put(rows, over)
                yield Chunk(ids, self.pool, ids)
            return
        mine = _local_rows(self.mesh, order.shape[1])
        reader = (
            grain.MapDataset.source(order)
            .map(lambda rows: _read(self.images, rows[mine]))
            .to_iter_dataset(grain.ReadOptions(num_threads=os.cpu_count() or 1, prefetch_buffer_size=8))
        )
        for rows, images in zip(order, reader):
            yield Chunk(sharding.put(rows, over), sharding.put_local(images, over), None)

    def sweep(
        self, fn: Callable[[Chunk], PyTree], batch_size: int, due: Due = never, rows: np.ndarray | None = None
    ) -> PyTree:
        """Applies `fn` to every image once, in row order.

        Args:
          fn: Chunk -> a pytree of arrays [B, ...] that every process can read whole.
          batch_size: images at a time; rounded up to a multiple of the number of devices.
          due: asked after every batch.
          rows: i32[n], the images to see instead of all.

        Returns:
          The same pytree of host arrays [N, ...].

        Raises:
          Preempted: it was due to stop.
        """
        rows = np.arange(len(self), dtype=np.int32) if rows is None else rows
        n, devices = len(rows), self.mesh.size
        batch_size = -(-min(batch_size, n) // devices) * devices
        # The last batch is filled up with the first rows again, and they are cut off below.
        order = np.resize(rows, (-(-n // batch_size), batch_size))
        whole: PyTree = None
        for begin, chunk in zip(range(0, n, batch_size), self.batches(order)):
            part = jax.device_get(fn(chunk))
            if whole is None:  # filled as parts come: with all parts beside it, it would be in memory twice
                whole = jax.tree.map(lambda a: np.empty((n, *a.shape[1:]), a.dtype), part)
            for rows_of, a in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
                rows_of[begin : begin + batch_size] = a[: n - begin]
            if due():
                raise Preempted
        return whole


def _read(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`images[rows]`; of a mapped file the rows alone are read.

    Through the mapping, what was read would stay in memory for as long as the file is mapped: all of it after an epoch.
    """
    if not (isinstance(images, np.memmap) and images.flags.c_contiguous):
        return images[rows]
    out = np.empty((len(rows), *images.shape[1:]), images.dtype)
    fd = os.open(images.filename, os.O_RDONLY)
    try:
        for row, image in zip(rows, out):
            os.preadv(fd, [image], images.offset + int(row) * image.nbytes)
    finally:
        os.close(fd)
    return out


def _local_rows(mesh: Mesh, batch_size: int) -> slice:
    """The part of a batch that lies on this process's devices."""
    spans = sharding.batched(mesh).addressable_devices_indices_map((batch_size,)).values()
    return slice(min(s[0].start or 0 for s in spans), max(s[0].stop or batch_size for s in spans))


def _room(mesh: Mesh) -> int:
    """Bytes of images that may lie on a device: a quarter of its memory."""
    stats = mesh.local_devices[0].memory_stats() or {}
    memory = stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(
        mesh.local_devices
    )
    return memory // 4
