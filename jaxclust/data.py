"""Data sources: each reads a split as uint8 images of one size, decoded once and cached on disk.

A source is a function `(settings, split) -> Source`. The digits ship with scikit-learn; everything else is read
from array_record files that tensorflow_datasets prepared, without importing TensorFlow.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclust.config import ConfigError, hint

RESIDENT = ("auto", "always", "never")
TFDS = ("cifar10", "cifar100", "fashion_mnist", "mnist", "stl10")


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str  # "digits", or the name of a tfds data set
    splits: Mapping[str, Any]  # name -> split; "train" is trained on and evaluated, a method may use others
    label: str  # the feature that holds the labels, used for scores only; "" reads none
    size: int  # side of the network's input, pixels; views resize to it
    dir: str  # where tfds data is; "" means $TFDS_DATA_DIR, or tfds's own default
    resident: str  # images on the device: "auto" (when they fit), "always", or "never" (streamed)

    def __post_init__(self):
        if self.size < 1:
            raise ConfigError(f"data.size is {self.size}; it must be at least 1 pixel")
        if self.resident not in RESIDENT:
            raise ConfigError(f"data.resident is {self.resident!r}; choose one of {', '.join(RESIDENT)}")
        if "train" not in self.splits:
            raise ConfigError("data.splits has no split called train, the one to cluster")


class Source(NamedTuple):
    images: np.ndarray  # u8[N, H, W, C], memory-mapped where it comes from the cache
    labels: np.ndarray | None  # i32[N]; only `evaluate` reads them


def load(s: Settings) -> dict[str, Source]:
    """Reads every split of `data.splits`.

    Raises:
      ConfigError: the data set is unknown, not prepared, or has no such split or label.
    """
    read = _digits if s.name == "digits" else _tfds
    return {name: read(s, split) for name, split in s.splits.items()}


def cache_dir() -> Path:
    """Where decoded images and compiled programs are kept: $JAXCLUST_CACHE, or the user's cache folder."""
    if os.environ.get("JAXCLUST_CACHE"):
        return Path(os.environ["JAXCLUST_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxclust"


def _digits(s: Settings, split: str) -> Source:
    """The 1,797 handwritten digits of scikit-learn (UCI optdigits, test part), 8 x 8, sixteen grey levels."""
    if split != "all":
        raise ConfigError(f"data.splits has {split!r}, but the digits have a single split, 'all'")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    return Source(images, digits.target.astype(np.int32) if s.label else None)


def _tfds(s: Settings, split: str) -> Source:
    import tensorflow_datasets as tfds  # slow to import, and the digits do without

    if s.name not in TFDS:
        raise ConfigError(f"there is no data set {s.name!r}{hint(s.name, (*TFDS, 'digits'))}")
    folder = Path(s.dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR).expanduser()
    prepare = (
        f'prepare it with: pip install "jaxclust[prepare]" && python -c "import tensorflow_datasets as tfds; '
        f"tfds.data_source('{s.name}', data_dir='{folder}')\""
    )
    if not (folder / s.name).is_dir():
        raise ConfigError(
            f"the data set {s.name} is not in {folder}; set data.dir or TFDS_DATA_DIR to where it is, or {prepare}"
        )
    try:
        builder = tfds.builder(s.name, data_dir=str(folder), file_format="array_record")
        records = builder.as_data_source(split)
    except ValueError as e:
        raise ConfigError(f"the split {split!r} of {s.name} cannot be read: {e}") from e
    except Exception as e:  # a broken or half-prepared folder raises a different class for each way to break
        raise ConfigError(f"the data set {s.name} in {folder} is not prepared as array_record; {prepare}") from e
    if s.label and s.label not in builder.info.features:
        raise ConfigError(f"{s.name} has no feature {s.label!r}{hint(s.label, builder.info.features)}")
    return _cached(_fingerprint(s, split, Path(builder.data_path)), records, s.label)


def _fingerprint(s: Settings, split: str, folder: Path) -> str:
    """A name for the decoded split that changes when its files or what is read of them change."""
    files = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.iterdir()) if f.is_file()]
    content = json.dumps([str(folder), files, split, s.label]).encode()
    return f"{s.name}-{hashlib.sha256(content).hexdigest()[:16]}"


def _cached(name: str, records: Any, label: str) -> Source:
    """Decodes `records` into `name` in the cache, unless a run did so before, and maps it into memory.

    The folder is renamed into place when it is whole, so that a killed run leaves no half of one, and the last
    of two runs that decode at once throws its copy away. Where the cache cannot be written (read-only, full),
    the images are decoded into memory.
    """
    final = cache_dir() / name
    if not final.is_dir():
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=final.parent))
        except OSError as e:
            warnings.warn(f"the cache {final.parent} cannot be written ({e}); decoding into memory", stacklevel=2)
            return _decode(records, label, None)
        try:
            _decode(records, label, partial)
            os.rename(partial, final)
        except OSError as e:
            shutil.rmtree(partial, ignore_errors=True)
            if not final.is_dir():
                warnings.warn(f"the cache {final} cannot be written ({e}); decoding into memory", stacklevel=2)
                return _decode(records, label, None)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    labels = final / "labels.npy"
    return Source(np.load(final / "images.npy", mmap_mode="r"), np.load(labels) if labels.exists() else None)


def _decode(records: Any, label: str, folder: Path | None) -> Source:
    n, shape = len(records), records[0]["image"].shape
    if folder:
        images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(n, *shape))
    else:
        images = np.empty((n, *shape), np.uint8)
    labels = np.empty(n, np.int32)

    def decode(start: int) -> None:
        rows = range(start, min(start + 1000, n))
        for row, record in zip(rows, records.__getitems__(rows)):
            images[row] = record["image"]
            if label:
                labels[row] = record[label]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, range(0, n, 1000)))
    if folder:
        images.flush()
        if label:
            np.save(folder / "labels.npy", labels)
    return Source(images, labels if label else None)
