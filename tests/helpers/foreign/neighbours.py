"""A head trained on pairs of neighbours, as SCAN's is (arXiv:2005.12320): partners from a table that a refit writes."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from helpers.foreign.kmeans import pixels

from jaxclust.types import Method, Out, Partners, Pass, Prediction, Refit, Task, keep_memory

NEAREST = 3


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str


def make(config):
    head = nn.Dense(config["clusters"])

    def init(key, spec):
        params = {"head": head.init(key, jnp.zeros((1, spec.size * spec.size * spec.channels)))["params"]}
        return params, {}, {"nearest": jnp.zeros((spec.examples, NEAREST), jnp.int32)}

    def assign(params, x):
        return nn.softmax(head.apply({"params": params["head"]}, pixels(x)))

    def pairs(params, stats, memory, batch, key):
        (other,) = batch.partners  # f32[B, M, H, W, C]
        a, b = assign(params, batch.views[0]), jax.vmap(lambda x: assign(params, x), 1, 1)(other)
        loss = -jnp.mean(jnp.log(jnp.einsum("bk,bmk->bm", a, b)))
        near = jnp.any(batch.partner_ids[:, :, None] == memory["nearest"][batch.ids][:, None], axis=-1)
        return loss, Out(stats, (), {"loss": loss, "near": jnp.mean(near)})

    def search(params, stats, memory, h, key):
        squared = jnp.sum((h[:, None] - h[None]) ** 2, axis=-1) + jnp.inf * jnp.eye(len(h)).astype(bool)
        return params, stats, {"nearest": jax.lax.top_k(-squared, NEAREST)[1].astype(jnp.int32)}

    return Method(
        init=init,
        tasks={"pairs": Task(("strong",), pairs, keep_memory, partners=Partners("nearest", ("strong",), draws=2))},
        refits={"table": Refit("plain", lambda params, stats, memory, x, key: pixels(x), search)},
        plan=lambda epoch: (Pass("pairs", refit=None if epoch else "table"),),
        predict=lambda params, stats, shown, x: Prediction(assign(params, x), {"pixels": pixels(x)}),
        space="pixels",
        reported={},
    )
