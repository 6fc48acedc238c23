"""Queries on a run: its groups as they are decided now, their images in an order, and what is like what."""

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

from jaxclust import decisions
from jaxclust.config import ConfigError
from jaxclust.decisions import PARTS, Decisions

ORDERS = ("typical", "uncertain", "file")
TYPICAL = 12  # images that stand for a group
NEIGHBOURS = 24
FITTED = 10_000  # members that a split's k-means sees, at most; all of them are then divided
REMEMBERED = 64  # versions of the decisions that a window may have seen
DIVIDED = 8  # memberships kept: undoing, and deciding what was previewed, cost nothing


class Members(NamedTuple):
    group: np.ndarray  # i64[N], the number of each image's group
    confidence: np.ndarray  # f32[N], how sure the network is of it; 1 for an image placed by hand
    placed: np.ndarray  # bool[N], placed by hand


class Now(NamedTuple):
    version: str  # names the list of decisions
    decided: Decisions
    names: Mapping[int, str]  # of the groups; "" where nobody has given one
    members: Members


class Library:
    """A run at one checkpoint, and what is decided about it in `workdir`, by whomever."""

    def __init__(
        self,
        workdir: Path,
        step: int,
        images: np.ndarray,
        files: list[str] | None,
        root: Path | None,
        q: np.ndarray,
        x: np.ndarray,
    ):
        """Holds on to what it is given and reads none of it yet.

        Args:
          workdir: of the run; decisions are kept in it.
          step: of the checkpoint.
          images: u8[N, H, W, C], perhaps mapped into memory.
          files: of each image, relative to `root`, or None.
          root: the folder that the files lie in; None where the data is no folder.
          q: f32[N, K], soft assignment to the network's clusters.
          x: f32[N, D], the run's first embedding.
        """
        self.workdir, self.step, self.images, self.files, self.root = workdir, step, images, files, root
        self.q, self.x = q, x
        self._lock = threading.RLock()
        self._read: tuple[Any, Now] | None = None  # the file's stamp, and what it said
        self._versions: OrderedDict[str, Decisions] = OrderedDict()
        self._members: OrderedDict[str, Members] = OrderedDict()
        self._lengths: np.ndarray | None = None

    def now(self) -> Now:
        """The groups as they are, read again where the file has changed.

        Raises:
          ConfigError: the file is damaged, or about another checkpoint.
        """
        with self._lock:
            stamp = _stamp(self.workdir / decisions.FILE)
            if self._read is None or self._read[0] != stamp:
                self._read = stamp, self._see(decisions.load(self.workdir, self.step, self.q.shape[1]))
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
        decisions.decide(self.workdir, seen.decided, entry)
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
            rows = asked.get("rows")
            if not isinstance(rows, list) or not all(type(row) is int and 0 <= row < len(self.images) for row in rows):
                raise ConfigError(f"a move takes rows from 0 to {len(self.images) - 1:,}; {str(rows)[:80]} are not")
            rows = sorted(set(rows))
            images = rows if self.files is None else [self.files[row] for row in rows]
            return {"do": kind, "images": images, "group": asked.get("group")}
        return asked

    def rows(self, now: Now, group: int, order: str) -> np.ndarray:
        """The images of a group, i64[n]; what is equal keeps the order of the run.

        "typical" begins with those that the network is surest of, and ends with those placed by hand.
        """
        rows = np.flatnonzero(now.members.group == group)
        confidence = now.members.confidence[rows]
        if order == "typical":
            return rows[np.lexsort((-confidence, now.members.placed[rows]))]
        if order == "uncertain":
            return rows[np.argsort(confidence, kind="stable")]
        return rows

    def groups(self, now: Now) -> list[dict[str, Any]]:
        """Of each group its number, name, size, mean confidence (None where it is empty) and typical images."""
        found = []
        for group, name in now.names.items():
            rows = self.rows(now, group, "typical")
            sure = float(now.members.confidence[rows].mean()) if len(rows) else None
            typical = rows[:TYPICAL].tolist()
            found.append({"group": group, "name": name, "size": len(rows), "confidence": sure, "typical": typical})
        return found

    def split(self, now: Now, group: Any, parts: Any) -> dict[str, Any]:
        """The decision that divides a group by k-means of its embeddings; the largest part keeps its number.

        Raises:
          ConfigError: there is no such group, or it has no such parts.
        """
        if type(group) is not int or group not in now.names:
            raise ConfigError(f"there is no group {str(group)[:40]}")
        if type(parts) is not int or not 2 <= parts <= PARTS:
            raise ConfigError(f"a split makes 2 to {PARTS} parts, not {str(parts)[:40]}")
        from sklearn.cluster import KMeans  # these are slow to import, and looking needs none of them
        from threadpoolctl import threadpool_limits

        rows = np.flatnonzero(now.members.group == group)
        if len(rows) > FITTED:
            rows = np.sort(np.random.default_rng(0).choice(rows, FITTED, replace=False))
        if len(rows) < parts:
            raise ConfigError(f"{len(rows)} images cannot make {parts} groups")
        # Where other work keeps the cores busy, threads that wait for each other take ten times as long as one.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too few different points, which is told below
            fitted = KMeans(parts, n_init=3, max_iter=50, random_state=0).fit(self.x[rows])
        sizes = np.bincount(fitted.labels_, minlength=parts)
        if not sizes.all():
            raise ConfigError(f"the images of this group do not differ enough to make {parts} groups")
        largest_first = np.argsort(-sizes, kind="stable")
        new = now.decided.next_group()
        into = [group, *range(new, new + parts - 1)]
        return {"do": "split", "group": group, "into": into, "centres": fitted.cluster_centers_[largest_first].tolist()}

    def preview(self, now: Now, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The parts that a split would make: as `groups` describes them."""
        then = self._see(now.decided._replace(entries=(*now.decided.entries, entry)))
        return [about for about in self.groups(then) if about["group"] in entry["into"]]

    def nearest(self, v: np.ndarray, but: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The images most like an embedding v f32[D], nearest first.

        Args:
          v: of an image.
          but: a row to leave out.

        Returns:
          i64[n] rows, and f32[n] the cosines of the angles between.
        """
        if self._lengths is None:
            self._lengths = np.maximum(np.linalg.norm(self.x, axis=1), np.finfo(np.float32).tiny)
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
            group, confidence = decided.members(self.q, self.x, self.files)
            moved = [image for entry in decided.entries if entry["do"] == "move" for image in entry["images"]]
        except (KeyError, IndexError, TypeError, ValueError) as e:
            raise ConfigError(
                f"{self.workdir / decisions.FILE} does not fit this run ({type(e).__name__}: {e}); move it away"
            ) from e
        placed = np.zeros(len(self.images), bool)
        if self.files is None:
            placed[np.array(moved, int)] = True
        elif moved:
            row = {file: i for i, file in enumerate(self.files)}
            placed[[row[file] for file in moved]] = True
        return Members(group, confidence.astype(np.float32), placed)


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
