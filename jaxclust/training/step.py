"""One training step: views, loss, gradient, optimizers, memory.

All randomness comes from `State.key`, by the name of a stream and the step; so any step can be computed again.
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxclust.data.feed import Chunk
from jaxclust.run import sharding
from jaxclust.training.optim import Optimizer
from jaxclust.types import Array, Batch, DataSpec, Method, Out, State, Task
from jaxclust.views import View
from jaxclust.views.batch import views_of


def stream(key: Array, name: str, *counters) -> Array:
    """The key of the random stream `name` at the given counters (a step, a view's number ...)."""
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    for counter in counters:
        key = jax.random.fold_in(key, counter)
    return key


def init_state(method: Method, spec: DataSpec, optimizers: Mapping[str, Optimizer], seed) -> State:
    """The state before the first step; a pure function of its arguments, to be jitted or abstractly evaluated."""
    key = jax.random.key(seed)
    params, stats, memory = method.init(stream(key, "init"), spec)
    opt = {name: optimizer.rule.init(optimizer.of(params)) for name, optimizer in optimizers.items()}
    return State(jnp.zeros((), jnp.int32), key, params, stats, opt, memory)


def augment(view: View, key: Array, ids: Array, images: Array) -> Array:
    """One view of each image, f32[B, H, W, C].

    An image's randomness comes from its id, not its place in the batch or its device.
    """
    return views_of(lambda image, i: view(image, jax.random.fold_in(key, i)), images, ids)


class Rows(NamedTuple):
    """The images of a batch, or of a part of it."""

    ids: Array  # i32[B]
    images: Array  # u8[B, H, W, C]
    partner_ids: Array | None = None  # i32[B, M]
    partner_images: Array | None = None  # u8[B, M, H, W, C]


def make_step(
    task: Task, views: Mapping[str, View], optimizers: Mapping[str, Optimizer], accumulate: int = 1
) -> Callable[..., tuple[State, Mapping[str, Array]]]:
    """The training step of `task` as a pure function (State, Chunk) -> (State, metrics), not yet compiled.

    A task with partners takes their chunk too, of B M rows: (State, Chunk, Chunk) -> (State, metrics).

    Args:
      task: its loss must be `separable` to accumulate, or take the batch's parts itself.
      views: by policy.
      optimizers: by name; `task.optim` says which of them act.
      accumulate: equal parts that the batch is taken in, one after another, so that the activations of one alone
        lie in memory. Gradients and metrics are averaged, "sizes" are summed. Batch normalisation sees a part at a
        time, and its running statistics move with each, so the result is not that of the whole batch at once. A
        loss over the whole batch (`Task.in_parts`) makes its embeddings in as many parts.
    """
    acting = {name: optimizers[name] for name in task.optim}
    everything = any(not optimizer.trains for optimizer in acting.values())

    def trained(params):
        if everything:
            return params
        return {name: params[name] for optimizer in acting.values() for name in optimizer.trains}

    def gradient(state: State, rows: Rows, *part):
        made = shown(state, rows, task, views)
        batch = Batch(rows.ids, made[: len(task.views)], state.step, rows.partner_ids, made[len(task.views) :])
        key = stream(state.key, "loss", state.step, *part)

        def loss(some):
            params = some if everything else {**state.params, **some}
            return task.loss(params, state.stats, state.memory, batch, key)

        return jax.grad(loss, has_aux=True)(trained(state.params))

    def accumulated(state: State, rows: Rows):
        def add(so_far, part):
            stats, total = so_far
            number, rows = part
            grads, out = gradient(state.replace(stats=stats), rows, number)
            return (out.stats, jax.tree.map(jnp.add, total, grads)), (out.carry, out.metrics)

        start = state.stats, jax.tree.map(jnp.zeros_like, trained(state.params))
        parts = jnp.arange(accumulate), jax.tree.map(functools.partial(sharding.split, parts=accumulate), rows)
        (stats, total), (carry, metrics) = jax.lax.scan(add, start, parts)
        metrics = {name: jnp.sum(m, 0) if name == "sizes" else jnp.mean(m, 0) for name, m in metrics.items()}
        return jax.tree.map(lambda g: g / accumulate, total), Out(stats, jax.tree.map(sharding.join, carry), metrics)

    def step(state: State, chunk: Chunk, partners: Chunk | None = None):
        rows = Rows(chunk.ids, chunk.images)
        if partners is not None:
            several = (len(chunk.ids), -1)
            images = partners.images
            rows = Rows(*rows[:2], partners.ids.reshape(several), images.reshape(*several, *images.shape[1:]))
        grads, out = (accumulated if accumulate > 1 and task.separable else gradient)(state, rows)
        params, opt = state.params, dict(state.opt)
        for name, optimizer in acting.items():
            params, opt[name] = optimizer.updated(params, grads, opt[name])
        memory = task.commit(params, state.memory, chunk.ids, out.carry)
        metrics = {**out.metrics, "grad_norm": optax.tree.norm(grads)}
        return State(state.step + 1, state.key, params, out.stats, opt, memory), metrics

    return step


def shown(state: State, rows: Rows, task: Task, views: Mapping[str, View]) -> tuple[Array, ...]:
    """Every view of a step: of the images f32[B, H, W, C], then of their partners f32[B, M, H, W, C]."""
    made = {}
    for name in sorted(set(task.views)):
        # Views of one policy are made by one program: it is most of what there is to compile.
        keys = {v: stream(state.key, "views", state.step, v) for v, n in enumerate(task.views) if n == name}
        make = jax.vmap(lambda key, view=views[name]: augment(view, key, rows.ids, rows.images))
        made |= zip(keys, make(jnp.stack([*keys.values()])))
    for v, name in enumerate(task.partners.views if task.partners else (), start=len(task.views)):
        # A partner may be drawn twice in a step, and is then shown twice alike.
        key = stream(state.key, "views", state.step, v)
        make = jax.vmap(functools.partial(augment, views[name], key), in_axes=1, out_axes=1)
        made[v] = make(rows.partner_ids, rows.partner_images)
    return tuple(made[v] for v in range(len(made)))
