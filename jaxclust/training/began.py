"""The images with which a run began, and what has become of their folder since."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxclust import data
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import read_json
from jaxclust.run.schema import settings
from jaxclust.run.workdir import DATA, files, steps

NEEDS_ALL = ("train", "evaluate", "probe")
logger = logging.getLogger(__name__)


def kept_images(workdir: Path, cfg: ConfigDict) -> dict[str, Any]:
    """What a run keeps of its train split: `images`, their number, `names`, a digest, and `shape`, (H, W, C)."""
    about = _kept_of_splits(workdir).get("train")
    if about is None:
        raise ConfigError(f"{workdir / DATA} is missing or damaged (it knows no split train); restore it")
    if "shape" not in about:  # runs from before the shape was written down have to look at their images
        about["shape"] = data.load(settings(data.Settings, cfg.data, "data"))["train"].images.shape[1:]
    return about


def as_before(workdir: Path, sources: dict[str, data.Source], mode: str) -> tuple[dict[str, data.Source], int]:
    """The images with which the run in `workdir` began, if there is one, in their order; and how many of them are gone.

    Rows of the state belong to rows of the data, so a run goes on with its own images alone. Where some have gone, it
    can still be looked at.
    """
    found, lost = dict(sources), 0
    for split, then in _kept_of_splits(workdir).items() if steps(workdir) else ():
        if not _same(sources[split], then):
            found[split] = sources[split].closing_gaps()
        if _same(found[split], then):
            continue
        names = files(workdir) if then["names"] else None
        if names is None or data.digest_of(names) != then["names"] or sources[split].names is None:
            now = sources[split].fingerprint()
            count = f"{then['images']:,} then, {now['images']:,} now"
            what = count if now["images"] != then["images"] else f"{count}, with other names"
            raise ConfigError(
                f"the images of the split {split} are not those that the run in {workdir} was made with ({what}); "
                f"restore them, or give another --workdir"
            )
        found[split], gone, new = sources[split].of_names(names)
        lost += gone
        _tell_changes(workdir, mode, gone, new, len(names))
    return found, lost


def _tell_changes(workdir: Path, mode: str, gone: int, new: int, count: int) -> None:
    """Says what has become of a run's folder since it began, and what can be done with new files.

    Raises:
      ConfigError: the mode is one that needs every image.
    """
    changes = f"since the run in {workdir} began, {new:,} files have come and {gone:,} of its {count:,} have gone"
    if gone == count:
        raise ConfigError(f"no image of the run in {workdir} is there any more; give --config.data.dir=FOLDER")
    if gone and mode in NEEDS_ALL:
        raise ConfigError(
            f"{changes}, and --mode={mode} needs every one; restore them, or begin another run on what is there: the "
            f"command that began this one, with another --workdir and --config.net.init_from={workdir}, starts with "
            f"what this one has learnt"
        )
    if jax.process_index() == 0:
        more = (
            f"; it goes on with its own. To train on all, begin another run: --config.net.init_from={workdir} lets it "
            f"start with what this one has learnt"
            if mode == "train"
            else "; --mode=predict sorts new ones" * bool(new)
        )
        logger.warning("note: %s%s", changes, more)


def _kept_of_splits(workdir: Path) -> dict[str, Any]:
    """What a run keeps of the images of each split; of none where it keeps nothing yet."""
    path = workdir / DATA
    kept = read_json(path) if path.exists() else {}
    if not all(
        isinstance(about, dict) and {"images", "names"} <= about.keys() and type(about["images"]) is int
        for about in kept.values()
    ):
        raise ConfigError(f"{path} is damaged (it does not say how many images the splits have); restore it")
    return kept


def _same(source: data.Source, then: Mapping[str, Any]) -> bool:
    return all(then[key] == value for key, value in source.fingerprint().items())
