"""Random features of small images, and the heaps that k-means finds among a sample of them: a run that costs little.

Its embeddings are as wide as a ResNet's. What it costs to evaluate, report on or browse it is the modes' own cost.
The method and its config are both in this file.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxclust.ops.assignment import kmeans, squared_distances
from jaxclust.types import Method, Pass, Prediction, Refit

WIDTH = 512
SAMPLE = 20  # images for each cluster that k-means sees
SHARPNESS = 0.5  # of the soft assignment, by squared distance


def get_config():
    return ConfigDict(
        dict(
            seed=0,
            clusters=100,
            data=dict(name="folder", splits=dict(train="all"), labels="labels", size=8, dir=""),
            views=dict(plain=dict(policy="plain")),
            net=dict(depth=18, stem="cifar", width=1),  # which is not used
            method=dict(name="jaxclust.commands.bench.heaps"),
            optim=dict(name="sgd", lr=0.1, momentum=0.9, decay=0.0, schedule="constant", warmup_epochs=0),
            train=dict(epochs=1, batch_size=32, log_every=1),
            eval=dict(view="plain", paper_view="plain", batch_size=4096, restarts=1),
            checkpoint=dict(every=1, keep=1),
            report=dict(looks=1, sample=2000, page=False),
        )
    )


def make(config):
    clusters = config["clusters"]

    def init(key, spec):
        inputs = spec.size**2 * spec.channels
        scale = 4 / inputs**0.5
        return {"w": scale * jax.random.normal(key, (inputs, WIDTH)), "mu": jnp.zeros((clusters, WIDTH))}, {}, {}

    def embed(params, x):
        return jax.nn.relu((x.reshape(len(x), -1) - 0.5) @ params["w"])  # f32[B, D]

    def place(params, stats, memory, h, key):
        return params | {"mu": kmeans(key, h, clusters, restarts=1).centres}, stats, memory

    def predict(params, stats, shown, x):
        h = embed(params, x)
        return Prediction(jax.nn.softmax(-SHARPNESS * squared_distances(h, params["mu"])), {"features": h})

    def seen(params, stats, memory, x, key):
        return embed(params, x)

    return Method(
        init=init,
        tasks={},
        refits={"centres": Refit("plain", seen, place, sample=SAMPLE * clusters)},
        plan=lambda epoch: (Pass(None, refit="centres"),),
        predict=predict,
        space="features",
        reported={},
    )
