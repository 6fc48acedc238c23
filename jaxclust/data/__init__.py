"""Data sources: each split becomes uint8 images of one size, decoded once and cached on disk.

digits     scikit-learn's, in memory
folder     a user's images: `folder` (a folder, tar or zip), `arrays` (npy, npz), `lists` (of files)
originals  the user's files themselves, to be shown
the rest   `records`: array_record files of tensorflow_datasets, or of `--mode=prepare`
cache      decoded images, made by `workers` that `decode`
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclust.data import arrays, cache, folder, lists, new_images, records
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import expanded
from jaxclust.run.schema import option

RESIDENT = ("auto", "always", "never")
SHOWN = 10  # unusable files in an error


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str  # "digits", "folder", or the name of a tfds data set
    splits: Mapping[str, Any]  # name -> split; "train" is trained on and evaluated, a method may use others
    labels: (
        str  # for scores only: a feature's, npz array's or CSV column's name, "folders" for class folders; "" is none
    )
    size: int = option(at_least=1)  # side of the network's input, pixels; views resize to it
    # Side at which images are kept, pixels; 0 keeps images of one size, and decodes others to `size`.
    stored: int = option(0, at_least=0)
    dir: str = ""  # the folder or archive; of tfds data "" means $TFDS_DATA_DIR, or tfds's own default
    # Images on the device: "auto" (when they fit), "always", or "never" (streamed).
    resident: str = option("auto", choices=RESIDENT)
    max_bad: float = option(0.0, at_least=0, at_most=1)  # share of images that may be unusable

    def __post_init__(self):
        if "train" not in self.splits:
            raise ConfigError("data.splits has no split called train, the one to cluster")


class Source(NamedTuple):
    images: np.ndarray  # u8[N, H, W, C], memory-mapped where it comes from the cache
    labels: np.ndarray | None  # i32[N]; only `evaluate` and `probe` read them
    names: list[str] | None = None  # the file of each image
    skipped: tuple[tuple[str, str], ...] = ()  # (file, reason) of what is not among the images
    classes: tuple[str, ...] = ()  # names of the labels, where they have any
    plain: tuple[str, ...] = ()  # the files, or rows, of those that came out in a single colour
    listing: cache.Listing | None = None  # where they were found, encoded

    def fingerprint(self) -> dict[str, Any]:
        """What a run that goes on must find again: the number of images, and their names where they have any."""
        return {"images": len(self.images), "names": self.names and digest_of(self.names)}

    def closing_gaps(self) -> "Source":
        """In the order that they had while every file counted as an image: the last ones took the places of those that
        are none. Runs of that time have their rows in it."""
        if not self.names or not self.skipped:
            return self
        none = [name for name, why in self.skipped if not name.endswith("/") and not why.startswith("a link to")]
        every, rows = sorted([*self.names, *none]), {name: row for row, name in enumerate(self.names)}
        count = len(rows)
        last = iter([name for name in every[count:] if name in rows])
        order = [rows[name if name in rows else next(last)] for name in every[:count]]
        labels = None if self.labels is None else self.labels[order]
        return self._replace(images=self.images[order], labels=labels, names=[self.names[row] for row in order])

    def of_names(self, names: Sequence[str]) -> tuple["Source", int, int]:
        """The images of these names, in this order; how many of them are gone, and how many others there are.

        What is gone is grey. Where something is, there are no labels.
        """
        rows = {name: row for row, name in enumerate(self.names or ())}
        found = [rows.get(name, -1) for name in names]
        gone = found.count(-1)
        images = self.images[found]
        images[[row < 0 for row in found]] = 128
        labels = None if self.labels is None or gone else self.labels[found]
        plain = tuple(name for name in self.plain if name in set(names))
        source = self._replace(images=images, labels=labels, names=[*names], plain=plain)
        return source, gone, len(rows) - (len(names) - gone)

    def about(self) -> dict[str, Any]:
        """What a run keeps of its images: the fingerprint, and (H, W, C), which new images are brought to."""
        return self.fingerprint() | {"shape": [*self.images.shape[1:]]}


def digest_of(names: Sequence[str]) -> str:
    """By which the names of a run's images are known again."""
    return hashlib.sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()


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
    path = expanded(s.dir)
    if not path.exists():
        raise ConfigError(
            f"there is no folder, archive, array or list of images at {path}; give --config.data.dir=PHOTOS"
        )
    if path.suffix.lower() in arrays.SUFFIXES and not path.is_dir():
        images, labels, classes = arrays.read(path, s.labels)
        if images.dtype == np.uint8 and (not s.stored or images.shape[1:3] == (s.stored, s.stored)):
            return Source(images, labels, classes=classes)
        return cached(s, arrays.listing(path, images, labels, s.stored or None))._replace(classes=classes)
    if lists.is_list(path):
        return _listed(s, path)
    if s.labels not in ("", "folders"):
        raise ConfigError(f"data.labels is {s.labels!r}; for {path} it is 'folders' (class folders) or '' (no labels)")
    source = cached(s, folder.listing(path, s.stored or s.size))
    if not s.labels:
        return source
    labels, classes = folder.labels(source.names)
    return source._replace(labels=np.array(labels, np.int32), classes=classes)


def _listed(s: Settings, path: Path) -> Source:
    """The files of a list, and their labels where it has a column of them."""
    side, listed = s.stored or s.size, lists.read(path, s.labels)
    source = cached(s, new_images.of_files(listed.files, (side, side, 3), s.size, listed.names).listing)
    if listed.labels is None:
        return source
    classes = sorted(set(listed.labels))
    number = {name: i for i, name in enumerate(classes)}
    label = {name: number[of] for name, of in zip(listed.names, listed.labels, strict=True)}
    return source._replace(labels=np.array([label[name] for name in source.names], np.int32), classes=tuple(classes))


def _only_all(s: Settings, split: str) -> None:
    if split != "all":
        raise ConfigError(f"data.splits has {split!r}, but {s.name} has a single split, 'all'")


def cached(s: Settings, listing: cache.Listing) -> Source:
    """Decodes what the cache does not have, and sees to it that not too much is unusable."""
    entry = cache.entry(listing)
    # Of the entry's list only these are of its making: what lies beside the images may have changed since.
    bad = entry.skipped[len(entry.skipped) - (listing.count - len(entry.images)) :]
    shown = "".join(f"\n  {name!r}: {reason}" for name, reason in bad[:SHOWN])
    if not len(entry.images):
        raise ConfigError(f"none of {listing.count:,} images can be used; the first are:{shown}")
    if len(bad) > s.max_bad * listing.count:
        raise ConfigError(
            f"{len(bad):,} of {listing.count:,} images cannot be used, more than data.max_bad={s.max_bad:g} allows; "
            f"mend or move them, or allow more; all are listed in {entry.skipped_csv}, the first are:{shown}"
        )
    plain = tuple(entry.names[row] if entry.names else f"record {row}" for row in entry.plain)
    return Source(entry.images, entry.labels, entry.names, (*listing.aside, *bad), plain=plain, listing=listing)
