"""Data sets that tensorflow_datasets, or `--mode=prepare`, made into array_record files; read without TensorFlow."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from jaxclust.data.cache import Listing
from jaxclust.data.content import glance
from jaxclust.data.decode import VERSION
from jaxclust.run.errors import ConfigError, hint
from jaxclust.run.files import expanded


def directory(given: str) -> Path:
    """Where prepared data is: `given`, else $TFDS_DATA_DIR, else tensorflow_datasets' own default."""
    return expanded(given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def listing(
    name: str, folder: Path, split: str, label: str, side: int | None, size: int
) -> tuple[Listing, tuple[str, ...]]:
    """The records of one split, and the names of its classes.

    Args:
      name: of the data set.
      folder: where prepared data is.
      split: as tensorflow_datasets writes it, such as "train+test".
      label: the feature that holds the labels, or "".
      side: at which images are stored; None keeps those of one size as they are, and means `size` for others.
      size: of the network's input.

    Raises:
      ConfigError: the data set is unknown, not prepared, or has no such split or label.
    """
    import tensorflow_datasets as tfds  # slow to import, and a user's own images do without

    prepare = "prepare it with the same command and --mode=prepare"
    if not (folder / name).is_dir():
        from jaxclust.data.prepare.sets import SPECS

        if name not in SPECS:
            raise ConfigError(f"there is no data set {name!r}{hint(name, (*SPECS, 'digits', 'folder'))}")
        raise ConfigError(
            f"the data set {name} is not in {folder}; set data.dir or TFDS_DATA_DIR to where it is, or {prepare}"
        )
    try:
        builder = tfds.builder(name, data_dir=str(folder), file_format="array_record")
        records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except ValueError as e:
        raise ConfigError(f"the split {split!r} of {name} cannot be read: {e}") from e
    except Exception as e:  # a broken or half-prepared folder raises a different class for each way to break
        raise ConfigError(f"the data set {name} in {folder} is not prepared as array_record; {prepare}") from e
    if label and label not in builder.info.features:
        raise ConfigError(f"{name} has no feature {label!r}{hint(label, builder.info.features)}")

    shape = builder.info.features["image"].shape
    if side or None in shape:
        shape = (side or size, side or size, shape[-1])

    def read(rows: range) -> tuple[list[bytes], Iterable[int] | None]:
        found = records.__getitems__(rows)
        return [r["image"] for r in found], [int(r[label]) for r in found] if label else None

    classes = tuple(builder.info.features[label].names) if label else ()
    listing = Listing(
        key=f"{name}-{_fingerprint(Path(builder.data_path), split, label, shape)}",
        shape=tuple(shape),
        resize=bool(side) or None in builder.info.features["image"].shape,
        names=None,
        count=len(records),
        read=read,
        aside=[],
    )
    return listing, classes


def _fingerprint(folder: Path, *settings) -> str:
    """Changes when the files, or what is read of them, change."""
    paths = [f for f in sorted(folder.iterdir()) if f.is_file()]
    files = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in paths]
    return hashlib.sha256(json.dumps([VERSION, files, glance(paths), *settings]).encode()).hexdigest()[:16]
