"""Queries on a run: its clusters as they are decided now, their images in an order, and what is like what."""

import functools
import hashlib
import json
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxclust.clusters import journal, reach
from jaxclust.clusters.decisions import PARTS, Decisions, Own, own, rows_of
from jaxclust.clusters.typical import typical
from jaxclust.data.originals import Originals
from jaxclust.ops import metrics
from jaxclust.run.errors import ConfigError
from jaxclust.run.workdir import DECISIONS

ORDERS = ("typical", "uncertain", "file")
TYPICAL = 12  # images that stand for a cluster
COVERS = 4096  # clusters, as they are or were, whose typical images are kept
NEIGHBOURS = 24
CHUNK = 8192  # rows whose lengths are measured at a time
FITTED = 2_000  # members that a split's k-means sees, at most; all of them are then divided
REMEMBERED = 64  # versions of the decisions that a window may have seen
DIVIDED = 8  # memberships kept: undoing, and deciding what was previewed, cost nothing


class Members(NamedTuple):
    group: np.ndarray  # i64[N], the number of each image's cluster
    confidence: np.ndarray  # f32[N], how sure the network is of it; 1 for an image placed by hand
    placed: np.ndarray  # bool[N], placed by hand
    rows: Mapping[int, np.ndarray]  # number of a cluster -> i64[n], its images, ascending


class Now(NamedTuple):
    version: str  # names the list of decisions
    decided: Decisions
    names: Mapping[int, str]  # of the clusters; "" where nobody has given one
    members: Members


class Library:
    """A run at one checkpoint, and what is decided about it in `workdir`, by whomever."""

    def __init__(
        self,
        workdir: Path,
        step: int,
        images: np.ndarray,
        files: list[str] | None,
        originals: Originals | None,
        q: np.ndarray,
        x: np.ndarray,
    ):
        """Holds on to what it is given and reads none of it yet.

        Args:
          workdir: of the run; decisions are kept in it.
          step: of the checkpoint.
          images: u8[N, H, W, C], perhaps mapped into memory.
          files: of each image, or None.
          originals: these files; None where the images were none of the user's.
          q: f32[N, K], soft assignment to the network's clusters.
          x: f32[N, D], the run's first embedding.
        """
        self.workdir, self.step, self.images, self.files, self.originals = workdir, step, images, files, originals
        self.q, self.x = q, x
        self._lock = threading.RLock()
        self._read: tuple[Any, Now] | None = None  # the file's stamp, and what it said
        self._versions: OrderedDict[str, Decisions] = OrderedDict()
        self._members: OrderedDict[str, Members] = OrderedDict()
        self._covers: OrderedDict[str, tuple[float, list[int]]] = OrderedDict()
        self._own: Own | None = None
        self._listed = threading.Event()

    def now(self) -> Now:
        """The clusters as they are, read again where the file has changed.

        Raises:
          ConfigError: the file is damaged, or about another checkpoint.
        """
        with self._lock:
            stamp = _stamp(self.workdir / DECISIONS)
            if self._read is None or self._read[0] != stamp:
                self._read = stamp, self._see(journal.load(self.workdir, self.step, self.q.shape[1]))
            return self._read[1]

    def decide(self, seen: Now, entry: Mapping[str, Any] | None) -> Now:
        """Saves a decision, or takes back the last one (None).

        Args:
          seen: what whoever decides has seen.
          entry: as `request` makes it.

        Raises:
          Changed: the decisions are others by now.
          ConfigError: the decision makes no sense.
        """
        if entry is not None:
            entry = seen.decided.check(entry, self.files, len(self.images), self.x.shape[1])
        journal.decide(self.workdir, seen.decided, entry)
        return self.now()

    def request(self, now: Now, asked: Any) -> Mapping[str, Any]:
        """What a window asks for, as a decision: images are named by file, and a split's centres are worked out.

        Raises:
          ConfigError: it makes no sense.
        """
        if not isinstance(asked, Mapping):
            raise ConfigError(f"a decision is an object, not {str(asked)[:40]}")
        kind = asked.get("do")
        if kind == "split":
            return self.split(now, asked.get("group"), asked.get("parts"))
        if kind == "move":
            return {"do": kind, "images": self._called(self._rows(asked)), "group": asked.get("group")}
        if kind == "new":
            return self.new(now, self._rows(asked), asked.get("name"))
        return asked

    def _rows(self, asked: Mapping[str, Any]) -> list[int]:
        rows, count = asked.get("rows"), len(self.images)
        if not isinstance(rows, list) or not rows or not all(type(row) is int and 0 <= row < count for row in rows):
            raise ConfigError(f"one or more rows from 0 to {count - 1:,} are moved; {str(rows)[:80]} are not")
        return sorted(set(rows))

    def _called(self, rows: list[int]) -> list[Any]:
        return rows if self.files is None else [self.files[row] for row in rows]

    def new(self, now: Now, rows: list[int], name: Any) -> dict[str, Any]:
        """The decision that makes a cluster of some images, and says which new images are like them.

        Args:
          now: the clusters that they are taken from.
          rows: of the images, at least one.
          name: of the cluster, or "".
        """
        group, _ = now.decided.without_moves(self.q, self.x, self.files, self._own)
        here = np.flatnonzero(np.isin(group, group[rows]))
        centre, radius, near = reach.reach(self.x[here], np.isin(here, rows))
        return {
            "do": "new",
            "images": self._called(rows),
            "group": now.decided.next_group(),
            "name": name,
            "from": [number for number in now.names if number in group[rows]],
            "centre": centre.tolist(),
            "radius": radius,
            "stay": self._called(here[near].tolist()),
        }

    def rows(self, now: Now, group: int, order: str) -> np.ndarray:
        """The images of a cluster, i64[n]; what is equal keeps the order of the run.

        "typical" begins with those that the network is surest of, and ends with those placed by hand.
        """
        rows = now.members.rows[group]
        confidence = now.members.confidence[rows]
        if order == "typical":
            return rows[np.lexsort((-confidence, now.members.placed[rows]))]
        if order == "uncertain":
            return rows[np.argsort(confidence, kind="stable")]
        return rows

    def groups(self, now: Now) -> list[dict[str, Any]]:
        """Of each cluster its number, name, size, mean confidence (None where it is empty) and typical images."""
        found = []
        for group, name in now.names.items():
            size = len(now.members.rows[group])
            sure, cover = self._cover(now, group) if size else (None, [])
            found.append({"group": group, "name": name, "size": size, "confidence": sure, "typical": cover})
        self._listed.set()
        return found

    def _cover(self, now: Now, group: int) -> tuple[float, list[int]]:
        """Mean confidence and typical images of a cluster that has some; those placed by hand only fill up."""
        of, members = now.members.rows[group], now.members
        key = hashlib.sha256(of.tobytes() + members.confidence[of].tobytes() + members.placed[of].tobytes()).hexdigest()
        with self._lock:
            found = self._covers.get(key)
        if found is None:
            rows = self.rows(now, group, "typical")
            first = len(rows) - int(members.placed[rows].sum())
            chosen = typical(self.x, np.sort(rows[:first]), TYPICAL, len(now.names))
            found = float(members.confidence[rows].mean()), [*chosen.tolist(), *rows[first:].tolist()][:TYPICAL]
        with self._lock:
            _keep(self._covers, key, found, COVERS)
        return found

    def split(self, now: Now, group: Any, parts: Any) -> dict[str, Any]:
        """The decision that divides a cluster by k-means of its embeddings; the largest part keeps its number.

        Raises:
          ConfigError: there is no such cluster, or it has no such parts.
        """
        if type(group) is not int or group not in now.names:
            raise ConfigError(f"there is no cluster {str(group)[:40]}")
        if type(parts) is not int or not 2 <= parts <= PARTS:
            raise ConfigError(f"a split makes 2 to {PARTS} parts, not {str(parts)[:40]}")
        from sklearn.cluster import KMeans  # these are slow to import, and looking needs none of them
        from threadpoolctl import threadpool_limits

        rows = now.members.rows[group]
        if len(rows) > FITTED:
            rows = np.sort(np.random.default_rng(0).choice(rows, FITTED, replace=False))
        if len(rows) < parts:
            raise ConfigError(f"{len(rows)} images cannot make {parts} clusters")
        # Where other work keeps the cores busy, threads that wait for each other take ten times as long as one.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too few different points, which is told below
            fitted = KMeans(parts, n_init=3, max_iter=50, random_state=0).fit(self.x[rows])
        sizes = np.bincount(fitted.labels_, minlength=parts)
        if not sizes.all():
            raise ConfigError(f"the images of this cluster do not differ enough to make {parts} clusters")
        largest_first = np.argsort(-sizes, kind="stable")
        new = now.decided.next_group()
        into = [group, *range(new, new + parts - 1)]
        return {"do": "split", "group": group, "into": into, "centres": fitted.cluster_centers_[largest_first].tolist()}

    def preview(self, now: Now, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The parts that a split would make: as `groups` describes them."""
        then = self._see(now.decided._replace(entries=(*now.decided.entries, entry)))
        return [about for about in self.groups(then) if about["group"] in entry["into"]]

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        """Of the embeddings, f32[N]."""
        parts = (self.x[at : at + CHUNK] for at in range(0, len(self.x), CHUNK))
        lengths = np.concatenate([np.linalg.norm(part, axis=1) for part in parts])
        return np.maximum(lengths, np.finfo(np.float32).tiny)

    def prepare(self) -> None:
        """Does what the first search and the first split would wait for, once the clusters have been listed."""
        self._listed.wait()
        self._lengths  # noqa: B018
        import sklearn.cluster  # noqa: F401

    def nearest(self, v: np.ndarray, but: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The images most like an embedding v f32[D], nearest first.

        Args:
          v: of an image.
          but: a row to leave out.

        Returns:
          i64[n] rows, and f32[n] the cosines of the angles between.
        """
        v = np.asarray(v, np.float32)
        cosine = (self.x @ v) / (self._lengths * max(float(np.linalg.norm(v)), np.finfo(np.float32).tiny))
        if but is not None:
            cosine[but] = -np.inf
        count = min(NEIGHBOURS, len(cosine) - (but is not None))
        rows = np.argpartition(-cosine, max(count - 1, 0))[:count]
        rows = rows[np.lexsort((rows, -cosine[rows]))]
        return rows, cosine[rows]

    def remembered(self, version: str) -> Decisions | None:
        """The decisions that a window has seen, where that was not too long ago."""
        return self._versions.get(version)

    def _see(self, decided: Decisions) -> Now:
        version = _digest(decided.entries)
        with self._lock:
            _keep(self._versions, version, decided, REMEMBERED)
            key = _digest([entry for entry in decided.entries if entry["do"] != "rename"])
            members = self._members.get(key) or self._follow(decided)
            _keep(self._members, key, members, DIVIDED)
        return Now(version, decided, decided.groups(), members)

    def _follow(self, decided: Decisions) -> Members:
        try:
            self._own = own(self.q) if self._own is None else self._own
            group, confidence = decided.members(self.q, self.x, self.files, self._own)
            moved = decided.placed()
        except (KeyError, IndexError, TypeError, ValueError) as e:
            raise ConfigError(
                f"{self.workdir / DECISIONS} does not fit this run ({type(e).__name__}: {e}); move it away"
            ) from e
        placed = np.zeros(len(self.images), bool)
        if self.files is None:
            placed[np.array(moved, int)] = True
        elif moved:
            placed[[*rows_of(moved, self.files).values()]] = True
        numbers = np.array(sorted(decided.groups()))
        rows = dict(zip(numbers.tolist(), metrics.members(np.searchsorted(numbers, group), len(numbers))))
        return Members(group, confidence.astype(np.float32), placed, rows)


def _digest(entries: Any) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


def _keep(kept: OrderedDict, key: str, value: Any, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes with the file, which is only ever replaced."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
