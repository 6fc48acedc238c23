"""The names in a run's folder, and which version wrote it; no other file knows either.

    run.json            the format of the folder, and the version of jaxclust that wrote it
    config.json         the complete config                  data.json         what the run keeps of its images
    environment.json    packages and devices                 skipped.csv       files that are not among the images
    files.csv           the names of the images, in their order, where they have any
    single_colour.csv   images of one colour, if there are any
    images.txt, images.npy   the files, or the images, that an estimator was given
    checkpoints/        the state at some steps              damaged/          checkpoints that could not be read
    metrics.jsonl       what was logged                      tensorboard/      the same, for TensorBoard
    progress.jsonl      looks at the clusters                looks/            their embeddings
    scores.json         of an evaluation                     clusters.csv      the cluster of every image
    predictions/        what is said of every image          decisions.json    what a person decided
    probe.json, suggest_k.json, suggest_k.png, report/, export/, predict/      what the modes of these names write
    sorted/             a folder for each cluster, where the page to work in was asked for them

Formats: 1 is that of jaxclust 0.1, which had no run.json, and kept one optimizer's state bare where `State.opt` now
names several. 2 is today's.
"""

import io
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxclust.run import cells
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import read_json, read_text, write_atomically, write_csv, write_json
from jaxclust.version import __version__

FORMAT = 2

VERSION, LOCK = "run.json", ".lock"
CONFIG, DATA, ENVIRONMENT, SKIPPED = "config.json", "data.json", "environment.json", "skipped.csv"
SINGLE_COLOUR, FILES = "single_colour.csv", "files.csv"
GIVEN_FILES, GIVEN_IMAGES = "images.txt", "images.npy"
CHECKPOINTS, DAMAGED = "checkpoints", "damaged"
METRICS, TENSORBOARD, PROGRESS, LOOKS = "metrics.jsonl", "tensorboard", "progress.jsonl", "looks"
SCORES, CLUSTERS, PREDICTIONS, DECISIONS = "scores.json", "clusters.csv", "predictions", "decisions.json"
PROBE, SUGGEST_K, SUGGEST_K_PICTURE = "probe.json", "suggest_k.json", "suggest_k.png"
REPORT, EXPORT, PREDICT, SORTED = "report", "export", "predict", "sorted"
FOLDERS = (CHECKPOINTS, DAMAGED, TENSORBOARD, LOOKS, PREDICTIONS, REPORT, EXPORT, PREDICT, SORTED)


def begin(folder: Path, config: str, data: Mapping[str, Any], files: Sequence[str] | None) -> None:
    """Writes what makes a folder a run, and keeps what is in it.

    Args:
      folder: of the run, which exists.
      config: the complete config, as JSON.
      data: what is kept of the images of each split.
      files: the names of those of the split train, where they have any.
    """
    if files is not None:
        write_csv(folder / FILES, ("file",), ((name,) for name in files))
    write_json(folder / VERSION, {"format": FORMAT, "jaxclust": __version__})
    write_json(folder / DATA, data)
    write_atomically(folder / CONFIG, config + "\n")  # last, since it is what makes the folder a run


def is_run(folder: Path) -> bool:
    """Whether a run has begun there."""
    return (folder / CONFIG).is_file()


def files(folder: Path) -> list[str] | None:
    """The names that the run's images had when it began; None where it does not know them.

    Runs of before version 0.4 know them from their last evaluation.
    """
    for path in (folder / FILES, folder / CLUSTERS):
        if path.is_file():
            header, *rows = [*cells.read(io.StringIO(read_text(path, "surrogateescape"), newline=""))] or [[]]
            if header[:1] == ["file"] and all(rows):
                return [row[0] for row in rows]
    return None


def steps(folder: Path) -> list[int]:
    """The steps of the run's checkpoints, in order."""
    return sorted(int(path.name) for path in (folder / CHECKPOINTS).glob("[0-9]*") if path.name.isdecimal())


def check_inside(folder: Path) -> None:
    """Refuses a folder, which may be anybody's, with links that would lead what a run writes or removes out of it.

    Files that are written whole need no such care: `files` replaces what lies in their place.

    Raises:
      ConfigError: there is such a link.
    """
    places = (folder.glob(".*"), (folder / name for name in FOLDERS))  # the hidden ones are locks, and folders to be
    inner = ((folder / CHECKPOINTS).rglob("*"), (folder / PREDICT).glob("*"))
    for path in itertools.chain(*places, *inner):
        if path.is_symlink() and not _leads_into(path, folder):
            raise ConfigError(
                f"{path} is a link out of the run's folder, to {os.readlink(path)!r}, and would be written to; move it "
                f"away, or put what it leads to in its place"
            )


def _leads_into(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # in a circle
        return False


def check_readable(folder: Path) -> str:
    """Refuses a folder that this version does not know how to read; one without a version is of format 1.

    Returns:
      the version of jaxclust that wrote it.

    Raises:
      ConfigError: the run is of a newer version, or run.json is damaged.
    """
    path = folder / VERSION
    if not path.exists():
        return "0.1"
    about = read_json(path)
    try:
        written, by = int(about["format"]), str(about["jaxclust"])
    except (ValueError, TypeError, KeyError, OverflowError) as e:
        raise ConfigError(f"{path} is damaged ({type(e).__name__}: {e}); restore it, or give another --workdir") from e
    if written > FORMAT:
        raise ConfigError(
            f"the run in {folder} was written by jaxclust {by} in format {written}, and this is jaxclust "
            f"{__version__}, which reads formats up to {FORMAT}; install jaxclust {by} or later"
        )
    return by
