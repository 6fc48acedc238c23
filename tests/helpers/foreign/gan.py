"""A GAN (Goodfellow et al., NIPS 2014) on pixels: two tasks in turn, an optimizer each; k-means on D's features."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from helpers.foreign.kmeans import pixels

from jaxclust.types import Method, Out, Pass, Prediction, Task, keep_memory

NOISE, WIDTH = 4, 16


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str


class Generator(nn.Module):
    out: int

    @nn.compact
    def __call__(self, z):
        return nn.sigmoid(nn.Dense(self.out)(nn.tanh(nn.Dense(WIDTH)(z))))


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, x):  # -> the logit of "real", and features
        h = nn.tanh(nn.Dense(WIDTH)(x))
        return nn.Dense(1)(h)[:, 0], h


def make(config):
    d = Discriminator()

    def init(key, spec):
        key_g, key_d = jax.random.split(key)
        out = spec.size * spec.size * spec.channels
        generator = Generator(out).init(key_g, jnp.zeros((1, NOISE)))["params"]
        return {"G": generator, "D": d.init(key_d, jnp.zeros((1, out)))["params"]}, {}, {}

    def fake(params, batch, key):
        x = pixels(batch.views[0])
        z = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (NOISE,)))(batch.ids)
        return x, Generator(x.shape[-1]).apply({"params": params["G"]}, z)

    def real(params, x):
        return d.apply({"params": params["D"]}, x)[0]

    def discriminator(params, stats, memory, batch, key):
        x, made = fake(params, batch, key)
        loss = jnp.mean(nn.softplus(-real(params, x))) + jnp.mean(nn.softplus(real(params, made)))
        return loss, Out(stats, (), {"loss": loss, "discriminator": loss})

    def generator(params, stats, memory, batch, key):
        _, made = fake(params, batch, key)
        loss = jnp.mean(nn.softplus(-real(params, made)))
        return loss, Out(stats, (), {"loss": loss, "generator": loss})

    return Method(
        init=init,
        tasks={
            "discriminator": Task(("plain",), discriminator, keep_memory, optim=("D",)),
            "generator": Task(("plain",), generator, keep_memory, optim=("G",)),
        },
        refits={},
        plan=lambda epoch: (Pass(("discriminator", "generator")),),
        predict=lambda params, stats, shown, x: Prediction(
            None, {"features": d.apply({"params": params["D"]}, pixels(x))[1]}
        ),
        space="features",
        reported={"k-means on features": "kmeans_features"},
    )
