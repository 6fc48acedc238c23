"""Sorting new images into a run's clusters: `--mode=predict`.

model      what is read from a run, and the compiled function that is made of it
novelty    whether an image looks like nothing seen in training
images     the user's images as pixels
table      predictions.csv and predictions.parquet
folders    a folder of links or copies for each cluster, with names of its own for them (names), a list of what was
           made (manifest), and the bytes of the images (originals)
"""

import contextlib
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pyarrow as pa
import pyarrow.parquet as pq
from jax.experimental import multihost_utils
from tqdm import tqdm

from jaxclust.data import SHOWN, cache, new_images
from jaxclust.data.decode import AGAIN
from jaxclust.data.new_images import Chunk, Images
from jaxclust.inference import folders, model, table
from jaxclust.inference.model import Model, Sorter
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import expanded, is_inside, making, read_json, write_csv, write_json
from jaxclust.run.locks import alone_in
from jaxclust.run.workdir import PREDICT

logger = logging.getLogger(__name__)

ABOUT, SKIPPED, PARTIAL = "about.json", "skipped.csv", ".partial"
PRINTED = 20  # images, at most, whose clusters are printed


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
    """Sorts the images at `path` into the clusters of a run, and goes on where a run of the same command was killed.

    Args:
      workdir: of the run.
      path: as `images.find` takes it.
      step: of a checkpoint that is not the newest.
      max_bad: share of the images that may be unusable, if not the run's.
      out: where the tables go; `<workdir>/predict/<name of path>` if None.
      into: where to make a folder for each cluster, if anywhere.
      copy: whether to copy files there, and not to link to them.
      vectors: whether embeddings are in the Parquet file, too.

    Raises:
      ConfigError: something that the user gave is wrong.
    """
    m = model.read(workdir, step)
    found = new_images.find(path, m.shape, m.settings["data"]["size"])
    out = out or workdir / PREDICT / path.resolve().name
    for flag, folder in (("--out", out), ("--into", into)):
        if folder and path.is_dir() and is_inside(folder, path):
            raise ConfigError(f"{flag} is {folder}, inside the images; they would be among them next time")
    about = {
        "images": table.printable(str(path.resolve())),
        "step": m.step,
        "key": _key(m, found, _is_own(m, path), vectors),
        "novel_below": m.known and m.known.threshold,  # cosine to the nearest training images
    }
    lead = jax.process_index() == 0
    if lead and m.known is None:
        logger.warning(
            "note: the column novel stays empty, as the run has no predictions of step %d to compare with; "
            "--mode=evaluate --step=%d makes them",
            m.step,
            m.step,
        )
    with contextlib.ExitStack() as held:
        if lead:
            _check_ours(out, about)
            if (out / PARTIAL).is_symlink():
                (out / PARTIAL).unlink()
            held.enter_context(making(out))
            held.enter_context(alone_in(out / PARTIAL, f"another command is sorting into {out}; waiting for it"))
            held.callback(_forget, out / PARTIAL)
            _prepare(out, about, found)
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
            logger.info("%s in %s", what, into)


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

    done = count - sum(map(len, todo))
    how = {"desc": "sorting", "unit": " images", "disable": jax.process_index() > 0 or not sys.stderr.isatty()}
    with tqdm(total=done + sum(map(len, mine)), initial=done, **how) as bar:
        chunks = usable(new_images.chunks(found, mine, scratch / f"{jax.process_index()}.u8"))
        for rows, said in sorter.over(new_images.batches(chunks, sorter.batch_size)):
            if own:
                keys = [found.name(i) if found.listing.names else int(i) for i in rows]
                said = model.moved(m.decided, said, m.space, keys)
            blocks.add(rows, said)
            bar.update(len(rows))


def _check_bad(found: Images, bad: list[tuple[int, str]], allowed: float) -> None:
    """Stops as training does, when too much is unusable."""
    count = found.listing.count
    shown = "".join(f"\n  {found.name(row)!r}: {reason}" for row, reason in bad[:SHOWN])
    if count == 1 and bad:
        raise ConfigError(f"the image {found.name(0)!r} cannot be used: {bad[0][1]}")
    if len(bad) == count:
        raise ConfigError(f"none of {count:,} images can be used; the first are:{shown}")
    if len(bad) > allowed:
        raise ConfigError(
            f"{len(bad):,} of {count:,} images cannot be used, more than data.max_bad={allowed / count:g} allows; mend "
            f"or move them, or sort the others with --config.data.max_bad=1; the first are:{shown}"
        )


def _finish(found: Images, out: Path, about: dict, blocks: table.Blocks, allowed: float) -> None:
    """Puts the tables together."""
    bad = blocks.skipped()
    _check_bad(found, bad, allowed)
    write_json(out / ABOUT, about)  # what is replaced now is not what an earlier one was about
    count, novel, sizes = blocks.finish(out)
    write_csv(out / SKIPPED, ("file", "reason"), [*found.listing.aside, *((found.name(i), why) for i, why in bad)])
    clusters = {str(number): {"name": name, "images": sizes[number]} for number, name in blocks.groups.items()}
    novel = None if about["novel_below"] is None else novel
    again = [row for row, why in bad if why.endswith(AGAIN)]
    made = {"sorted": count, "skipped": len(bad), "again": again, "novel": novel, "clusters": clusters}
    write_json(out / ABOUT, about | made)


def _tell(out: Path) -> None:
    about = read_json(out / ABOUT)
    clusters = about.get("clusters", about.get("groups"))  # as version 0.1 called them
    used = sum(cluster["images"] > 0 for cluster in clusters.values())
    said = f"{about['sorted']:,} image{'s' * (about['sorted'] != 1)} in {used} of {len(clusters)} clusters"
    if about["novel"]:
        said += f"; {about['novel']:,} look like nothing seen in training"
    if about["skipped"]:
        said += f"; {about['skipped']:,} could not be used, {out / SKIPPED} says why"
    logger.info("%s; all in %s and %s", said, out / table.CSV, table.PARQUET)
    if about["sorted"] <= PRINTED:
        logger.info("%s", (out / table.CSV).read_bytes().decode().rstrip("\n"))


def _pairs(out: Path, found: Images) -> Iterator[tuple[int, int]]:
    """(row, cluster) of each image in the table, which has them in the order of their rows."""
    row = 0
    with (out / table.PARQUET).open("rb") as content, pq.ParquetFile(content) as f:
        for batch in f.iter_batches(columns=["file", "cluster"]):
            for file, group in zip(batch["file"].to_pylist(), batch["cluster"].to_pylist()):
                while table.printable(found.name(row)) != file:
                    row += 1
                yield row, group
                row += 1


def _is_own(m: Model, path: Path) -> bool:
    """Whether these are the images that the run was trained on, so that a person may have moved some."""
    section = m.settings["data"]
    return section["name"] == "folder" and expanded(section["dir"]).resolve() == path.resolve()


def _key(m: Model, found: Images, own: bool, vectors: bool) -> str:
    """Changes with whatever changes a number in the tables, or what is in them."""
    threshold = m.known and m.known.threshold
    content = [found.listing.key, m.step, m.settings, m.decided.entries, threshold, own, vectors, table.BLOCK]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _check_ours(out: Path, about: dict) -> None:
    """Sees to it that nothing of somebody else, or about other images, is written over."""
    there = out / ABOUT
    if there.exists():
        then = _about(out).get("images")
        if then != about["images"]:
            raise ConfigError(f"{out} is about other images, {then}; give --out=DIR")
        return
    for name in (table.CSV, table.PARQUET, SKIPPED):
        if (out / name).exists():
            raise ConfigError(f"{out / name} is there and was not made by --mode=predict; give another --out")


def _prepare(out: Path, about: dict, found: Images) -> None:
    """Keeps what a command that was broken off has sorted to the same end, and takes away what is of another.

    Tables that are there stay until those that replace them are whole. Images that they lack, for a reason that may
    have passed, are tried again.
    """
    scratch = out / PARTIAL
    for path in scratch.iterdir():
        if path.is_symlink() or not path.is_file():  # none of ours, and a link may lead anywhere
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    then = _about(out)
    begun = _about(scratch) or ({} if "sorted" in then else then)  # versions to 0.4 had it there
    if begun.get("key") != about["key"]:
        for old in scratch.iterdir():
            old.unlink()
        write_json(scratch / ABOUT, about)
    if then.get("key") == about["key"] and cache.any_readable(found.listing, then.get("again", [])):
        write_json(out / ABOUT, about)


def _forget(scratch: Path) -> None:
    """Takes away what a command leaves that has sorted no block of images; one may hold none that can be used."""
    with contextlib.suppress(pa.ArrowException, OSError):  # damaged, and for the next command to judge
        if not any(pq.read_metadata(path).num_rows for path in scratch.glob("[0-9]*.parquet")):
            shutil.rmtree(scratch, ignore_errors=True)


def _about(folder: Path) -> dict:
    return read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}


def _is_done(out: Path, about: dict) -> bool:
    then = _about(out)
    done = then.get("key") == about["key"] and "sorted" in then
    return done and all((out / name).exists() for name in table.TABLES)


def _together(where: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)
