"""DEC (Xie et al., ICML 2016, arXiv:1511.06335) on pixels: layers trained one by one, then clusters until few move."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import linen as nn
from helpers.foreign.kmeans import pixels

from jaxclust.ops import assignment
from jaxclust.ops.losses import dec_target, kl, student_t
from jaxclust.types import Method, Out, Pass, Prediction, Refit, Task, keep_memory

WIDTHS = (12, 5)


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str
    pretrain: int  # epochs of each layer
    batches: int  # between two refreshes of the target
    tolerance: float  # share of images that move, below which training ends


def make(config):
    s, clusters = config["method"], config["clusters"]

    def init(key, spec):
        widths = (spec.size * spec.size * spec.channels, *WIDTHS)
        params = {"mu": jnp.zeros((clusters, WIDTHS[-1]))}
        for layer, (wide, narrow) in enumerate(itertools.pairwise(widths)):
            for name, shape in ((f"encoder{layer}", (wide, narrow)), (f"decoder{layer}", (narrow, wide))):
                key, own = jax.random.split(key)
                params[name] = {"w": nn.initializers.lecun_normal()(own, shape), "b": jnp.zeros(shape[1])}
        memory = {"target": jnp.zeros((spec.examples, clusters)), "labels": -jnp.ones(spec.examples, jnp.int32)}
        return params, {}, memory | {"changed": jnp.ones(())}

    def through(params, name, h):
        return jnp.tanh(h @ params[name]["w"] + params[name]["b"])

    def code(params, x, layers=2):
        h = pixels(x)
        for layer in range(layers):
            h = through(params, f"encoder{layer}", h)
        return h

    def reconstruct(layer):
        def loss(params, stats, memory, batch, key):
            h = code(params, batch.views[0], layer)
            again = through(params, f"decoder{layer}", through(params, f"encoder{layer}", h))
            value = jnp.mean((again - h) ** 2)
            return value, Out(stats, (), {"loss": value})

        return loss

    def cluster(params, stats, memory, batch, key):
        log_q = student_t(code(params, batch.views[0]), params["mu"])
        value = jnp.mean(kl(memory["target"][batch.ids], log_q))
        return value, Out(stats, (), {"loss": value})

    def place(params, stats, memory, h, key):
        return params | {"mu": assignment.kmeans(key, h, clusters).centres}, stats, memory

    def refresh(params, stats, memory, h, key):
        q = jnp.exp(student_t(h, params["mu"]))
        labels = jnp.argmax(q, axis=-1).astype(jnp.int32)
        changed = jnp.mean(labels != memory["labels"])
        return params, stats, {"target": dec_target(q), "labels": labels, "changed": changed}

    def plan(epoch):
        layer = epoch // s["pretrain"]
        if layer < len(WIDTHS):
            return (Pass(f"layer{layer}"),)
        clustered = Pass("cluster", refit="target", batches=s["batches"])
        return (Pass(None, refit="centres"), clustered) if epoch == s["pretrain"] * len(WIDTHS) else (clustered,)

    def predict(params, stats, shown, x):
        z = code(params, x)
        return Prediction(jnp.exp(student_t(z, params["mu"])), {"code": z})

    def embed(params, stats, memory, x, key):
        return code(params, x)

    layers = {f"layer{n}": Task(("plain",), reconstruct(n), keep_memory, optim=(f"layer{n}",)) for n in range(2)}
    return Method(
        init=init,
        tasks=layers | {"cluster": Task(("plain",), cluster, keep_memory, optim=("cluster",))},
        refits={"centres": Refit("plain", embed, place), "target": Refit("plain", embed, refresh)},
        plan=plan,
        predict=predict,
        space="code",
        reported={"DEC": "cluster"},
        done=lambda memory: memory["changed"] < s["tolerance"],
    )
