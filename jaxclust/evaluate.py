"""Scores of a trained state: its own clusters, and k-means on its embeddings and on the raw pixels.

Plain views, running statistics, every image once. Labels enter here and nowhere else, and only as the last
argument of a score; without them the rest of the scores stand.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxclust import assign, metrics, sharding
from jaxclust.data import Source
from jaxclust.feed import Chunk, Feed
from jaxclust.types import Method, Prediction, State
from jaxclust.views import View


@dataclasses.dataclass(frozen=True)
class Settings:
    view: str  # the policy that images are shown through
    batch_size: int  # over all devices
    restarts: int  # of k-means

    def __post_init__(self):
        for name in ("batch_size", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"eval.{name} is {getattr(self, name)}; it must be at least 1")


def embed(state: State, method: Method, view: View, feed: Feed, mesh: Mesh, batch_size: int) -> Prediction:
    """The method's prediction of every image, as host arrays: q f32[N, K] and embeddings f32[N, D]."""
    whole = sharding.replicated(mesh)

    @jax.jit
    def predict(params, stats, key, chunk: Chunk):
        x = jax.vmap(lambda image: view(image, key))(chunk.images)  # f32[B, H, W, C]
        return jax.lax.with_sharding_constraint(method.predict(params, stats, x), whole)

    return feed.sweep(lambda chunk: predict(state.params, state.stats, state.key, chunk), batch_size)


def score(prediction: Prediction, source: Source, clusters: int, seed: int, restarts: int) -> dict[str, Any]:
    """All scores, ready for JSON.

    Returns:
      `"cluster"` for the method's own assignment, `"kmeans_<embedding>"` for each embedding and
      `"kmeans_pixels"`: each with `used_clusters`, `sizes`, `size_entropy` (1 when all clusters are of one
      size), `silhouette` and `centre_distance`, and with labels `acc`, `nmi`, `ari`, `ami` and
      `per_cluster_accuracy`. The cluster head is described among the first embedding, and has `confidence`.
    """
    key = jax.random.key(seed)
    labels = np.argmax(prediction.q, axis=-1)
    first = next(iter(prediction.embeddings.values()))
    scores = {"cluster": describe(labels, first, clusters, source.labels)}
    scores["cluster"]["confidence"] = float(metrics.confidence(prediction.q))
    spaces = dict(prediction.embeddings)
    spaces["pixels"] = source.images.reshape(len(source.images), -1).astype(np.float32) / 255
    for name, x in spaces.items():
        found = assign.kmeans(key, x, clusters, restarts=restarts)
        scores[f"kmeans_{name}"] = describe(np.asarray(found.labels), x, clusters, source.labels)
    return scores


def describe(labels: np.ndarray, x: np.ndarray, clusters: int, labels_true: np.ndarray | None) -> dict[str, Any]:
    """What can be said of a clustering.

    Args:
      labels: i[N], the cluster of each image.
      x: f32[N, D], the embedding in which distances are measured.
      clusters: K, of which some may be empty.
      labels_true: i[N], or None where nobody knows.
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


def table(scores: Mapping[str, Any]) -> str:
    """The scores as lines of text for a terminal."""
    rows = {name: row for name, row in scores.items() if isinstance(row, Mapping)}
    columns = [c for c in ("acc", "nmi", "ari", "ami") if c in scores["cluster"]]
    columns += ["used_clusters", "size_entropy", "silhouette"]
    width = max(map(len, rows))
    lines = [f"{'':{width}}  " + "  ".join(f"{c.replace('_', ' '):>13}" for c in columns)]
    for name, row in rows.items():
        cells = [f"{row[c]:13d}" if isinstance(row[c], int) else f"{row[c]:13.3f}" for c in columns]
        lines.append(f"{name:{width}}  " + "  ".join(cells))
    return "\n".join(lines)
