"""Spectral clustering (Shi and Malik, 2000) of pixels: a refit alone on the host, and clusters of its images alone."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from helpers.foreign.kmeans import pixels
from scipy.sparse import identity
from scipy.sparse.csgraph import laplacian
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans
from sklearn.neighbors import kneighbors_graph

from jaxclust.run.preemption import Preempted
from jaxclust.types import Method, Pass, Prediction, Refit


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    neighbours: int


def embedding(graph, dimensions: int) -> np.ndarray:
    """The leading eigenvectors of the normalised graph, f64[N, dimensions], rows of unit length."""
    normalised = identity(graph.shape[0]) - laplacian(graph, normed=True)
    _, vectors = eigsh(normalised, dimensions, v0=np.ones(graph.shape[0]))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make(config):
    clusters, neighbours = config["clusters"], config["method"]["neighbours"]

    def init(key, spec):
        return {}, {}, {"labels": jnp.zeros(spec.examples, jnp.int32)}

    def cut(params, stats, memory, h, rng, due):
        graph = kneighbors_graph(h, neighbours, include_self=True)
        if due():
            raise Preempted
        x = embedding((graph + graph.T) / 2, clusters)
        seed = int(rng.integers(2**31))
        labels = KMeans(clusters, n_init=10, random_state=seed).fit(x).labels_
        return params, stats, {"labels": labels.astype(np.int32)}

    return Method(
        init=init,
        tasks={},
        refits={"cut": Refit("plain", lambda params, stats, memory, x, key: pixels(x), cut, on_host=True)},
        plan=lambda epoch: (Pass(None, refit="cut"),),
        predict=lambda params, stats, shown, x: Prediction(None, {"pixels": pixels(x)}),
        space="pixels",
        assigned=lambda memory: memory["labels"],
        reported={"spectral clustering": "cluster"},
    )
