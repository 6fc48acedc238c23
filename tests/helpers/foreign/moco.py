"""MoCo (He et al., CVPR 2020, arXiv:1911.05722) on pixels: a queue, and a momentum twin that predicts."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from helpers.foreign.kmeans import pixels

from jaxclust.methods.tcc import info_nce
from jaxclust.ops.losses import normalise
from jaxclust.types import Method, Out, Pass, Prediction, Task

WIDTH, ROWS = 16, 32


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    momentum: float
    tau: float


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return normalise(nn.Dense(WIDTH)(nn.tanh(nn.Dense(WIDTH)(pixels(x)))))


def make(config):
    s, f = config["method"], Encoder()

    def init(key, spec):
        key_f, key_q = jax.random.split(key)
        params = {"f": f.init(key_f, jnp.zeros((1, spec.size, spec.size, spec.channels)))["params"]}
        queue = normalise(jax.random.normal(key_q, (ROWS, WIDTH)))
        return params, {}, {"twin": jax.tree.map(jnp.copy, params), "queue": queue, "next": jnp.zeros((), jnp.int32)}

    def embed(params, x):
        return f.apply({"params": params["f"]}, x)

    def contrast(params, stats, memory, batch, key):
        q, k = embed(params, batch.views[0]), embed(memory["twin"], batch.views[1])
        loss = jnp.mean(info_nce(q, k, memory["queue"], s["tau"]))
        return loss, Out(stats, k, {"loss": loss})

    def commit(params, memory, ids, k):
        rows = (memory["next"] + jnp.arange(len(k))) % ROWS
        moved = jax.tree.map(lambda hat, p: s["momentum"] * hat + (1 - s["momentum"]) * p, memory["twin"], params)
        return {"twin": moved, "queue": memory["queue"].at[rows].set(k), "next": (memory["next"] + len(k)) % ROWS}

    return Method(
        init=init,
        tasks={"contrast": Task(("strong", "strong"), contrast, commit)},
        refits={},
        plan=lambda epoch: (Pass("contrast"),),
        predict=lambda params, stats, shown, x: Prediction(None, {"twin": embed(shown["twin"], x)}),
        space="twin",
        shown=("twin",),
        reported={"k-means": "kmeans_twin"},
    )
