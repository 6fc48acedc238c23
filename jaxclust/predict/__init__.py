"""Sorting new images into a run's groups: `--mode=predict`.

model      what is read from a run, and the compiled function that is made of it
novelty    whether an image looks like nothing seen in training
images     the user's images as pixels
table      predictions.csv and predictions.parquet
folders    a folder of links or copies for each group
"""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pyarrow.parquet as pq
from jax.experimental import multihost_utils
from tqdm import tqdm

from jaxclust.config import ConfigError, read_json
from jaxclust.data import SHOWN
from jaxclust.files import alone_in, write_csv, write_json
from jaxclust.predict import folders, images, model, table
from jaxclust.predict.images import Chunk, Images
from jaxclust.predict.model import Model, Sorter

ABOUT, SKIPPED, PARTIAL = "about.json", "skipped.csv", ".partial"
PRINTED = 20  # images, at most, whose groups are printed


def run(
    workdir: Path,
    path: Path,
    *,
    step: int | None = None,
    max_bad: float | None = None,
    out: Path | None = None,
    into: Path | None = None,
    copy: bool = False,
    vectors: bool = False,
) -> None:
    """Sorts the images at `path` into the groups of a run, and goes on where a run of the same command was killed.

    Args:
      workdir: of the run.
      path: as `images.find` takes it.
      step: of a checkpoint that is not the newest.
      max_bad: share of the images that may be unusable, if not the run's.
      out: where the tables go; `<workdir>/predict/<name of path>` if None.
      into: where to make a folder for each group, if anywhere.
      copy: whether to copy files there, and not to link to them.
      vectors: whether embeddings are in the Parquet file, too.

    Raises:
      ConfigError: something that the user gave is wrong.
    """
    m = model.read(workdir, step)
    found = images.find(path, m.shape, m.settings["data"]["size"])
    out = out or workdir / "predict" / path.resolve().name
    for flag, folder in (("--out", out), ("--into", into)):
        if folder and path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"{flag} is {folder}, inside the images; they would be among them next time")
    about = {
        "images": table.printable(str(path.resolve())),
        "step": m.step,
        "key": _key(m, found, _is_own(m, path), vectors),
        "novel_below": m.known and m.known.threshold,  # cosine to the nearest training images
    }
    lead = jax.process_index() == 0
    if lead and m.known is None:
        print(
            f"note: the column novel stays empty, as the run has no predictions of step {m.step} to compare with; "
            f"--mode=evaluate --step={m.step} makes them",
            file=sys.stderr,
        )
    with contextlib.ExitStack() as held:
        if lead:
            _check_ours(out, about)
            held.enter_context(alone_in(out / PARTIAL, f"another command is sorting into {out}; waiting for it"))
            _prepare(out, about)
        _together("the folder is ready")
        if not _is_done(out, about):
            blocks = table.Blocks(out / PARTIAL, found, m.decided.groups(), vectors)
            allowed = (m.settings["data"]["max_bad"] if max_bad is None else max_bad) * found.listing.count
            _sort(m, found, _is_own(m, path), blocks, out / PARTIAL, allowed)
            _together("all images are sorted")
            if lead:
                _finish(found, out, about, blocks, allowed)
        if lead:
            shutil.rmtree(out / PARTIAL)
    if lead:
        _tell(out)
        if into:
            links, files = folders.make(into, found, path, _pairs(out, found), m.decided.groups(), copy)
            what = " and ".join(f"{n:,} {word}" for n, word in ((links, "links"), (files, "files")) if n)
            print(f"{what} in {into}", flush=True)


def _sort(m: Model, found: Images, own: bool, blocks: table.Blocks, scratch: Path, allowed: float) -> None:
    """Sorts what no earlier command has sorted."""
    todo, count = blocks.todo(), found.listing.count
    mine = todo[jax.process_index() :: jax.process_count()]
    if not mine:
        return
    sorter, bad = Sorter(m), blocks.skipped()

    def usable(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            blocks.skip(chunk.skipped)
            bad.extend(chunk.skipped)
            bar.update(len(chunk.skipped))
            _check_bad(found, bad, allowed)
            yield chunk

    with tqdm(
        total=count,
        initial=count - sum(map(len, todo)),
        desc="sorting",
        unit=" images",
        disable=not sys.stderr.isatty(),
    ) as bar:
        chunks = usable(images.chunks(found, mine, scratch / f"{jax.process_index()}.u8"))
        for rows, said in sorter.over(images.batches(chunks, sorter.batch_size)):
            if own:
                said = model.moved(m.decided, said, [found.name(i) if found.listing.names else int(i) for i in rows])
            blocks.add(rows, said)
            bar.update(len(rows))


def _check_bad(found: Images, bad: list[tuple[int, str]], allowed: float) -> None:
    """Stops as training does, when too much is unusable."""
    if len(bad) > allowed or len(bad) == found.listing.count:
        shown = "".join(f"\n  {found.name(row)!r}: {reason}" for row, reason in bad[:SHOWN])
        raise ConfigError(
            f"{len(bad):,} of {found.listing.count:,} images cannot be used, more than data.max_bad allows; mend or "
            f"move them, or allow more, for example with --config.data.max_bad=0.5; the first are:{shown}"
        )


def _finish(found: Images, out: Path, about: dict, blocks: table.Blocks, allowed: float) -> None:
    """Puts the tables together."""
    bad = blocks.skipped()
    _check_bad(found, bad, allowed)
    count, novel, sizes = blocks.finish(out)
    write_csv(out / SKIPPED, ("file", "reason"), [*found.listing.aside, *((found.name(i), why) for i, why in bad)])
    groups = {str(group): {"name": name, "images": sizes[group]} for group, name in blocks.groups.items()}
    novel = None if about["novel_below"] is None else novel
    write_json(out / ABOUT, {**about, "sorted": count, "skipped": len(bad), "novel": novel, "groups": groups})


def _tell(out: Path) -> None:
    about = read_json(out / ABOUT)
    used = sum(group["images"] > 0 for group in about["groups"].values())
    said = f"{about['sorted']:,} images in {used} of {len(about['groups'])} groups"
    if about["novel"]:
        said += f"; {about['novel']:,} look like nothing seen in training"
    if about["skipped"]:
        said += f"; {about['skipped']:,} could not be used, {out / SKIPPED} says why"
    print(f"{said}; all in {out / table.CSV} and {table.PARQUET}", flush=True)
    if about["sorted"] <= PRINTED:
        print((out / table.CSV).read_text(), end="", flush=True)


def _pairs(out: Path, found: Images) -> Iterator[tuple[int, int]]:
    """(row, group) of each image in the table, which has them in the order of their rows."""
    row = 0
    with pq.ParquetFile(out / table.PARQUET) as f:
        for batch in f.iter_batches(columns=["file", "cluster"]):
            for file, group in zip(batch["file"].to_pylist(), batch["cluster"].to_pylist()):
                while table.printable(found.name(row)) != file:
                    row += 1
                yield row, group
                row += 1


def _is_own(m: Model, path: Path) -> bool:
    """Whether these are the images that the run was trained on, so that a person may have moved some."""
    section = m.settings["data"]
    return section["name"] == "folder" and Path(section["dir"]).expanduser().resolve() == path.resolve()


def _key(m: Model, found: Images, own: bool, vectors: bool) -> str:
    """Changes with whatever changes a number in the tables, or what is in them."""
    threshold = m.known and m.known.threshold
    content = [found.listing.key, m.step, m.settings, m.decided.entries, threshold, own, vectors, table.BLOCK]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _check_ours(out: Path, about: dict) -> None:
    """Sees to it that nothing of somebody else, or about other images, is written over."""
    there = out / ABOUT
    if there.exists():
        then = read_json(there).get("images")
        if then != about["images"]:
            raise ConfigError(f"{out} is about other images, {then}; give --out=DIR")
        return
    for name in (table.CSV, table.PARQUET, SKIPPED):
        if (out / name).exists():
            raise ConfigError(f"{out / name} is there and was not made by --mode=predict; give another --out")


def _prepare(out: Path, about: dict) -> None:
    """Keeps what an earlier command has done to the same end, and takes away what is of another."""
    then = read_json(out / ABOUT) if (out / ABOUT).exists() else {}
    if then.get("key") == about["key"]:
        return
    for old in (*(out / name for name in (table.CSV, table.PARQUET, SKIPPED)), *(out / PARTIAL).iterdir()):
        old.unlink(missing_ok=True)
    write_json(out / ABOUT, about)


def _is_done(out: Path, about: dict) -> bool:
    then = read_json(out / ABOUT)
    return then["key"] == about["key"] and "sorted" in then and all((out / name).exists() for name in table.TABLES)


def _together(where: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)
