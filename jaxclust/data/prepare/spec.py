"""What a data set is to `prepare`: where its files are found, what is in them, and how much of it there must be."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from jaxclust.data.prepare import images
from jaxclust.data.prepare.archives import File
from jaxclust.run.errors import ConfigError


class Split(NamedTuple):
    place: str  # the file or folder that it was found in, for messages
    images: Sequence[Any]  # of u8[H, W, C], or of encoded images as Files; both may stay on disk
    columns: Mapping[str, Sequence[Any]]  # the other features: a value for each image
    keys: Sequence[int | str]  # what tfds hashes to order the records


@dataclasses.dataclass(frozen=True)
class Spec:
    """A data set.

    Attributes:
      name: as tfds has it.
      counts: for each split and label feature, how many images each class has.
      sizes: how many images each split has.
      shape: height and width of an image, pixels; None where they differ.
      mean: what is published as the mean of the training split's pixels, by channel, in 0..1; None where nothing is.
      tolerance: how far from it the mean may be.
      names: for each label feature the names of the classes, where tfds's builder reads them from the data.
      titles: the names of the classes for people, where the data has others; else empty.
      urls: where the files are; empty where they cannot be had without an account.
      wants: what `--from` must have, as the end of a sentence.
      find: `(spec, origin, scratch)` -> finds, `{base name: file}` each, to be tried in turn.
      parse: `(spec, find)` -> `{split: Split}`.
    """

    name: str
    counts: Mapping[str, Mapping[str, tuple[int, ...]]]
    sizes: Mapping[str, int]
    shape: tuple[int, int] | None
    mean: tuple[float, ...] | None
    tolerance: float
    names: Mapping[str, tuple[str, ...]]
    titles: tuple[str, ...]
    urls: tuple[str, ...]
    wants: str
    find: Callable[["Spec", Path, Path | None], list[dict[str, File]]]
    parse: Callable[["Spec", dict[str, File]], dict[str, Split]]

    def open(self, origin: Path, scratch: Path | None) -> dict[str, Split]:
        """Finds the data set's files and checks what is in them.

        Args:
          origin: a folder, which is searched with all that is in it, or a file.
          scratch: a folder for temporary files; None is the system's.

        Raises:
          ConfigError: a file is missing or damaged, or the content is not what the data set has.
        """
        error = None
        for files in self.find(self, origin, scratch):  # MNIST and Fashion-MNIST name their files alike
            try:
                splits = self.parse(self, files)
                for name, split in splits.items():
                    self._check(name, split)
                return splits
            except ConfigError as e:
                error = error or e
        raise error

    def _check(self, name: str, split: Split) -> None:
        again = f"get the files of {self.name} again, or give --from=PATH to them"
        n = len(split.images)
        if n != self.sizes[name]:
            raise ConfigError(
                f"{split.place} has {n:,} images, where {self.name}'s {name} split has {self.sizes[name]:,}; {again}"
            )
        for feature, counts in self.counts[name].items():
            labels = np.asarray(split.columns[feature])
            if len(labels) != n:
                raise ConfigError(f"{split.place} has {n:,} images and {len(labels):,} labels; {again}")
            found = np.bincount(labels[labels >= 0], minlength=len(counts))
            if found.tolist() != list(counts):
                k = next(k for k, f in enumerate(found) if k >= len(counts) or f != counts[k])
                raise ConfigError(
                    f"{split.place} has {found[k]:,} images of class {k} ({feature}), where {self.name}'s {name} split "
                    f"has {counts[k] if k < len(counts) else 0:,}; {again}"
                )
        if name != "train":
            return
        mean = self._mean(split.images)
        if self.mean and np.abs(mean - self.mean).max() > self.tolerance:
            found, published = (", ".join(f"{m:.4f}" for m in ms) for ms in (mean, self.mean))
            raise ConfigError(
                f"the pixels of {split.place} have the mean {found}, where {self.name}'s train split has {published}, "
                f"so these are other images; {again}"
            )

    def _mean(self, pictures: Sequence[Any]) -> np.ndarray:
        """f64[C]; files are decoded for it, which finds the damaged ones."""
        if not isinstance(pictures[0], File):
            return np.mean(pictures, (0, 1, 2)) / 255
        bar = tqdm(pictures, f"checking {self.name}", unit=" images", leave=False, disable=None)
        return np.mean([images.check(file, self.shape) for file in bar], 0)
