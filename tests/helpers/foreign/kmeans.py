"""k-means on pixels: a refit alone, which counts as one step."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxclust.ops import assignment
from jaxclust.types import Method, Pass, Prediction, Refit


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str


def pixels(x):
    return x.reshape(len(x), -1)


def make(config):
    clusters = config["clusters"]

    def init(key, spec):
        return {"mu": jnp.zeros((clusters, spec.size * spec.size * spec.channels))}, {}, {}

    def place(params, stats, memory, h, key):
        return {"mu": assignment.kmeans(key, h, clusters).centres}, stats, memory

    def predict(params, stats, shown, x):
        squared = jnp.sum((pixels(x)[:, None] - params["mu"]) ** 2, axis=-1)
        return Prediction(jax.nn.softmax(-squared), {"pixels": pixels(x)})

    return Method(
        init=init,
        tasks={},
        refits={"centres": Refit("plain", lambda params, stats, memory, x, key: pixels(x), place)},
        plan=lambda epoch: (Pass(None, refit="centres"),),
        predict=predict,
        space="pixels",
        reported={"k-means": "cluster"},
    )
