"""What a person has decided about a run's clusters: names, merges, splits and moves.

Decisions are a list in the order in which they were made, in `decisions.json` beside the run. Nothing is ever decided
in place: groups and members follow from the network's clusters and the list, so that undoing is forgetting the last
entry, and new images get the same treatment as those that were looked at.

    {"do": "rename", "group": 3, "name": "cats"}
    {"do": "merge", "groups": [3, 5]}                                        5 becomes part of 3
    {"do": "split", "group": 3, "into": [3, 10], "centres": [[...], [...]]}  by the nearest centre in the embedding
    {"do": "move", "images": ["a.jpg", ...], "group": 10}                    by file, or by row where there are no files

Clusters are groups 0..K-1 at first; a group that a split makes gets a number that no group had before. A list belongs
to one checkpoint, since another one's clusters and embedding are others.
"""

import contextlib
import fcntl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclust.config import ConfigError, read_json
from jaxclust.files import write_json

FILE = "decisions.json"
PARTS = 8  # of a split, at most
LONGEST = 200  # characters of a name


class Changed(Exception):
    """Somebody else has decided something in the meantime."""


class Decisions(NamedTuple):
    step: int  # of the checkpoint whose clusters they are about
    clusters: int  # K
    entries: tuple[Mapping[str, Any], ...] = ()

    def groups(self) -> dict[int, str]:
        """The groups there are, by number, with their names: "" where nobody has given one."""
        names = dict.fromkeys(range(self.clusters), "")
        for entry in self.entries:
            if entry["do"] == "rename":
                names[entry["group"]] = entry["name"]
            elif entry["do"] == "merge":
                for group in entry["groups"][1:]:
                    del names[group]
            elif entry["do"] == "split":
                names |= dict.fromkeys(entry["into"][1:], "")
        return names

    def next_group(self) -> int:
        """A number that no group has had."""
        split = [group for entry in self.entries if entry["do"] == "split" for group in entry["into"]]
        return max([self.clusters - 1, *split]) + 1

    def follow(self, members: Any, x: Any, xp: Any = np) -> Any:
        """Carries an assignment to clusters through merges and splits.

        Args:
          members: f[N, K], each image's share in each cluster; rows of zeros and a one, or probabilities.
          x: f[N, D], the run's first embedding.
          xp: `numpy`, or `jax.numpy` where this is traced.

        Returns:
          f[N, G], the shares in the groups, in the order of `groups()`.
        """
        return self._carry(members, self._sides(x, xp), xp)

    def assign(self, q: Any, x: Any, xp: Any = np) -> tuple[Any, Any]:
        """The group of each image, without regard to moves, and how sure the network is of it.

        An image stays with the cluster it is most probably in: merging two clusters draws in no image of a third.

        Args:
          q: f32[N, K], soft assignment to clusters.
          x: f32[N, D], the run's first embedding.
          xp: `numpy`, or `jax.numpy` where this is traced.

        Returns:
          i[N], places in `groups()`; and f[N], the probability of that group.
        """
        sides = self._sides(x, xp)
        certain = xp.eye(self.clusters)[xp.argmax(q, axis=1)]
        place = xp.argmax(self._carry(certain, sides, xp), axis=1)
        # All of the soft assignment lies on this image's side of each split, so no part of it is lost.
        return place, xp.take_along_axis(self._carry(q, sides, xp), place[:, None], axis=1)[:, 0]

    def members(self, q: np.ndarray, x: np.ndarray, keys: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
        """The group number of each image of the run, moves and all, and how sure of it the network is.

        Args:
          q, x: as `assign` takes them.
          keys: the image's files, or None where they have none.

        Returns:
          i64[N] and f[N]; 1 for an image that a person has put where it is.
        """
        place, confidence = self.assign(q, x)
        group, confidence = np.array([*self.groups()])[place], np.array(confidence)
        moves = [(at, entry) for at, entry in enumerate(self.entries) if entry["do"] == "move"]
        changes = [(at, entry) for at, entry in enumerate(self.entries) if entry["do"] in ("merge", "split")]
        rows = {key: row for row, key in enumerate(keys)} if moves and keys is not None else None
        for at, entry in moves:
            moved = entry["images"] if rows is None else [rows[key] for key in entry["images"]]
            # A move holds for what becomes of the group later, too.
            later = [change for when, change in changes if when > at]
            group[moved] = _become(entry["group"], later, x[moved]) if later else entry["group"]
            confidence[moved] = 1
        return group, confidence

    def _sides(self, x: Any, xp: Any) -> list[Any]:
        """Which part of each split an image is nearest to, i[N] each."""
        return [_nearest(x, entry["centres"], xp) for entry in self.entries if entry["do"] == "split"]

    def _carry(self, members: Any, sides: list[Any], xp: Any) -> Any:
        """`follow`, where the sides of splits are known."""
        shares = {k: members[:, k] for k in range(self.clusters)}
        sides = iter(sides)
        for entry in self.entries:
            if entry["do"] == "merge":
                first, *rest = entry["groups"]
                for group in rest:
                    shares[first] = shares[first] + shares.pop(group)
            elif entry["do"] == "split":
                nearest, whole = next(sides), shares.pop(entry["group"])
                for part, group in enumerate(entry["into"]):
                    shares[group] = whole * (nearest == part)
        return xp.stack([shares[group] for group in self.groups()], axis=1)

    def check(self, entry: Mapping[str, Any], keys: Sequence[str] | None, count: int, width: int) -> Mapping[str, Any]:
        """`entry` as it may be decided next, with nothing else in it.

        Args:
          entry: as a browser or a file has it.
          keys: the image's files, or None where they have none.
          count: N.
          width: D.

        Raises:
          ConfigError: it makes no sense.
        """
        groups = self.groups()

        def known(group: Any) -> int:
            if isinstance(group, bool) or not isinstance(group, int) or group not in groups:
                raise ConfigError(f"there is no group {group!r}; there are {', '.join(map(str, groups))}")
            return group

        kind = entry.get("do") if isinstance(entry, Mapping) else None
        if kind == "rename":
            name = entry.get("name")
            if not isinstance(name, str) or len(name) > LONGEST:
                raise ConfigError(f"a name is at most {LONGEST} characters; {str(name)[:40]!r} is none")
            return {"do": kind, "group": known(entry.get("group")), "name": " ".join(name.split())}
        if kind == "merge":
            merged = entry.get("groups")
            if not isinstance(merged, list) or len({*map(known, merged)}) != len(merged) or len(merged) < 2:
                raise ConfigError(f"a merge takes two or more different groups; {merged!r} are not")
            return {"do": kind, "groups": [*merged]}
        if kind == "split":
            group, into = known(entry.get("group")), entry.get("into")
            try:
                centres = np.array(entry.get("centres"), float)
            except (TypeError, ValueError):
                centres = np.empty(0)
            parts = len(centres)
            wanted = [group, *range(self.next_group(), self.next_group() + parts - 1)]
            if centres.shape != (parts, width) or not 2 <= parts <= PARTS or not np.isfinite(centres).all():
                raise ConfigError(f"a split takes 2 to {PARTS} centres of {width} numbers; these are {centres.shape}")
            if into != wanted:
                raise ConfigError(f"a split of group {group} makes groups {wanted}, not {into!r}")
            return {"do": kind, "group": group, "into": wanted, "centres": centres.tolist()}
        if kind == "move":
            images, group = entry.get("images"), known(entry.get("group"))
            if not isinstance(images, list) or not images:
                raise ConfigError("a move names no images")
            there = set(keys) if keys is not None else range(count)
            kinds = str if keys is not None else int
            for image in images:
                if not isinstance(image, kinds) or isinstance(image, bool) or image not in there:
                    raise ConfigError(f"there is no image {image!r} in the run")
            return {"do": kind, "images": [*images], "group": group}
        raise ConfigError(f"a decision does rename, merge, split or move; {kind!r} is none of them")


def load(workdir: Path, step: int, clusters: int) -> Decisions:
    """What has been decided about the clusters of the run's checkpoint at `step`; nothing, where nobody has.

    Raises:
      ConfigError: the file is damaged, or about another checkpoint.
    """
    path = workdir / FILE
    if not path.exists():
        return Decisions(step, clusters)
    content = read_json(path)
    try:
        then, entries = content["step"], content["entries"]
        decided = Decisions(then, content["clusters"], tuple(entries))
        decided.groups()
    except (KeyError, TypeError, AttributeError) as e:
        raise ConfigError(f"{path} is damaged ({type(e).__name__}: {e}); restore it, or move it away") from e
    if entries and (then, decided.clusters) != (step, clusters):
        raise ConfigError(
            f"the decisions in {path} are about the {decided.clusters} clusters of step {then}, not about the "
            f"{clusters} of step {step}; give --step={then}, or move the file away to begin anew"
        )
    return decided if entries else Decisions(step, clusters)


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
        write_json(workdir / FILE, {"step": new.step, "clusters": new.clusters, "entries": [*entries]})
        return new


@contextlib.contextmanager
def _turn(workdir: Path) -> Iterator[None]:
    """One process at a time decides."""
    with (workdir / f".{FILE}.lock").open("a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _become(group: int, changes: Sequence[Mapping[str, Any]], x: np.ndarray) -> np.ndarray:
    """What merges and splits make of images f[n, D] in `group`, i64[n]."""
    now = np.full(len(x), group)
    for entry in changes:
        if entry["do"] == "merge":
            now[np.isin(now, entry["groups"][1:])] = entry["groups"][0]
        else:
            here = now == entry["group"]
            now[here] = np.array(entry["into"])[_nearest(x[here], entry["centres"], np)]
    return now


def _nearest(x: Any, centres: Sequence[Sequence[float]], xp: Any) -> Any:
    """The nearest of the centres [M, D] to each row of x f[N, D], i[N]."""
    c = xp.asarray(centres, x.dtype)
    return xp.argmin(xp.sum(c * c, axis=1) - x @ (2 * c).T, axis=1)
