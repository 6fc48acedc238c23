"""Scores of a trained state: its own clusters, and k-means on its embeddings and on the raw pixels.

Running statistics, every image once. All methods are scored alike on one view, `eval.view`; beside that stand the
scores that a method's paper reports, on the view that it reports them for, `eval.paper_view`. Labels enter here and
in `probe` and nowhere else, and only as the last argument of a score; without them the rest of the scores stand.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxclust import assign, metrics, sharding
from jaxclust.data import Source
from jaxclust.feed import Chunk, Feed
from jaxclust.losses import student_t
from jaxclust.preemption import Due, Preempted, never
from jaxclust.types import Array, Method, Prediction, State
from jaxclust.views import View

# k-means on pixels is there to be compared with; a million photographs need not lie in memory for that.
PIXEL_SIDE = 32
PIXEL_ROWS = 100_000  # evenly spaced


@dataclasses.dataclass(frozen=True)
class Settings:
    view: str  # the policy that images are shown through
    paper_view: str  # the one that the method's paper evaluates on
    batch_size: int  # over all devices
    restarts: int  # of k-means
    held_out: int  # images at the end of the train split that a linear probe is tested on; 0 where none is made

    def __post_init__(self):
        for name in ("batch_size", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"eval.{name} is {getattr(self, name)}; it must be at least 1")
        if self.held_out < 0:
            raise ValueError(f"eval.held_out is {self.held_out}; it must not be negative")


def embed(
    state: State, method: Method, view: View, feed: Feed, mesh: Mesh, batch_size: int, due: Due = never
) -> Prediction:
    """The method's prediction of every image, as host arrays: q f32[N, K] and embeddings f32[N, D].

    Raises:
      Preempted: it was due to stop.
    """
    over, whole = sharding.batched(mesh), sharding.replicated(mesh)

    @jax.jit
    def predict(params, stats, key, chunk: Chunk):
        x = jax.vmap(lambda image: view(image, key))(chunk.images)  # f32[B, H, W, C]
        rows = jax.lax.with_sharding_constraint(method.predict(params, stats, x), over)  # or heads would see all
        return jax.lax.with_sharding_constraint(rows, whole)

    return feed.sweep(lambda chunk: predict(state.params, state.stats, state.key, chunk), batch_size, due)


def score(
    prediction: Prediction, source: Source, clusters: int, seed: int, restarts: int, due: Due = never
) -> dict[str, Any]:
    """All scores, ready for JSON.

    Args:
      prediction, source, clusters, seed, restarts: as `row` takes them.
      due: asked before every row.

    Returns:
      `"cluster"` for the method's own assignment, where it has one, `"kmeans_<embedding>"` for each embedding and
      `"kmeans_pixels"`; `row` says what each of them holds.

    Raises:
      Preempted: it was due to stop.
    """
    names = ["cluster"] if prediction.q is not None else []
    names += [f"kmeans_{space}" for space in (*prediction.embeddings, "pixels")]
    scores = {}
    for name in names:
        if due():
            raise Preempted
        scores[name] = row(name, prediction, source, clusters, seed, restarts)
    return scores


def row(name: str, prediction: Prediction, source: Source, clusters: int, seed: int, restarts: int) -> dict[str, Any]:
    """The scores of one clustering.

    Args:
      name: `"cluster"`, `"kmeans_<embedding>"` or `"kmeans_pixels"`.
      prediction: of every image, as host arrays.
      source: the images, and their labels where somebody knows them.
      clusters: K.
      seed: of k-means.
      restarts: of k-means.

    Returns:
      What `describe` says. The method's own clusters are described among the first embedding, and have `confidence`.
    """
    if name == "cluster":
        labels, x = np.argmax(prediction.q, axis=-1), prediction.embeddings[prediction.first]
        confidence = {"confidence": float(metrics.confidence(prediction.q))}
        return describe(labels, x, clusters, source.labels) | confidence
    labels_true = source.labels
    if name == "kmeans_pixels":
        rows = slice(None, None, -(-len(source.images) // PIXEL_ROWS))
        x = pixels(source.images[rows])
        labels_true = labels_true if labels_true is None else labels_true[rows]
    else:
        x = prediction.embeddings[name.removeprefix("kmeans_")]
    labels = assign.kmeans(jax.random.key(seed), x, clusters, restarts=restarts).labels
    return describe(np.asarray(labels), x, clusters, labels_true)


class Means(NamedTuple):
    """The clusters of a method that has none of its own (`Prediction.q` is None): k-means on its first embedding."""

    centres: np.ndarray  # f32[K, D]
    scale: float  # mean squared distance to the nearest of them


def means(x: np.ndarray, clusters: int, seed: int) -> Means:
    """Those of embeddings x f32[N, D]."""
    found = assign.kmeans(jax.random.key(seed), x, clusters)
    return Means(np.asarray(found.centres), max(float(found.inertia) / len(x), 1e-12))


@jax.jit
def assigned(x: Array, means: Means) -> Array:
    """Soft assignment f32[N, K] of x f32[N, D] to the means, by DEC's Student's t at their scale."""
    side = jnp.sqrt(means.scale)
    return jnp.exp(student_t(x / side, means.centres / side))


def pixels(images: np.ndarray) -> np.ndarray:
    """Images as vectors of their pixels; large ones are averaged down to at most `PIXEL_SIDE` a side first.

    Args:
      images: u8[N, H, W, C], perhaps mapped into memory; read a part at a time.

    Returns:
      f32[N, H' W' C] in [0, 1].
    """
    n, h, w, c = images.shape
    fh, fw = -(-h // PIXEL_SIDE), -(-w // PIXEL_SIDE)
    x = np.empty((n, (h // fh) * (w // fw) * c), np.float32)
    for i in range(0, n, 256):
        part = images[i : i + 256, : h // fh * fh, : w // fw * fw].reshape(-1, h // fh, fh, w // fw, fw, c)
        x[i : i + 256] = part.mean((2, 4), dtype=np.float32).reshape(len(part), -1) / 255
    return x


def describe(labels: np.ndarray, x: np.ndarray, clusters: int, labels_true: np.ndarray | None) -> dict[str, Any]:
    """What can be said of a clustering.

    Args:
      labels: i[N], the cluster of each image.
      x: f32[N, D], the embedding in which distances are measured.
      clusters: K, of which some may be empty.
      labels_true: i[N], or None where nobody knows.

    Returns:
      `used_clusters`, `sizes`, `size_entropy` (1 when all clusters are of one size), `silhouette` and
      `centre_distance`, and with labels `acc`, `nmi`, `ari`, `ami` and `per_cluster_accuracy`.
    """
    sizes = metrics.cluster_sizes(labels, clusters)
    used = np.flatnonzero(sizes)
    means = np.stack([x[labels == k].mean(axis=0) for k in used])
    scores = metrics.labelled(labels_true, labels) if labels_true is not None else {}
    scores |= {
        "used_clusters": int(metrics.used_clusters(labels)),
        "sizes": sizes.tolist(),
        "size_entropy": float(metrics.balance_entropy(sizes)),
        "silhouette": float(metrics.silhouette(x, labels)),
        "centre_distance": float(metrics.mean_centre_distance(means)),
    }
    if labels_true is not None:
        scores["per_cluster_accuracy"] = metrics.per_cluster_accuracy(labels_true, labels, clusters).tolist()
    return scores


def assignments(q: np.ndarray, names: list[str]) -> tuple[tuple[str, ...], list[tuple]]:
    """The cluster of every image, as a header and rows for CSV.

    Args:
      q: soft assignments, f32[N, K].
      names: of the images' files.

    Returns:
      header, and a row (file, cluster, confidence) for each image, in the order of the names.
    """
    rows = zip(names, np.argmax(q, axis=-1).tolist(), (f"{c:.4f}" for c in np.max(q, axis=-1)), strict=True)
    return ("file", "cluster", "confidence"), sorted(rows)


def table(scores: Mapping[str, Any], paper: Mapping[str, Any]) -> str:
    """The scores as lines of text for a terminal: the common rows, then those that the paper reports."""
    columns = [c for c in ("acc", "nmi", "ari", "ami") if c in scores["kmeans_pixels"]]
    columns += ["used_clusters", "size_entropy", "silhouette"]
    width = max(map(len, (*scores, *paper)))

    def line(name: str, row: Mapping[str, Any]) -> str:
        cells = [f"{row[c]:13d}" if isinstance(row[c], int) else f"{row[c]:13.3f}" for c in columns]
        return f"{name:{width}}  " + "  ".join(cells)

    lines = [f"{'':{width}}  " + "  ".join(f"{c.replace('_', ' '):>13}" for c in columns)]
    lines += [line(name, row) for name, row in scores.items()]
    if paper:
        lines += ["as the paper evaluates", *(line(name, row) for name, row in paper.items())]
    return "\n".join(lines)
