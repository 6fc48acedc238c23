"""The one place where images meet a trained network.

Trained       the arrays that predictions are made from
encoder       images as they are stored -> what the method says of them, a pure function
train_split   what it says of every image that was trained on
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxclust.data.feed import Chunk, Feed
from jaxclust.run import sharding
from jaxclust.run.preemption import Due, never
from jaxclust.types import Array, Method, Prediction, PyTree, State
from jaxclust.views import View


class Trained(NamedTuple):
    """All of a state that predictions depend on."""

    key: Array  # u32[2], data of the root key, which a view may draw from
    params: PyTree
    stats: PyTree
    shown: PyTree  # the entries of memory that `Method.shown` names


Encoder = Callable[[Trained, Array], Prediction]  # (arrays, images u8[B, H, W, C]) -> Prediction


def trained(method: Method, state: State) -> Trained:
    """The part of `state` that the method's predictions are made from."""
    shown = {name: state.memory[name] for name in method.shown}
    return Trained(jax.random.key_data(state.key), state.params, state.stats, shown)


def predict(method: Method, arrays: Trained, x: Array) -> Prediction:
    """What the method says of views x f32[B, H, W, C]."""
    return method.predict(arrays.params, arrays.stats, arrays.shown, x)


def encoder(method: Method, view: View) -> Encoder:
    """What the method says of images, each shown through `view`."""

    def encode(arrays: Trained, images: Array) -> Prediction:
        key = jax.random.wrap_key_data(arrays.key)
        return predict(method, arrays, jax.vmap(lambda image: view(image, key))(images))

    return encode


def gathered(prediction: Prediction, mesh: Mesh) -> Prediction:
    """The prediction made where its images lie, and then given to every device."""
    rows = jax.lax.with_sharding_constraint(prediction, sharding.batched(mesh))  # or heads would see all
    return jax.lax.with_sharding_constraint(rows, sharding.replicated(mesh))


def train_split(
    state: State, method: Method, view: View, feed: Feed, mesh: Mesh, batch_size: int, due: Due = never
) -> Prediction:
    """The method's prediction of every image of the train split, as host arrays: q f32[N, K], embeddings f32[N, D].

    A method that knows the clusters of these images alone (`Method.assigned`) is certain of them in q.

    Raises:
      Preempted: it was due to stop.
    """
    encode = encoder(method, view)
    sweep = jax.jit(lambda arrays, chunk: gathered(encode(arrays, chunk.images), mesh))
    arrays = trained(method, state)

    def of(chunk: Chunk) -> Prediction:
        return sweep(arrays, chunk)

    prediction = feed.sweep(of, batch_size, due)
    if method.assigned is None:
        return prediction
    labels = np.asarray(jax.device_get(method.assigned(state.memory)))
    return prediction._replace(q=np.asarray(jax.nn.one_hot(labels, int(labels.max()) + 1, dtype=jnp.float32)))
