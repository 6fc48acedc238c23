"""What a person has decided about a run's clusters: names, merges, splits and moves.

Decisions are a list in the order in which they were made, in `decisions.json` beside the run. Nothing is ever decided
in place: clusters as a person wants them, and their members, follow from the network's and the list, so that undoing is
forgetting the last entry, and new images get the same treatment as those that were looked at. In the file a cluster's
number is its `group`, as in version 0.1.

    {"do": "rename", "group": 3, "name": "cats"}
    {"do": "merge", "groups": [3, 5]}                                        5 becomes part of 3
    {"do": "split", "group": 3, "into": [3, 10], "centres": [[...], [...]]}  by the nearest centre in the embedding
    {"do": "move", "images": ["a.jpg", ...], "group": 10}                    by file, or by row where there are no files
    {"do": "new", "images": ["a.jpg", ...], "group": 11, "name": "toys",     a cluster of images that were selected
     "from": [3, 5], "centre": [...], "radius": 0.7, "stay": ["b.jpg", ...]}

The network's clusters are 0..K-1; a cluster that a split or a selection makes gets a number that none had before. Of
the run's own images a new cluster gets those that were selected, and no other. A new image that would come into one of
the clusters that the network had put these in ("from") goes to the new one where its embedding is nearer to their mean
("centre") than `radius`, which best tells the selected images from the others there (`reach`); what is as near and was
not selected is to "stay". Where nothing tells them apart the radius is 0, and no new image goes there. A list belongs
to one checkpoint, since another one's clusters and embedding are others.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxclust.clusters.reach import distances
from jaxclust.run.errors import ConfigError

PARTS = 8  # of a split, at most
LONGEST = 200  # characters of a name
PLACING = ("move", "new")  # what is said of single images
CHUNK = 8192  # images of a run that are carried at a time


class Own(NamedTuple):
    """The network's own cluster of each image of a run."""

    cluster: np.ndarray  # i64[N], the most probable one
    confidence: np.ndarray  # f[N], its probability


def own(q: np.ndarray) -> Own:
    """Those of a soft assignment q f32[N, K], perhaps mapped into memory."""
    # NumPy copies what argmax may not write to, as a file that is mapped: a part of it at a time, here.
    parts = (q[at : at + CHUNK] for at in range(0, len(q), CHUNK))
    cluster = np.concatenate([np.argmax(part, axis=1) for part in parts])
    return Own(cluster, np.take_along_axis(q, cluster[:, None], axis=1)[:, 0])


class Decisions(NamedTuple):
    step: int  # of the checkpoint whose clusters they are about
    clusters: int  # K
    entries: tuple[Mapping[str, Any], ...] = ()

    def groups(self) -> dict[int, str]:
        """The clusters there are, by number, with their names: "" where nobody has given one."""
        names = dict.fromkeys(range(self.clusters), "")
        for entry in self.entries:
            if entry["do"] == "rename":
                names[entry["group"]] = entry["name"]
            elif entry["do"] == "merge":
                for group in entry["groups"][1:]:
                    del names[group]
            elif entry["do"] == "split":
                names |= dict.fromkeys(entry["into"][1:], "")
            elif entry["do"] == "new":
                names[entry["group"]] = entry["name"]
        return names

    def next_group(self) -> int:
        """A number that no cluster has had."""
        made = [group for entry in self.entries if entry["do"] == "split" for group in entry["into"]]
        made += [entry["group"] for entry in self.entries if entry["do"] == "new"]
        return max([self.clusters - 1, *made]) + 1

    def placed(self) -> list[Any]:
        """The images that a person has put where they are, as the entries have them; some perhaps several times."""
        return [image for entry in self.entries if entry["do"] in PLACING for image in entry["images"]]

    def follow(self, members: Any, x: Any, xp: Any = np, keys: Sequence[Any] | None = None) -> Any:
        """Carries an assignment to clusters through all decisions but those that put single images somewhere.

        Args:
          members: f[N, K], each image's share in each cluster; rows of zeros and a one, or probabilities.
          x: f[N, D], the run's first embedding.
          xp: `numpy`, or `jax.numpy` where this is traced.
          keys: the images' files or rows where they may be the run's own, some of which stay where others leave.

        Returns:
          f[N, G], the shares in the clusters, in the order of `groups()`.
        """
        return self._carry(members, self._sides(x, xp, keys), xp)

    def _carry(self, members: Any, sides: list[Any], xp: Any) -> Any:
        """`follow`, where the sides of splits are known."""
        shares = _carried({k: members[:, k] for k in range(self.clusters)}, self.entries, sides)
        return xp.stack([shares[group] for group in self.groups()], axis=1)

    def assign(self, q: Any, x: Any, xp: Any = np, keys: Sequence[Any] | None = None) -> tuple[Any, Any]:
        """The cluster of each image, but for those that were put somewhere, and how sure the network is of it.

        An image stays with the cluster it is most probably in: merging two clusters draws in no image of a third.

        Args:
          q: f32[N, K], soft assignment to clusters.
          x: f32[N, D], the run's first embedding.
          xp: `numpy`, or `jax.numpy` where this is traced.
          keys: as `follow` takes them.

        Returns:
          i[N], places in `groups()`; and f[N], the probability of that cluster.
        """
        sides = self._sides(x, xp, keys)
        certain = xp.eye(self.clusters)[xp.argmax(q, axis=1)]
        place = xp.argmax(self._carry(certain, sides, xp), axis=1)
        # All of the soft assignment lies on this image's side of each of them, so no part of it is lost.
        return place, xp.take_along_axis(self._carry(q, sides, xp), place[:, None], axis=1)[:, 0]

    def members(
        self, q: np.ndarray, x: np.ndarray, keys: Sequence[str] | None, first: Own | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The cluster number of each image of the run, single ones and all, and how sure of it the network is.

        Args:
          q, x, keys, first: as `without_moves` takes them.

        Returns:
          i64[N] and f[N]; 1 for an image that a person has put where it is.
        """
        group, confidence = self.without_moves(q, x, keys, first)
        moves = [(at, entry) for at, entry in enumerate(self.entries) if entry["do"] in PLACING]
        changes = [(at, entry) for at, entry in enumerate(self.entries) if entry["do"] in ("merge", "split")]
        row_of = None if keys is None else rows_of(self.placed(), keys)
        for at, entry in moves:
            moved = entry["images"] if row_of is None else [row_of[key] for key in entry["images"]]
            # A move holds for what becomes of the cluster later, too.
            later = [change for when, change in changes if when > at]
            group[moved] = _become(entry["group"], later, x[moved]) if later else entry["group"]
            confidence[moved] = 1
        return group, confidence

    def without_moves(
        self, q: np.ndarray, x: np.ndarray, keys: Sequence[str] | None, first: Own | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `assign` says of all images of the run, as cluster numbers i64[N], and f[N].

        Most clusters of a large run are as the network made them, and only the others are looked at, a few rows and
        columns of q at a time.

        Args:
          q, x: as `assign` takes them, perhaps mapped into memory.
          keys: the image's files, or None where they have none.
          first: `own(q)`, where that is known.
        """
        first = own(q) if first is None else first
        group, confidence = np.array(first.cluster), np.array(first.confidence)
        for clusters, entries in self._joined():
            rows = np.flatnonzero(np.isin(first.cluster, clusters))
            about = self._replace(entries=entries)
            merged = all(entry["do"] == "merge" for entry in entries)  # wherever the images lie
            for at in range(0, len(rows), CHUNK):
                here = rows[at : at + CHUNK]
                called = [] if merged else [row if keys is None else keys[row] for row in here.tolist()]
                sides = [] if merged else about._sides(x[here], np, called)
                certain = _carried({k: first.cluster[here] == k for k in clusters}, entries, sides)
                shares = _carried(dict(zip(clusters, q[here[:, None], clusters].T)), entries, sides)
                for number, some in certain.items():
                    chosen = some.astype(bool)
                    group[here[chosen]], confidence[here[chosen]] = number, shares[number][chosen]
        return group, confidence

    def _joined(self) -> list[tuple[list[int], tuple[Mapping[str, Any], ...]]]:
        """The network's clusters that decisions tie together, and these decisions; of other clusters there are none."""
        about = [(entry, _concerned(entry)) for entry in self.entries if entry["do"] in ("merge", "split", "new")]
        tied: list[set[int]] = []
        for _, groups in about:
            touched = [others for others in tied if others & groups]
            tied = [others for others in tied if not others & groups] + [groups.union(*touched)]
        return [
            (sorted(k for k in groups if k < self.clusters), tuple(entry for entry, some in about if some <= groups))
            for groups in tied
        ]

    def _sides(self, x: Any, xp: Any, keys: Sequence[Any] | None) -> list[Any]:
        """Which part of each split an image is nearest to, i[N], and whether each new cluster draws it in, bool[N]."""
        sides = []
        for entry in self.entries:
            if entry["do"] == "split":
                sides.append(_nearest(x, entry["centres"], xp))
            elif entry["do"] == "new":
                drawn = distances(x, entry["centre"], xp) < entry["radius"]
                if keys is not None and entry["stay"]:
                    stay = set(entry["stay"])
                    drawn &= [key not in stay for key in keys]
                sides.append(drawn)
        return sides

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
                raise ConfigError(f"there is no cluster {group!r}; there are {', '.join(map(str, groups))}")
            return group

        kind = entry.get("do") if isinstance(entry, Mapping) else None
        if kind == "rename":
            return {"do": kind, "group": known(entry.get("group")), "name": _name(entry.get("name"))}
        if kind == "merge":
            merged = entry.get("groups")
            if not isinstance(merged, list) or len({*map(known, merged)}) != len(merged) or len(merged) < 2:
                raise ConfigError(f"a merge takes two or more different clusters; {merged!r} are not")
            return {"do": kind, "groups": [*merged]}
        if kind == "split":
            group, into = known(entry.get("group")), entry.get("into")
            centres = _numbers(entry.get("centres"))
            parts = len(centres)
            wanted = [group, *range(self.next_group(), self.next_group() + parts - 1)]
            if centres.shape != (parts, width) or not 2 <= parts <= PARTS or not np.isfinite(centres).all():
                raise ConfigError(f"a split takes 2 to {PARTS} centres of {width} numbers; these are {centres.shape}")
            if into != wanted:
                raise ConfigError(f"a split of cluster {group} makes clusters {wanted}, not {into!r}")
            return {"do": kind, "group": group, "into": wanted, "centres": centres.tolist()}
        if kind == "move":
            group = known(entry.get("group"))
            return {"do": kind, "images": _images(entry.get("images"), keys, count), "group": group}
        if kind == "new":
            number, radius, origins = entry.get("group"), entry.get("radius"), entry.get("from")
            if type(number) is not int or number != self.next_group():
                raise ConfigError(f"a new cluster gets the number {self.next_group()}, not {number!r}")
            if not isinstance(origins, list) or not origins or len({*map(known, origins)}) != len(origins):
                raise ConfigError(f"a new cluster is made from one or more different clusters; {origins!r} are not")
            centre = _numbers(entry.get("centre"))
            if centre.shape != (width,) or not np.isfinite(centre).all():
                raise ConfigError(f"a new cluster has a centre of {width} numbers; these are {centre.shape}")
            if not isinstance(radius, int | float) or isinstance(radius, bool) or not 0 <= radius < float("inf"):
                raise ConfigError(f"a new cluster has a radius of 0 or more, not {radius!r}")
            images, name = _images(entry.get("images"), keys, count), _name(entry.get("name"))
            stay = _images(entry.get("stay"), keys, count, least=0)
            about = {"from": [*origins], "centre": centre.tolist(), "radius": float(radius), "stay": stay}
            return {"do": kind, "images": images, "group": number, "name": name, **about}
        raise ConfigError(f"a decision does rename, merge, split, move or new; {kind!r} is none of them")


def _carried(shares: dict[int, Any], entries: Sequence[Mapping[str, Any]], sides: Sequence[Any]) -> dict[int, Any]:
    """Carries the shares [N] in each cluster through decisions about these clusters, whose `sides` are known."""
    of_entries = iter(sides)
    for entry in entries:
        if entry["do"] == "merge":
            first, *rest = entry["groups"]
            for group in rest:
                shares[first] = shares[first] + shares.pop(group)
        elif entry["do"] == "split":
            nearest, whole = next(of_entries), shares.pop(entry["group"])
            for part, group in enumerate(entry["into"]):
                shares[group] = whole * (nearest == part)
        elif entry["do"] == "new":
            drawn = next(of_entries)
            shares[entry["group"]] = sum(shares[group] for group in entry["from"]) * drawn
            for group in entry["from"]:
                shares[group] = shares[group] * ~drawn
    return shares


def _concerned(entry: Mapping[str, Any]) -> set[int]:
    """The clusters that a merge, split or new one is about, those that it makes too."""
    made = {entry["group"]} if entry["do"] == "new" else set()
    return made.union(entry.get("groups", ()), entry.get("into", ()), entry.get("from", ()))


def rows_of(images: Sequence[Any], keys: Sequence[str]) -> dict[str, int]:
    """The rows of some of the files `keys`, without a table of all of them."""
    wanted = set(images)
    found = itertools.compress(range(len(keys)), map(wanted.__contains__, keys)) if wanted else ()
    return {keys[row]: row for row in found}


def _name(name: Any) -> str:
    if not isinstance(name, str) or len(name) > LONGEST:
        raise ConfigError(f"a name is at most {LONGEST} characters; {str(name)[:40]!r} is none")
    return " ".join(name.split())


def _numbers(values: Any) -> np.ndarray:
    """Lists of numbers as an array; an empty one of what is none."""
    try:
        return np.array(values, float)
    except (TypeError, ValueError):
        return np.empty(0)


def _images(images: Any, keys: Sequence[str] | None, count: int, least: int = 1) -> list[Any]:
    """Images of the run, by file, or by row where there are no files."""
    if not isinstance(images, list) or len(images) < least:
        raise ConfigError("a decision about images names none")
    kinds = str if keys is not None else int
    known = [image for image in images if isinstance(image, kinds) and not isinstance(image, bool)]
    there = range(count) if keys is None else rows_of(known, keys)
    for image in images:
        if not isinstance(image, kinds) or isinstance(image, bool) or image not in there:
            raise ConfigError(f"there is no image {image!r} in the run")
    return [*images]


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
