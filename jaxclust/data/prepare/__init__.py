"""Prepares a data set as the array_record files that tfds reads, without TensorFlow.

The records are in tfds's own order. They are written to a hidden folder beside the final one, file by file, each
renamed when it is whole; then follow what tfds wants to know about them and a sheet of samples, and the folder gets
its name. So a killed run leaves its whole files to the next one, which ends with the same bytes as an undisturbed one.
"""

import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter
from tensorflow_datasets.core.hashing import Hasher
from tensorflow_datasets.core.utils.shard_utils import get_shard_boundaries
from tqdm import tqdm

from jaxclust.data.prepare import images, sheet
from jaxclust.data.prepare.archives import File
from jaxclust.data.prepare.download import fetch
from jaxclust.data.prepare.sets import SPECS
from jaxclust.data.prepare.spec import Spec, Split
from jaxclust.run.errors import ConfigError, hint
from jaxclust.run.files import FULL, expanded, replacing
from jaxclust.run.locks import alone_in

logger = logging.getLogger(__name__)

# Bytes of images in a file. tfds itself makes fewer and larger ones, and reads any number; a kill costs the work on
# one, of these some ten seconds.
SHARD = 32 << 20


def prepare(name: str, data_dir: Path, origin: Path | None) -> Path:
    """Prepares a data set in `<data_dir>/<name>/<version>`, unless it is, and prints what is there.

    Args:
      name: a data set of `sets.SPECS`.
      data_dir: tfds's data folder; it is made.
      origin: a folder, which is searched with all that is in it, or a file or archive of the data set; None
        downloads it to `<data_dir>/downloads/<name>`.

    Returns:
      The folder.

    Raises:
      ConfigError: the data set is unknown, its files are missing, incomplete, damaged or others', they cannot be
        downloaded, the disk is full, or there is something else in the folder.
    """
    if name not in SPECS:
        raise ConfigError(f"there is no data set {name!r} to prepare{hint(name, SPECS)}")
    spec, builder = SPECS[name], tfds.builder_cls(name)
    data_dir = expanded(data_dir).absolute()
    final = data_dir / name / str(builder.VERSION)
    if _done(final):
        logger.info("%s", f"{name} was prepared before")
        return _report(spec, final)
    if origin is None and not spec.urls:
        raise ConfigError(f"{name} cannot be downloaded without an account; give --from=PATH to {spec.wants}")
    partial = final.with_name(f".{final.name}.partial")
    try:
        with _disk(final.parent), alone_in(partial, f"another process prepares {name}; waiting for it"):
            try:
                if not _done(final):  # not by another process either, while this one waited
                    splits = _open(spec, data_dir / "downloads" / name, origin, partial)
                    _write(spec, builder(data_dir=os.fspath(data_dir), file_format="array_record"), splits, partial)
                    os.rename(partial, final)
                    _sync(final.parent)
            finally:
                with contextlib.suppress(OSError):
                    partial.rmdir()  # where nothing was written
    finally:
        with contextlib.suppress(OSError):
            final.parent.rmdir()
    return _report(spec, final)


def _done(final: Path) -> bool:
    """Whether the data set is in the folder.

    Raises:
      ConfigError: something else is.
    """
    if not final.is_dir() or not any(final.iterdir()):
        return False
    try:
        form = json.loads((final / "dataset_info.json").read_text("utf-8"))["fileFormat"]
    except (OSError, ValueError, KeyError):
        raise ConfigError(f"{final} is no prepared data set; move it away, or give another --config.data.dir") from None
    if form != "array_record":
        raise ConfigError(f"{final} is prepared as {form}, not array_record; give another --config.data.dir")
    return True


def _open(spec: Spec, downloads: Path, origin: Path | None, scratch: Path) -> dict[str, Split]:
    if origin is not None:
        return spec.open(expanded(origin), scratch)
    fetch(spec.urls, downloads, spec.wants)
    try:
        return spec.open(downloads, scratch)
    except ConfigError as e:
        raise ConfigError(f"{e} (this was downloaded: delete {downloads} and run the same command again)") from e


def _write(spec: Spec, builder: tfds.core.DatasetBuilder, splits: dict[str, Split], folder: Path) -> None:
    """Writes everything that the final folder has into `folder`, and what is whole there it keeps."""
    info = builder.info
    for feature, names in spec.names.items():
        info.features[feature].names = list(names)
    infos, files = [], {"samples.png"}
    for name, split in splits.items():
        order = _order(name, split.keys)
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=spec.name, split=name, filetype_suffix="array_record"
        )
        ends = get_shard_boundaries(len(order), _shards(split))
        lengths = np.diff([0, *ends]).tolist()
        size = 0
        with tqdm(total=len(order), desc=f"{spec.name} {name}", unit=" images", disable=None) as bar:
            for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
                path = Path(template.sharded_filepath(shard_index=i, num_shards=len(ends)))
                files.add(path.name)
                if path.exists():
                    bar.update(length)
                else:
                    _write_shard(path, info.features, split, order[end - length : end], bar)
                size += _size(path, length)
        infos.append(tfds.core.SplitInfo(name=name, shard_lengths=lengths, num_bytes=size, filename_template=template))
    info.set_splits(tfds.core.splits.SplitDict(infos))
    for path in folder.iterdir():  # of a kill, or of a version that made other files
        if path.name not in files:
            path.unlink()
    info.write_to_directory(folder)
    _samples(spec, splits["train"], _order("train", splits["train"].keys), info).save(folder / "samples.png")
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _order(split: str, keys: Sequence[int | str]) -> np.ndarray:
    """i64[N], the rows in tfds's order of the split's records: by the hash of their keys."""
    hasher = Hasher(split)
    hashes = [hasher.hash_key(key) for key in keys]
    return np.array(sorted(range(len(hashes)), key=hashes.__getitem__))


def _shards(split: Split) -> int:
    is_file = isinstance(split.images[0], File)
    size = sum(file.size for file in split.images) if is_file else split.images.nbytes
    return min(len(split.images), -(-size // SHARD))


def _write_shard(path: Path, features: Any, split: Split, rows: np.ndarray, bar: tqdm) -> None:
    serializer = ExampleSerializer(features.get_serialized_info())

    def records() -> Iterator[tuple[int, bytes]]:
        for row in rows:
            example = {name: column[row] for name, column in split.columns.items()}
            example["image"] = images.encode(split.images[row])
            proto = serializer.get_tf_example(features.encode_example(example))
            # Otherwise the order of the features in a record would be another in each process.
            yield row, proto.SerializeToString(deterministic=True)
            bar.update()

    try:
        with replacing(path) as partial:
            ArrayRecordFileAdapter.write_examples(partial, records())
    except RuntimeError as e:  # array_record's for all that goes wrong
        number = next((n for n in FULL if os.strerror(n) in str(e)), errno.EIO)
        raise OSError(number, str(e).split(";")[0], os.fspath(path)) from e


def _size(path: Path, length: int) -> int:
    """The bytes of a file's records, which are read for it, in a new file as in one that was kept."""
    damage = f"{path} is damaged; delete it and run the same command again"
    try:
        records = ArrayRecordReader(os.fspath(path)).read_all()
    except RuntimeError as e:
        raise ConfigError(damage) from e
    if len(records) != length:
        raise ConfigError(damage)
    return sum(map(len, records))


def _samples(spec: Spec, split: Split, order: np.ndarray, info: tfds.core.DatasetInfo) -> Image.Image:
    """The contact sheet: of each class the images that come first."""
    names = spec.titles or info.features["label"].names
    side, each = (64, 10) if len(names) <= 20 else (32, 6)
    labels = np.asarray(split.columns["label"])[order]
    rows = [[split.images[row] for row in order[labels == k][:each]] for k in range(len(names))]
    pictures = [[images.thumbnail(image, side) for image in row] for row in rows]
    title = f"{len(order):,} training images, the first {each} of each of {len(names)} classes"
    return sheet.draw(spec.name, title, [name.replace("_", " ") for name in names], pictures)


def _report(spec: Spec, folder: Path) -> Path:
    splits = json.loads((folder / "dataset_info.json").read_text("utf-8"))["splits"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    logger.info("%s", f"{spec.name} is in {folder}, {size / 1e6:,.1f} MB")
    for split in splits:
        n, counts = sum(map(int, split["shardLengths"])), spec.counts.get(split["name"], {})
        classes = " and ".join(f"{len(c)} classes ({feature})" for feature, c in counts.items()) or "no classes"
        logger.info(
            "%s", f"  {split['name']:<12}{n:>8,} images, {classes}, {int(split['numBytes']) / 1e6:,.1f} MB of records"
        )
    if (folder / "samples.png").exists():
        logger.info("%s", f"  samples     {folder / 'samples.png'}")
    return folder


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Says in one sentence what the disk refused."""
    try:
        yield
    except OSError as e:
        if e.errno in FULL:
            raise ConfigError(
                f"the disk of {folder} is full; make room and run the same command again, to go on where it stopped"
            ) from e
        raise ConfigError(f"{folder.name} cannot be prepared in {folder}: {e}") from e


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
