"""What the way from a file to the device costs: decoding, reading, waiting, and memory while doing so."""

import contextlib
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import jax
import numpy as np
from loky import cpu_count
from PIL import Image

from jaxclust.data import cache, folder
from jaxclust.data.feed import Feed, epoch_order
from jaxclust.run import sharding
from jaxclust.training.build import Run
from jaxclust.training.step import make_step

DECODED = 2000  # images in each measurement of decoding
STEPS = 20  # in each measurement of waiting
REPEATS = 3


def decoding(run: Run) -> dict[str, dict]:
    """Images per second and core from files into the cache, beside a plain loop over Pillow on one core."""
    kept, size = np.asarray(run.sources["train"].images[:100]), run.config.data.size
    photo = [_photo(Image.fromarray(x.squeeze()).convert("RGB"), i) for i, x in enumerate(kept)]
    kinds = {
        f"PNG of {kept.shape[2]} x {kept.shape[1]}": (
            [Image.fromarray(x.squeeze()) for x in kept],
            "PNG",
            kept.shape[1],
        ),
        "JPEG of 500 x 375": (photo, "JPEG", size),
    }
    rows = {}
    for name, (images, kind, side) in kinds.items():
        with tempfile.TemporaryDirectory() as home:
            files = [Path(home, "images", f"{i}") for i in range(DECODED)]
            files[0].parent.mkdir()
            for i, path in enumerate(files):
                images[i % len(images)].save(path, kind, **({"quality": 90} if kind == "JPEG" else {}))
            ours, pillow = [], []
            for i in range(REPEATS + 1):  # the first starts the workers
                with _cache_in(Path(home, f"cache {i}")):
                    listing = folder.listing(files[0].parent, side)
                    ours.append(DECODED / _seconds(lambda listing=listing: cache.entry(listing)) / cpu_count())
                pillow.append(DECODED / _seconds(lambda files=files, side=side: [_plain(f, side) for f in files]))
            rows[name] = {
                "bytes_per_image": int(np.mean([path.stat().st_size for path in files])),
                "decoded_to": f"{side} x {side}",
                "images_per_second_and_core": median(ours[1:]),
                "pillow_images_per_second": median(pillow[1:]),
                "over_pillow": median(a / b for a, b in zip(ours[1:], pillow[1:])),
            }
    return rows


def _photo(small: Image.Image, seed: int) -> Image.Image:
    """An image enlarged to the usual size of ImageNet's, with grain, so that it compresses as a photograph does."""
    pixels = np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(seed).normal(0, 8, pixels.shape)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def _plain(path: Path, side: int) -> np.ndarray:
    with Image.open(path) as image:
        image = image.convert("RGB")
        return np.asarray(
            image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)
        )


def feeding(run: Run) -> dict[str, dict]:
    """Batches per second of a resident and of a streamed split, and the share of training that waits for them."""
    name = run.plan.stages[0].todo.tasks[0]
    step = jax.jit(make_step(run.plan.method.tasks[name], run.plan.views, run.plan.optimizers), donate_argnums=0)
    rows = {}
    for resident in ("always", "never"):
        feed = Feed(run.sources["train"].images, run.plan.mesh, resident)
        order = epoch_order(0, 0, 0, len(feed), run.train.batch_size)
        read = _seconds(lambda feed=feed, order=order: [jax.block_until_ready(c) for c in feed.batches(order)])
        state, waited = run.init(), []
        batches = feed.batches(np.resize(order, (STEPS + 1, order.shape[1])))
        for _ in range(STEPS + 1):
            start = time.perf_counter()
            chunk = next(batches)
            ready = time.perf_counter()
            state, metrics = step(state, chunk)
            jax.block_until_ready(metrics)
            waited.append((ready - start, time.perf_counter() - start))
        waiting, total = np.sum(waited[1:], axis=0)  # the first step compiles
        rows[{"always": "resident", "never": "streamed"}[resident]] = {
            "batches_per_second": len(order) / read,
            "images_per_second": order.size / read,
            "share_of_a_step_waiting": waiting / total,
        }
    return rows


def large_folder(count: int, side: int = 64, batch_size: int = 256) -> dict[str, dict]:
    """Decodes and then streams a generated folder of small JPEGs, watching memory.

    Args:
      count: of files.
      side: at which they are kept, pixels.
      batch_size: images read at a time.
    """
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as home, _cache_in(Path(home, "cache")):
        for i in range(count):
            path = Path(home, "images", f"{i // 1000:03d}", f"{i:07d}.jpg")
            if i % 1000 == 0:
                path.parent.mkdir(parents=True)
            pixels = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize(
                (120, 90), Image.Resampling.BICUBIC
            )
            pixels.save(path, quality=85)
        listing = folder.listing(Path(home, "images"), side)
        with _Memory() as decoding:
            seconds = _seconds(lambda: cache.entry(listing))
        entry = cache.entry(listing)
        rows = {
            "decoding": {
                "images": count,
                "images_per_second_and_core": count / seconds / cpu_count(),
                "cache_mib": entry.images.nbytes / 2**20,
                **decoding.row(),
            }
        }
        feed = Feed(entry.images, sharding.make_mesh(), "never")
        order = epoch_order(0, 0, 0, count, batch_size)
        with _Memory() as reading:
            seconds = _seconds(lambda: [jax.block_until_ready(chunk.pool).shape for chunk in feed.batches(order)])
        rows["streaming an epoch"] = {
            "images_per_second": order.size / seconds,
            "images_per_second_and_core": order.size / seconds / cpu_count(),
            **reading.row(),
        }
    return rows


class _Memory:
    """Resident memory of this process and of its children while the context lasts, from Linux's /proc."""

    def __enter__(self) -> "_Memory":
        self._seen, self._over = [], threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            own = os.getpid()
            children = Path(f"/proc/{own}/task/{own}/children").read_text("utf-8").split()
            self._seen.append((_resident(own), max((_resident(int(c)) for c in children), default=0.0)))

    def row(self) -> dict[str, str | float]:
        """Resident MiB at ten moments, evenly spaced, and the largest worker."""
        own = [mib for mib, _ in self._seen]
        moments = np.linspace(0, len(own) - 1, 10).round().astype(int)
        return {
            "resident_mib": " ".join(f"{own[i]:.0f}" for i in moments),
            "largest_worker_mib": max(worker for _, worker in self._seen),
        }


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * resource.getpagesize() / 2**20
    except (FileNotFoundError, ProcessLookupError, IndexError):  # it has just ended
        return 0.0


def _seconds(f) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


@contextlib.contextmanager
def _cache_in(home: Path) -> Iterator[None]:
    before = os.environ.get("JAXCLUST_CACHE")
    os.environ["JAXCLUST_CACHE"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["JAXCLUST_CACHE"]
        else:
            os.environ["JAXCLUST_CACHE"] = before
