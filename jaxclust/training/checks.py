"""What a method, its passes and its images must agree in, told before anything is compiled."""

import logging
import os
from collections.abc import Callable, Mapping

import jax
from ml_collections import ConfigDict

from jaxclust.nets import STEMS
from jaxclust.run.errors import ConfigError, hint
from jaxclust.training import loop
from jaxclust.training.timetable import Stage
from jaxclust.types import Method, PyTree

logger = logging.getLogger(__name__)

TRIES = 100  # sizes of a batch that an advice is looked for among


def used(method: Method) -> set[str]:
    """Names of the views that the method's tasks and refits take."""
    partners = {view for task in method.tasks.values() if task.partners for view in task.partners.views}
    swept = {refit.view for refit in method.refits.values() if refit.embed}
    return {view for task in method.tasks.values() for view in task.views} | partners | swept


def memory(method: Method, memory: PyTree) -> None:
    """Checks the entries of memory that tasks and predictions name."""
    tables = [
        (f"the task {name} takes its partners from", t.partners.table) for name, t in method.tasks.items() if t.partners
    ]
    for said, entry in (*tables, *(("predict is shown", name) for name in method.shown)):
        if entry not in memory:
            raise ConfigError(f"{said} {entry!r}, which is not in the method's memory{hint(entry, memory)}")


def sizes(clusters: int, batch_size: int, examples: Mapping[str, int]) -> None:
    """Checks the clusters and the batch against the images of each split."""
    if clusters > examples["train"]:
        images = "is only 1 image" if examples["train"] == 1 else f"are only {examples['train']} images"
        raise ConfigError(
            f"clusters is {clusters}, but there {images}; give fewer, --config.clusters=K, or more images"
        )
    for split, n in examples.items():
        if batch_size > n:
            raise ConfigError(f"train.batch_size is {batch_size}, but the split {split} has only {n} images")


def filled(clusters: int, batch_size: int) -> None:
    """Says so where a batch cannot show every cluster, which is no error: a method may not compare within a batch."""
    if clusters > batch_size:
        logger.warning(
            "note: clusters is %d and train.batch_size %d, so that no batch can show every cluster, and clusters may "
            "stay empty; a batch of a few images for each cluster is what the papers have",
            clusters,
            batch_size,
        )


def among(devices: int, train_s: loop.Settings, smallest: int, accepts: Callable[[int], bool]) -> None:
    """Checks that a batch is split evenly among the devices that train on it.

    Args:
      devices: how many.
      train_s: the batch, and the parts that it is taken in.
      smallest: images of the smallest split.
      accepts: whether the run may have a batch of that size.
    """
    size, unit = train_s.batch_size, devices * train_s.accumulate
    if size % unit == 0:
        return
    nearest = sorted(range(unit, smallest + 1, unit), key=lambda other: abs(other - size))[:TRIES]
    fits = next(filter(accepts, nearest), None)
    fewer = max(n for n in range(1, devices) if size % (n * train_s.accumulate) == 0)
    advice = f"the nearest that is: {fits}" if fits else f"use {fewer} of them (CUDA_VISIBLE_DEVICES says which)"
    parts = f" times train.accumulate, {train_s.accumulate}" * (train_s.accumulate > 1)
    raise ConfigError(f"train.batch_size is {size}, which is not divisible by the {devices} devices{parts}; {advice}")


def memory_of_first_layer(cfg: ConfigDict, channels: int, devices: int) -> None:
    """Refuses sizes whose first layer alone is more than a device holds; a batch of them would end the process.

    Args:
      cfg: the config.
      channels: of the images.
      devices: among which a batch is split.
    """
    size, width = cfg.data.size, cfg.net.width
    stride = STEMS[cfg.net.stem][1] if cfg.net.stem in STEMS else 1
    images = -(-cfg.train.batch_size // (devices * cfg.train.accumulate))
    need = images * 4 * (size**2 * channels + (size // stride) ** 2 * width)
    if need > (have := _memory()):
        raise ConfigError(
            f"train.batch_size {cfg.train.batch_size:,} at data.size {size:,} and net.width {width:,} needs more than "
            f"{need / 1e9:,.0f} GB a device in the first layer, and there are {have / 1e9:,.0f}; give smaller ones"
        )


def _memory() -> float:
    """Bytes of a device, or of this machine where that is the device."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def separable(method: Method, stages: tuple[Stage, ...], accumulate: int) -> None:
    """Checks that all tasks that are trained may take their batch in parts, where it is."""
    tasks = {task for stage in stages for task in stage.todo.tasks}
    whole = sorted(task for task in tasks if not (method.tasks[task].separable or method.tasks[task].in_parts))
    if accumulate > 1 and whole:
        raise ConfigError(
            f"train.accumulate is {accumulate}, but the loss of the task {whole[0]} compares all images of a batch and "
            f"cannot be taken in parts; set it to 1, and to save memory set net.remat=True, net.dtype=bfloat16 or a "
            f"smaller train.batch_size"
        )
