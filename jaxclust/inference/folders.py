"""A folder for each cluster, with links to its images or copies of them.

Names come from people and archives, so each is made harmless first. No file that is there is written to. What is made
is listed beforehand (`manifest`), and of what is listed

- links are made anew each time;
- a copy with the bytes of an image at hand is moved to where that belongs now, or removed if it belongs nowhere;
- any other copy stays where it is, since it may be the only one.
"""

import contextlib
import functools
import logging
import os
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jaxclust.data import decode
from jaxclust.data.new_images import Images
from jaxclust.inference import manifest, names, originals
from jaxclust.inference.manifest import Made
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import FULL, making

logger = logging.getLogger(__name__)

PART = ".jaxclust.part"
SHOWN = 3  # images that could not be copied, at most, that are named


class Place(NamedTuple):
    folder: str
    name: str  # as the image is called


def make(
    into: Path, images: Images, origin: Path, found: Iterable[tuple[int, int]], groups: Mapping[int, str], copy: bool
) -> tuple[int, int]:
    """Makes the folders anew.

    Args:
      into: where; made if it is not there.
      images: what was sorted.
      origin: where they are from.
      found: (row, cluster).
      groups: number -> name, of the clusters.
      copy: whether to copy files. What is no file of its own, in an archive or an array, is written in any case.

    Returns:
      the numbers of links and of files that are there of these images.

    Raises:
      ConfigError: they cannot be made there, or some images could not be read; all others are there then.
    """
    try:
        with contextlib.ExitStack() as held:
            held.enter_context(making(into))
            held.callback(_clear, into)
            _clear(into)
            made, links = manifest.read(into), not copy and isinstance(images.item(0), str)
            _check_apart(into, made, images)
            if links:
                _check_links(into)
            for path in made.links:
                (into / path).unlink()
            folders = _folders(into, groups)
            places = {row: Place(folders[group], _called(images, row)) for row, group in found}
            reused = _reused(into, made, images, places)
            plan = _plan(into, places, reused)
            linked = {row: path for row, path in plan.items() if links and row not in reused}
            manifest.write(
                into, linked.values(), (*made.copies, *(path for row, path in plan.items() if row not in linked))
            )
            lost = _fill(into, images, origin, plan, reused, linked)
            for folder in {path.parent for path in (*made.links, *made.copies)}:
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(into / folder)
    except OSError as e:
        if e.errno in FULL:
            raise
        raise ConfigError(
            f"the folders cannot be made in {into}: {e.strerror or e}{f' ({e.filename})' if e.filename else ''}; "
            f"give another folder"
        ) from e
    _tell(into, made, plan, reused)
    if lost:
        shown = "".join(f"\n  {images.name(row)!r}: {reason}" for row, reason in lost[:SHOWN])
        raise ConfigError(
            f"{len(lost):,} of {len(plan):,} images could not be copied to {into}, all others are there; give the same "
            f"command again when they can be read; the first are:{shown}"
        )
    return len(linked), len(plan) - len(linked)


def _check_apart(into: Path, made: Made, images: Images) -> None:
    """Refuses to sort what an earlier command has made into the same place: it would be moved while it is read."""
    real = functools.cache(os.path.realpath)
    listed = {(real(into / path.parent), path.name) for path in (*made.links, *made.copies)}
    for row in range(images.listing.count) if listed and isinstance(images.item(0), str) else ():
        folder, name = os.path.split(os.path.abspath(images.item(row)))
        if (real(folder), name) in listed:
            raise ConfigError(
                f"{images.name(row)!r} is among the images, and was made in {into} by an earlier command; give another "
                f"folder"
            )


def _part(into: Path) -> Path:
    """Where a copy is until it is whole, which is nowhere that another command has one."""
    return into / f"{PART}.{secrets.token_hex(4)}"


def _clear(into: Path) -> None:
    """Takes away what was left half copied."""
    for part in into.glob(f"{PART}*"):
        with contextlib.suppress(OSError):
            part.unlink()


def _check_links(into: Path) -> None:
    """Refuses to go on where no link can be made, though a file can."""
    part = _part(into)
    try:
        os.symlink("nowhere", part)
    except OSError as e:
        if e.errno in FULL:
            raise
        part.open("xb").close()
        raise ConfigError(
            f"{into} is on a file system without links ({e.strerror}), as memory cards and some shares have; "
            f"ask for copies of the files (--copy)"
        ) from e
    part.unlink()


def _folders(into: Path, groups: Mapping[int, str]) -> dict[int, str]:
    """The name of each cluster's folder, which is not there yet or is really a folder."""
    width = len(str(max(groups)))
    with os.scandir(into) as entries:
        taken = {names.folded(entry.name) for entry in entries if not entry.is_dir(follow_symlinks=False)}
    return {number: names.free(f"{number:0{width}d} {name}", taken) for number, name in groups.items()}


def _called(images: Images, row: int) -> str:
    name = PurePosixPath(images.name(row)).name
    return name if images.listing.names else f"{name}.png"


def _reused(into: Path, made: Made, images: Images, places: Mapping[int, Place]) -> dict[int, Path]:
    """The copies that hold the bytes of images that want a place; what holds those of other images at hand goes."""
    reused: dict[int, Path] = {}
    for rows, paths in originals.alike(into, made.copies, images):
        wanting, here = [row for row in rows if row in places], defaultdict(list)
        for path in paths:
            here[Place(str(path.parent), names.unnumbered(path.name))].append(path)
        for row in wanting:
            if fit := here[_unnumbered(places[row])]:
                reused[row] = fit.pop()
        left = [path for others in here.values() for path in others]
        for row in wanting:
            if row not in reused and left:
                reused[row] = left.pop()
        for path in left:
            with contextlib.suppress(OSError, decode.Unusable):
                if originals.are_same(images.item(rows[0]), into / path):  # still
                    (into / path).unlink()
    return reused


def _unnumbered(place: Place) -> Place:
    return place._replace(name=names.unnumbered(place.name))


def _is_at(path: Path, place: Place) -> bool:
    """Whether something is where it may be for this place."""
    return Place(str(path.parent), names.unnumbered(path.name)) == _unnumbered(place)


def _plan(into: Path, places: Mapping[int, Place], reused: Mapping[int, Path]) -> dict[int, Path]:
    """The path below `into` of each row: where its copy is, if it can stay there, or one that is free."""
    taken: dict[str, set[str]] = {}
    for folder in {place.folder for place in places.values()}:
        there = os.listdir(into / folder) if (into / folder).is_dir() else []
        taken[folder] = {names.folded(name) for name in there}
    return {
        row: reused[row]
        if row in reused and _is_at(reused[row], place)
        else Path(place.folder, names.free(place.name, taken[place.folder]))
        for row, place in places.items()
    }


def _fill(
    into: Path,
    images: Images,
    origin: Path,
    plan: Mapping[int, Path],
    reused: Mapping[int, Path],
    linked: Collection[int],
) -> list[tuple[int, str]]:
    """Makes what is planned; the rows that cannot be read, and why."""
    since, lost = origin.stat().st_mtime_ns, []
    for folder in sorted({path.parent for path in plan.values()}):
        (into / folder).mkdir(exist_ok=True)
    for row, path in plan.items():
        if row in linked:
            os.symlink(os.path.abspath(images.item(row)), into / path)
        elif reused.get(row) != path:
            try:
                ready = reused.get(row) or originals.write(images.item(row), _part(into), since)
            except decode.Unusable as e:
                lost.append((row, str(e)))
                continue
            if os.path.lexists(into / path):
                raise FileExistsError(None, "a file has just been made there", str(path))
            os.rename(into / ready, into / path)
    return lost


def _tell(into: Path, made: Made, plan: Mapping[int, Path], reused: Mapping[int, Path]) -> None:
    others = made.copies.keys() - reused.values()
    stay = sum(os.path.lexists(into / path) for path in others - set(plan.values()))
    if stay:
        logger.info("earlier copies that are not of these images stay in %s: %d", into, stay)
