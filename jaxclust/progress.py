"""How a run comes along: a few looks at the same sample of images while it trains, for the report's curves.

A look is at the start, at the end, and at even distances in between. It shows each image of the sample once as an
evaluation does and twice augmented, as a positive pair. Nothing of it enters the state, so a run with looks and one
without are the same.

    progress.jsonl      a line for each look: scores, sizes, similarity of pairs
    looks/<step>.npz    rows of the sample, their clusters, and the first embedding of `PLACED` of them, for t-SNE
"""

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxclust import metrics, sharding
from jaxclust.config import ConfigError
from jaxclust.data import Source
from jaxclust.feed import Chunk, Feed
from jaxclust.files import finite, read_records, write_atomically, write_bytes
from jaxclust.preemption import Due, never
from jaxclust.train import Plan, augment, stream
from jaxclust.types import Prediction, State

FILE, FOLDER = "progress.jsonl", "looks"
PLACED = 1000  # images of the sample that t-SNE is made of


@dataclasses.dataclass(frozen=True)
class Settings:
    looks: int  # at the sample, over the whole of training, beside the one before it; 0 is none at all
    sample: int  # images in it
    page: bool  # whether a run ends with its report

    def __post_init__(self):
        if self.looks < 0:
            raise ConfigError(f"report.looks is {self.looks}; it must not be negative")
        if self.sample < 2:
            raise ConfigError(f"report.sample is {self.sample}; it must be at least 2 images")


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
            path = self._workdir / FILE
            lines = [json.dumps(look) for look in read(self._workdir) if look["step"] < step]
            if path.exists():
                write_atomically(path, "".join(f"{line}\n" for line in lines))
            for old in (self._workdir / FOLDER).glob("*.npz"):
                if int(old.stem) >= step:
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
        x = plain.embeddings[plain.first]
        found = {"step": step, "epoch": epoch, "images": len(self._rows)}
        labels = None
        if plain.q is not None:
            labels = np.argmax(plain.q, axis=-1)
            found |= describe(plain.q, x, labels_true)
        found["pairs"] = {space: pairs(a.embeddings[space], b.embeddings[space]) for space in plain.embeddings}
        if plain.q is not None:
            found["pairs"]["clusters"] = pairs(a.q.T, b.q.T)
        (self._workdir / FOLDER).mkdir(exist_ok=True)
        kept = io.BytesIO()
        clusters = {} if labels is None else {"clusters": labels.astype(np.int32)}
        np.savez(kept, rows=self._rows, placed=self._placed, x=x[self._placed].astype(np.float16), **clusters)
        write_bytes(self._workdir / FOLDER / f"{step}.npz", kept.getvalue())
        with (self._workdir / FILE).open("a") as f:
            f.write(json.dumps(finite(found)) + "\n")


def _shown(plan: Plan, view: str) -> Callable[[State, Chunk], tuple[Prediction, Prediction, Prediction]]:
    """A batch as an evaluation shows it, and twice augmented as the last task of training does."""
    over, whole = sharding.batched(plan.mesh), sharding.replicated(plan.mesh)
    trained = plan.method.tasks[plan.stages[-1].todo.task].views
    strong = [name for name in trained if name != view] or [*trained]
    pair = (strong * 2)[:2]

    def show(state: State, chunk: Chunk):
        def predict(x):
            rows = plan.method.predict(state.params, state.stats, x)
            return jax.lax.with_sharding_constraint(jax.lax.with_sharding_constraint(rows, over), whole)

        plain = jax.vmap(lambda image: plan.views[view](image, state.key))(chunk.images)
        keys = [stream(state.key, "looks", state.step, i) for i in range(2)]
        augmented = [augment(plan.views[name], key, chunk.ids, chunk.images) for name, key in zip(pair, keys)]
        return tuple(map(predict, (plain, *augmented)))

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
    means = np.stack([x[labels == k].mean(axis=0) for k in np.flatnonzero(sizes)])
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
    return read_records(workdir / FILE)


def embeddings(workdir: Path) -> dict[int, Mapping[str, np.ndarray]]:
    """What `looks/` has, by step: rows i32[S], placed i64[P] among them, x f16[P, D], and clusters i32[S] if any."""
    files = sorted((workdir / FOLDER).glob("*.npz"), key=lambda path: int(path.stem))
    return {int(path.stem): dict(np.load(path)) for path in files}
