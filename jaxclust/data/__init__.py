"""Data sources: each split becomes uint8 images of one size, decoded once and cached on disk.

digits     scikit-learn's, in memory
folder     a user's images: `folder` (a folder, tar or zip), `arrays` (npy, npz)
the rest   `records`: array_record files of tensorflow_datasets, or of `--mode=prepare`
cache      decoded images, made by `workers` that `decode`
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclust.config import ConfigError
from jaxclust.data import arrays, cache, folder, records

RESIDENT = ("auto", "always", "never")
SHOWN = 10  # unusable files in an error


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str  # "digits", "folder", or the name of a tfds data set
    splits: Mapping[str, Any]  # name -> split; "train" is trained on and evaluated, a method may use others
    labels: (
        str  # for scores only: a feature's name, an npz array's, "folders" for a folder of class folders; "" is none
    )
    size: int  # side of the network's input, pixels; views resize to it
    stored: int  # side at which images are kept, pixels; 0 keeps images of one size, and decodes others to `size`
    dir: str  # the folder or archive; of tfds data "" means $TFDS_DATA_DIR, or tfds's own default
    resident: str  # images on the device: "auto" (when they fit), "always", or "never" (streamed)
    max_bad: float  # share of images that may be unusable

    def __post_init__(self):
        if self.size < 1:
            raise ConfigError(f"data.size is {self.size}; it must be at least 1 pixel")
        if self.stored < 0:
            raise ConfigError(f"data.stored is {self.stored}; it must be 0 or a number of pixels")
        if self.resident not in RESIDENT:
            raise ConfigError(f"data.resident is {self.resident!r}; choose one of {', '.join(RESIDENT)}")
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"data.max_bad is {self.max_bad}; it is a share, from 0 to 1")
        if "train" not in self.splits:
            raise ConfigError("data.splits has no split called train, the one to cluster")


class Source(NamedTuple):
    images: np.ndarray  # u8[N, H, W, C], memory-mapped where it comes from the cache
    labels: np.ndarray | None  # i32[N]; only `evaluate` and `probe` read them
    names: list[str] | None = None  # the file of each image
    skipped: tuple[tuple[str, str], ...] = ()  # (file, reason) of what is not among the images
    classes: tuple[str, ...] = ()  # names of the labels, where they have any

    def fingerprint(self) -> dict[str, Any]:
        """What a run that goes on must find again: the number of images, and their names where they have any."""
        names = self.names and hashlib.sha256("\0".join(self.names).encode(errors="surrogatepass")).hexdigest()
        return {"images": len(self.images), "names": names}

    def about(self) -> dict[str, Any]:
        """What a run keeps of its images: the fingerprint, and (H, W, C), which new images are brought to."""
        return self.fingerprint() | {"shape": [*self.images.shape[1:]]}


def load(s: Settings) -> dict[str, Source]:
    """Reads every split of `data.splits`.

    Raises:
      ConfigError: the data set is unknown, not prepared, or has no such split or labels; or too many of its images
        cannot be used.
    """
    read = {"digits": _digits, "folder": _folder}.get(s.name, _records)
    return {name: read(s, split) for name, split in s.splits.items()}


def _digits(s: Settings, split: str) -> Source:
    """The 1,797 handwritten digits of scikit-learn (UCI optdigits, test part), 8 x 8, sixteen grey levels."""
    _only_all(s, split)
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    labels, classes = (digits.target.astype(np.int32), tuple("0123456789")) if s.labels else (None, ())
    return Source(images, labels, classes=classes)


def _records(s: Settings, split: str) -> Source:
    found, classes = records.listing(s.name, records.directory(s.dir), split, s.labels, s.stored or None, s.size)
    return cached(s, found)._replace(classes=classes)


def _folder(s: Settings, split: str) -> Source:
    """A user's own images; see `folder` and `arrays` for what they may be in."""
    _only_all(s, split)
    if not s.dir:
        raise ConfigError("data.dir is empty; give the folder of your images: --config.data.dir=FOLDER")
    path = Path(s.dir).expanduser()
    if not path.exists():
        raise ConfigError(f"there is no folder, archive or array of images at {path}; set data.dir to yours")
    if path.suffix.lower() in arrays.SUFFIXES and not path.is_dir():
        images, labels = arrays.read(path, s.labels)
        if images.dtype == np.uint8 and (not s.stored or images.shape[1:3] == (s.stored, s.stored)):
            return Source(images, labels)
        return cached(s, arrays.listing(path, images, labels, s.stored or None))
    if s.labels not in ("", "folders"):
        raise ConfigError(f"data.labels is {s.labels!r}; for {path} it is 'folders' (class folders) or '' (no labels)")
    source = cached(s, folder.listing(path, s.stored or s.size))
    if not s.labels:
        return source
    labels, classes = folder.labels(source.names)
    return source._replace(labels=np.array(labels, np.int32), classes=classes)


def _only_all(s: Settings, split: str) -> None:
    if split != "all":
        raise ConfigError(f"data.splits has {split!r}, but {s.name} has a single split, 'all'")


def cached(s: Settings, listing: cache.Listing) -> Source:
    """Decodes what the cache does not have, and sees to it that not too much is unusable."""
    entry = cache.entry(listing)
    bad = entry.skipped[len(listing.aside) :]
    shown = "".join(f"\n  {name!r}: {reason}" for name, reason in bad[:SHOWN])
    if not len(entry.images):
        raise ConfigError(f"none of {listing.count:,} images can be used; the first are:{shown}")
    if len(bad) > s.max_bad * listing.count:
        raise ConfigError(
            f"{len(bad):,} of {listing.count:,} images cannot be used, more than data.max_bad={s.max_bad:g} allows; "
            f"mend or move them, or allow more; all are listed in {entry.skipped_csv}, the first are:{shown}"
        )
    return Source(entry.images, entry.labels, entry.names, tuple(entry.skipped))
