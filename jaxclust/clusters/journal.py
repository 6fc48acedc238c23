"""Decisions on the disk: read, added to and undone, by one process at a time."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxclust.clusters.decisions import Decisions
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import read_json, write_json
from jaxclust.run.locks import lock, open_lock
from jaxclust.run.workdir import DECISIONS

MOST = 1_000_000  # clusters of a network
NEEDED = {
    "rename": {"group", "name"},
    "merge": {"groups"},
    "split": {"group", "into", "centres"},
    "move": {"images", "group"},
    "new": {"images", "group", "name", "from", "centre", "radius", "stay"},
}


class OtherStep(ConfigError):
    """The decisions are about another checkpoint."""


class Changed(Exception):
    """Somebody else has decided something in the meantime."""


def load(workdir: Path, step: int, clusters: int) -> Decisions:
    """What has been decided about the clusters of the run's checkpoint at `step`; nothing, where nobody has.

    Raises:
      OtherStep: they are about another checkpoint.
      ConfigError: the file is damaged.
    """
    path = workdir / DECISIONS
    if not path.exists():
        return Decisions(step, clusters)
    content = read_json(path)
    try:
        then, entries = content["step"], content["entries"]
        if type(content["clusters"]) is not int or not 0 <= content["clusters"] <= MOST:
            raise TypeError(f"{content['clusters']!r:.40} clusters")
        decided = Decisions(then, content["clusters"], tuple(entries))
        for entry in decided.entries:
            if missing := NEEDED[entry["do"]] - entry.keys():
                raise KeyError(min(missing))
        decided.groups()
    except (KeyError, TypeError, AttributeError) as e:
        raise ConfigError(f"{path} is damaged ({type(e).__name__}: {e}); restore it, or move it away") from e
    if entries and (then, decided.clusters) != (step, clusters):
        raise OtherStep(
            f"the decisions in {path} are about the {decided.clusters} clusters of step {then}, not about the "
            f"{clusters} of step {step}; give --step={then}, or move the file away to begin anew"
        )
    return decided if entries else Decisions(step, clusters)


def of_step(workdir: Path, step: int, clusters: int) -> Decisions:
    """As `load`; nothing, where it was about another checkpoint, or cannot be read."""
    try:
        return load(workdir, step, clusters)
    except ConfigError:
        return Decisions(step, clusters)


def decide(workdir: Path, seen: Decisions, entry: Mapping[str, Any] | None) -> Decisions:
    """Adds a checked decision to what its author has seen, or takes back the last one, and saves that.

    Args:
      workdir: of the run.
      seen: the decisions as the author knows them.
      entry: from `Decisions.check`, or None to undo.

    Raises:
      Changed: the file holds other decisions than those; nothing is written.
      ConfigError: there is nothing to undo.
    """
    with _turn(workdir):
        if load(workdir, seen.step, seen.clusters) != seen:
            raise Changed
        if entry is None and not seen.entries:
            raise ConfigError("nothing has been decided, so there is nothing to undo")
        entries = seen.entries[:-1] if entry is None else (*seen.entries, entry)
        new = seen._replace(entries=entries)
        write_json(workdir / DECISIONS, {"step": new.step, "clusters": new.clusters, "entries": [*entries]})
        return new


@contextlib.contextmanager
def _turn(workdir: Path) -> Iterator[None]:
    """One process at a time decides."""
    path = workdir / f".{DECISIONS}.lock"
    with open(open_lock(path), "rb+") as f:
        lock(f.fileno(), path, wait=True)
        yield
