"""How a run comes along: a few looks at the same sample of images while it trains, for the report's curves.

A look is at the start, at the end, and at even distances in between. It shows each image of the sample once as an
evaluation does and twice augmented, as a positive pair. Nothing of it enters the state, so a run with looks and one
without are the same.

    progress.jsonl      a line for each look: scores, sizes, similarity of pairs
    looks/<step>.npz    rows of the sample, their clusters, and the embedding of `PLACED` of them that the
                        method is pictured in, with its name, for t-SNE; older versions kept the main one, without
"""

import dataclasses
import io
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxclust.clusters import embed
from jaxclust.data import Source
from jaxclust.data.feed import Chunk, Feed
from jaxclust.ops import metrics
from jaxclust.run.files import finite, in_place, read_records, write_atomically, write_bytes
from jaxclust.run.preemption import Due, never
from jaxclust.run.schema import option
from jaxclust.run.workdir import LOOKS, PROGRESS
from jaxclust.training.loop import Plan
from jaxclust.training.step import augment, stream
from jaxclust.types import Prediction, State

PLACED = 1000  # images of the sample that t-SNE is made of


logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Settings:
    # At the sample, over the whole of training, beside the one before it; 0 is none at all.
    looks: int = option(20, at_least=0)
    sample: int = option(2000, at_least=2)  # images in it
    page: bool = True  # whether a run ends with its report


class Progress:
    """Takes looks at the states of a run.

    Args:
      workdir: of the run.
      plan: what is trained.
      source: the train split; its labels are used for scores alone.
      feed: its images.
      view: the policy of an evaluation.
      batch_size: images at a time.
      settings: how often, and at how many images.
      write: whether this process writes.
      due: asked after every batch.
    """

    def __init__(
        self,
        workdir: Path,
        plan: Plan,
        source: Source,
        feed: Feed,
        view: str,
        batch_size: int,
        settings: Settings,
        write: bool,
        due: Due = never,
    ):
        self._workdir, self._plan, self._labels, self._feed, self._write = workdir, plan, source.labels, feed, write
        self._batch_size, self._due = batch_size, due
        epochs = plan.stages[-1].epoch + 1
        self._epochs = {round(i * epochs / settings.looks) for i in range(settings.looks + 1)} if settings.looks else ()
        rng = np.random.Generator(np.random.Philox([plan.seed, 0x100C]))
        self._rows = np.sort(rng.permutation(len(feed))[: settings.sample]).astype(np.int32)
        self._placed = np.sort(rng.permutation(len(self._rows))[:PLACED])
        self._show = jax.jit(_shown(plan, view))

    def resume(self, step: int) -> None:
        """Forgets looks at `step` and later ones: they are taken anew."""
        if self._write:
            path = self._workdir / PROGRESS
            lines = [json.dumps(look) for look in read(self._workdir) if look["step"] < step]
            if path.exists():
                write_atomically(path, "".join(f"{line}\n" for line in lines))
            for old in (self._workdir / LOOKS).glob("*.npz"):
                if old.stem.isdecimal() and int(old.stem) >= step and old.is_file():
                    old.unlink()

    def look(self, state: State, epoch: int) -> None:
        """Looks at `state`, after `epoch` epochs, if the time has come.

        Raises:
          Preempted: it was due to stop.
        """
        if epoch not in self._epochs:
            return
        plain, a, b = self._feed.sweep(lambda chunk: self._show(state, chunk), self._batch_size, self._due, self._rows)
        if not self._write:
            return
        step, labels_true = int(state.step), None if self._labels is None else self._labels[self._rows]
        x = plain.embeddings[self._plan.method.space]
        found = {"step": step, "epoch": epoch, "images": len(self._rows)}
        labels = None
        if plain.q is not None:
            labels = np.argmax(plain.q, axis=-1)
            found |= describe(plain.q, x, labels_true)
        found["pairs"] = {space: pairs(a.embeddings[space], b.embeddings[space]) for space in plain.embeddings}
        if plain.q is not None:
            found["pairs"]["clusters"] = pairs(a.q.T, b.q.T)
        (self._workdir / LOOKS).mkdir(exist_ok=True)
        kept = io.BytesIO()
        clusters = {} if labels is None else {"clusters": labels.astype(np.int32)}
        space = self._plan.method.pictured or self._plan.method.space
        pictured = plain.embeddings[space][self._placed].astype(np.float16)
        np.savez(kept, rows=self._rows, placed=self._placed, x=pictured, space=space, **clusters)
        write_bytes(self._workdir / LOOKS / f"{step}.npz", kept.getvalue())
        with open(self._workdir / PROGRESS, "a", encoding="utf-8", opener=in_place) as f:
            f.write(json.dumps(finite(found)) + "\n")


def _shown(plan: Plan, view: str) -> Callable[[State, Chunk], tuple[Prediction, Prediction, Prediction]]:
    """A batch as an evaluation shows it, and twice augmented as the last task of training does."""
    method = plan.method
    trained = next((stage.todo.tasks for stage in reversed(plan.stages) if stage.todo.tasks), ())
    policies = method.tasks[trained[-1]].views if trained else (view,)
    strong = [name for name in policies if name != view] or [*policies]
    pair = (strong * 2)[:2]
    encode = embed.encoder(method, plan.views[view])

    def show(state: State, chunk: Chunk):
        arrays = embed.trained(method, state)
        keys = [stream(state.key, "looks", state.step, i) for i in range(2)]
        augmented = [augment(plan.views[name], key, chunk.ids, chunk.images) for name, key in zip(pair, keys)]
        made = encode(arrays, chunk.images), *(embed.predict(method, arrays, x) for x in augmented)
        return tuple(embed.gathered(prediction, plan.mesh) for prediction in made)

    return show


def describe(q: np.ndarray, x: np.ndarray, labels_true: np.ndarray | None) -> dict[str, Any]:
    """What a look says of clusters.

    Args:
      q: f32[S, K], soft assignments.
      x: f32[S, D], the embedding in which distances are measured.
      labels_true: i[S], or None.

    Returns:
      `used_clusters`, `sizes`, `size_entropy`, `entropy` (mean over images, of log K), `confidence`,
      `centre_distance`; with labels `acc`, `nmi`, `ari`.
    """
    labels = np.argmax(q, axis=-1)
    sizes = metrics.cluster_sizes(labels, q.shape[1])
    members = metrics.members(labels, q.shape[1])
    means = np.stack([x[members[k]].mean(axis=0) for k in np.flatnonzero(sizes)])
    p = np.clip(q, 1e-12, 1)
    found = {
        "used_clusters": int(np.count_nonzero(sizes)),
        "sizes": sizes.tolist(),
        "size_entropy": metrics.balance_entropy(sizes),
        "entropy": float(-(p * np.log(p)).sum(axis=1).mean() / np.log(q.shape[1])),
        "confidence": metrics.confidence(q),
        "centre_distance": metrics.mean_centre_distance(means),
    }
    if labels_true is not None:
        scores = metrics.labelled(labels_true, labels)
        found |= {name: scores[name] for name in ("acc", "nmi", "ari")}
    return found


def pairs(a: np.ndarray, b: np.ndarray) -> dict[str, list[float]]:
    """Cosine similarity of pairs: row i of one to row i of the other is a positive, all else is negative.

    Args:
      a, b: f32[N, D], two views of the same N images, or of the same N clusters.

    Returns:
      {"positive": [mean, standard deviation], "negative": the same} (CC, Figure 3).
    """
    unit = [v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (a, b)]
    similarity = unit[0] @ unit[1].T
    positive = np.diagonal(similarity)
    negative = similarity[~np.eye(len(a), dtype=bool)]
    return {"positive": [positive.mean(), positive.std()], "negative": [negative.mean(), negative.std()]}


def read(workdir: Path) -> list[dict[str, Any]]:
    """The looks of a run in order; none of a run without. A line that a kill cut short is left out."""
    return read_records(workdir / PROGRESS)


def embeddings(workdir: Path) -> dict[int, Mapping[str, np.ndarray]]:
    """What `looks/` has, by step: rows i32[S], placed i64[P] among them, x f16[P, D], and clusters i32[S] if any.

    `space` is the name of the embedding x, which looks of older versions lack: theirs is the main one.
    """
    found = {}
    for path in (workdir / LOOKS).glob("*.npz"):
        try:
            found[int(path.stem)] = _whole(path)
        except Exception as e:  # whatever a damaged file makes its parser say
            said = str(e).partition("\n")[0][:100] or type(e).__name__
            logger.warning("warning: %s is damaged and left out (%s); nothing else is lost", path, said)
    return dict(sorted(found.items()))


def _whole(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a look.

    Raises:
      Exception: of any kind; it is damaged.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no file")
    arrays = dict(np.load(path, allow_pickle=False))
    rows, placed, x = arrays["rows"], arrays["placed"], arrays["x"]
    if rows.ndim != 1 or placed.ndim != 1 or x.ndim != 2 or len(x) != len(placed):
        raise ValueError("its arrays do not belong together")
    if "clusters" in arrays and arrays["clusters"].shape != rows.shape:
        raise ValueError("its clusters are not those of its rows")
    return arrays
