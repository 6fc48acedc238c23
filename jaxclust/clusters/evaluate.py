"""Scores of a trained state: its own clusters, and k-means on its embeddings and on the raw pixels.

Running statistics, every image once. All methods are scored alike on one view, `eval.view`; beside that stand the
scores that a method's paper reports, on the view that it reports them for, `eval.paper_view`. Labels enter here and
in `probe` and nowhere else, and only as the last argument of a score; without them the rest of the scores stand.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclust.data import Source
from jaxclust.ops import assignment, metrics
from jaxclust.ops.losses import student_t
from jaxclust.run.preemption import Due, Preempted, never
from jaxclust.run.schema import option
from jaxclust.types import Array, Prediction

# Images that k-means finds its centres among, at most, but for this many a cluster: evenly spaced. All of them are then
# with their nearest centre, those of k-means on pixels left out, as a million photographs need not lie in memory.
FITTED, MEMBERS = 100_000, 100
PIXEL_SIDE = 32


@dataclasses.dataclass(frozen=True)
class Settings:
    view: str  # the policy that images are shown through
    paper_view: str  # the one that the method's paper evaluates on
    batch_size: int = option(512, at_least=1)  # over all devices
    restarts: int = option(10, at_least=1)  # of k-means
    # Images at the end of the train split that a linear probe is tested on; 0 where none is made.
    held_out: int = option(0, at_least=0)


def score(
    prediction: Prediction, space: str, source: Source, clusters: int, seed: int, restarts: int, due: Due = never
) -> dict[str, Any]:
    """All scores, ready for JSON.

    Args:
      prediction, space, source, clusters, seed, restarts: as `row` takes them.
      due: asked before every row.

    Returns:
      `"cluster"` for the method's own assignment, where it has one, `"kmeans_<embedding>"` for each embedding and
      `"kmeans_pixels"`; `row` says what each of them holds.

    Raises:
      Preempted: it was due to stop.
    """
    names = ["cluster"] if prediction.q is not None else []
    names += [f"kmeans_{embedding}" for embedding in (*prediction.embeddings, "pixels")]
    scores = {}
    for name in names:
        if due():
            raise Preempted
        scores[name] = row(name, prediction, space, source, clusters, seed, restarts)
    return scores


def row(
    name: str, prediction: Prediction, space: str, source: Source, clusters: int, seed: int, restarts: int
) -> dict[str, Any]:
    """The scores of one clustering.

    Args:
      name: `"cluster"`, `"kmeans_<embedding>"` or `"kmeans_pixels"`.
      prediction: of every image, as host arrays.
      space: the main embedding.
      source: the images, and their labels where somebody knows them.
      clusters: K.
      seed: of k-means.
      restarts: of k-means.

    Returns:
      What `describe` says. The method's own clusters are described among the main embedding, and have `confidence`;
      of k-means, `fitted` images are what it found its centres among, where these are not all.
    """
    if name == "cluster":
        q, x = np.asarray(prediction.q), np.asarray(prediction.embeddings[space])
        confidence = {"confidence": float(metrics.confidence(q))}
        return describe(np.argmax(q, axis=-1), x, clusters, source.labels) | confidence
    labels_true = source.labels
    rows = fitted(len(source.images), clusters)
    if name == "kmeans_pixels":
        x = sample = pixels(source.images[rows])
        labels_true = labels_true if labels_true is None else labels_true[rows]
    else:
        x = np.asarray(prediction.embeddings[name.removeprefix("kmeans_")])
        sample = x[rows]
    found = assignment.kmeans(jax.random.key(seed), sample, clusters, restarts=restarts)
    labels = found.labels if len(sample) == len(x) else nearest(x, found.centres)
    about = {"fitted": len(sample)} if len(sample) < len(source.images) else {}
    return describe(np.asarray(labels), x, clusters, labels_true) | about


def fitted(images: int, clusters: int) -> slice:
    """The rows that k-means finds its centres among."""
    return slice(None, None, -(-images // max(FITTED, MEMBERS * clusters)))


def nearest(x: np.ndarray, centres: Array) -> np.ndarray:
    """The nearest of the centres f32[K, D] to each row of x f32[N, D], i32[N], with a part of x on the device."""
    return np.concatenate([np.asarray(assignment.assign(part, centres)) for part in _parts(x)])


class Means(NamedTuple):
    """The clusters of a method that has none of its own (`Prediction.q` is None): k-means on its main embedding."""

    centres: np.ndarray  # f32[K, D]
    scale: float  # mean squared distance to the nearest of them


def means(x: np.ndarray, clusters: int, seed: int) -> Means:
    """Those of embeddings x f32[N, D]."""
    sample = x[fitted(len(x), clusters)]
    found = assignment.kmeans(jax.random.key(seed), sample, clusters)
    return Means(np.asarray(found.centres), max(float(found.inertia) / len(sample), 1e-12))


@jax.jit
def assigned(x: Array, means: Means) -> Array:
    """Soft assignment f32[N, K] of x f32[N, D] to the means, by DEC's Student's t at their scale."""
    side = jnp.sqrt(means.scale)
    return jnp.exp(student_t(x / side, jnp.asarray(means.centres) / side))


def all_assigned(x: np.ndarray, means: Means) -> np.ndarray:
    """`assigned`, with a part of x f32[N, D] on the device."""
    return np.concatenate([np.asarray(assigned(part, means)) for part in _parts(x)])


def _parts(x: np.ndarray) -> Iterator[np.ndarray]:
    return (x[at : at + FITTED] for at in range(0, len(x), FITTED))


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
    members = metrics.members(labels, clusters)
    means = np.stack([x[members[k]].mean(axis=0) for k in used])
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
