"""A refit: a sweep over a split, from which the method rewrites its parameters, statistics and memory."""

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from jaxclust.data.feed import Chunk, Feed
from jaxclust.run import sharding
from jaxclust.run.preemption import Due, never
from jaxclust.training.step import augment, stream
from jaxclust.types import Array, Refit, State
from jaxclust.views import View


def make_refit(
    todo: Refit, views: Mapping[str, View], mesh: Mesh, batch_size: int
) -> Callable[[State, Feed, Due], State]:
    """A function (State, Feed, due) -> State that sweeps over a split and lets the method rewrite its state from that.

    What it compiles is compiled at the first call. Parameters, statistics and memory are rewritten, and nothing else.
    It raises `Preempted` where it was due to stop; nothing is then rewritten.

    Args:
      todo: the refit.
      views: by policy.
      mesh: the run's devices.
      batch_size: images embedded at a time, where the refit does not say how many.
    """
    whole = sharding.replicated(mesh)

    @jax.jit
    def embed(state: State, chunk: Chunk):
        x = augment(views[todo.view], stream(state.key, "refit views", state.step), chunk.ids, chunk.images)
        h = todo.embed(state.params, state.stats, state.memory, x, stream(state.key, "refit embed", state.step))
        rows = jax.lax.with_sharding_constraint(h, sharding.batched(mesh))
        return jax.lax.with_sharding_constraint(rows, whole)

    @functools.partial(jax.jit, out_shardings=whole)
    def update(state: State, h: Array | None):
        return todo.update(state.params, state.stats, state.memory, h, stream(state.key, "refit", state.step))

    def update_on_host(state: State, h: np.ndarray | None, due: Due):
        parts = jax.device_get((state.params, state.stats, state.memory))
        key = jax.random.key_data(stream(state.key, "refit", state.step))
        made = todo.update(*parts, h, np.random.default_rng(np.asarray(key)), due)
        return jax.tree.map(lambda new: sharding.put(np.asarray(new), whole), made)

    def mixed_sweep(state: State, feed: Feed, due: Due, rows: np.ndarray) -> np.ndarray:
        order = jax.random.permutation(stream(state.key, "refit order", state.step), len(rows))
        order = np.asarray(jax.device_get(order))
        h = feed.sweep(lambda chunk: embed(state, chunk), todo.batch, due, rows[order])
        return h[np.argsort(order)]

    def refit(state: State, feed: Feed, due: Due = never) -> State:
        h = None
        if todo.embed is not None:
            rows = None
            if 0 < todo.sample < len(feed):
                key = stream(state.key, "refit sample", state.step)
                rows = jax.random.choice(key, len(feed), (todo.sample,), replace=False)
                rows = np.sort(jax.device_get(rows)).astype(np.int32)
            if todo.batch:
                h = mixed_sweep(state, feed, due, np.arange(len(feed), dtype=np.int32) if rows is None else rows)
            else:
                h = feed.sweep(lambda chunk: embed(state, chunk), batch_size, due, rows)
        if todo.on_host:
            params, stats, memory = update_on_host(state, h, due)
        else:
            params, stats, memory = update(state, None if h is None else sharding.put(h, whole))
        return state.replace(params=params, stats=stats, memory=memory)

    return refit
