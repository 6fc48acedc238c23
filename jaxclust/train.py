"""The training loop. It knows no method and no data set by name: a method is a plan of passes over splits.

    state = run(...)      the whole of training, from a state to the last step
    make_step(...)        one compiled step: views, loss, gradient, optimizer, memory

All randomness comes from `State.key`, by the name of a stream and the step; so any step can be computed again.
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxclust import sharding
from jaxclust.checkpoint import Checkpoints
from jaxclust.config import ConfigError
from jaxclust.feed import Chunk, Feed, epoch_order
from jaxclust.log import Log
from jaxclust.preemption import Due, Preempted, never
from jaxclust.types import Array, Batch, DataSpec, Method, Out, Pass, Refit, State, Task
from jaxclust.views import View


@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: int
    batch_size: int  # over all devices
    accumulate: int  # parts of a batch, taken one after another; batch normalisation sees one at a time; 1 is no parts
    log_every: int  # steps between records of the scalars

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigError(f"train.{field.name} is {getattr(self, field.name)}; it must be at least 1")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"train.accumulate is {self.accumulate}, which does not divide train.batch_size, {self.batch_size}"
            )


def stream(key: Array, name: str, *counters) -> Array:
    """The key of the random stream `name` at the given counters (a step, a view's number ...)."""
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    for counter in counters:
        key = jax.random.fold_in(key, counter)
    return key


def init_state(method: Method, spec: DataSpec, optimizer: optax.GradientTransformation, seed) -> State:
    """The state before the first step; a pure function of its arguments, to be jitted or abstractly evaluated."""
    key = jax.random.key(seed)
    params, stats, memory = method.init(stream(key, "init"), spec)
    return State(jnp.zeros((), jnp.int32), key, params, stats, optimizer.init(params), memory)


def augment(view: View, key: Array, ids: Array, images: Array) -> Array:
    """One view of each image, f32[B, H, W, C].

    An image's randomness comes from its id, not its place in the batch or its device.
    """
    return jax.vmap(lambda image, i: view(image, jax.random.fold_in(key, i)))(images, ids)


def make_step(
    task: Task, views: Mapping[str, View], optimizer: optax.GradientTransformation, accumulate: int = 1
) -> Callable[[State, Chunk], tuple[State, Mapping[str, Array]]]:
    """The training step of `task` as a pure function (State, Chunk) -> (State, metrics), not yet compiled.

    Args:
      task: its loss must be `separable` to accumulate.
      views: by policy.
      optimizer: what is done with the gradient.
      accumulate: equal parts that the batch is taken in, one after another, so that the activations of one alone
        lie in memory. Gradients and metrics are averaged, "sizes" are summed. Batch normalisation sees a part at a
        time, and its running statistics move with each, so the result is not that of the whole batch at once.
    """

    def gradient(state: State, ids: Array, images: Array, *part):
        made = {}
        for name in sorted(set(task.views)):
            # Views of one policy are made by one program: it is most of what there is to compile.
            keys = {v: stream(state.key, "views", state.step, v) for v, n in enumerate(task.views) if n == name}
            make = jax.vmap(lambda key, view=views[name]: augment(view, key, ids, images))
            made |= zip(keys, make(jnp.stack([*keys.values()])))
        batch = Batch(ids, tuple(made[v] for v in range(len(task.views))), state.step)
        loss = lambda params: task.loss(  # noqa: E731
            params, state.stats, state.memory, batch, stream(state.key, "loss", state.step, *part)
        )
        return jax.grad(loss, has_aux=True)(state.params)

    def accumulated(state: State, ids: Array, images: Array):
        def split(x):  # [B, ...] -> [A, B / A, ...]: every A-th row, so that a device's rows stay on it
            return jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0)

        def join(x):  # back into the batch's order
            return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])

        def add(so_far, part):
            stats, total = so_far
            number, ids, images = part
            grads, out = gradient(state.replace(stats=stats), ids, images, number)
            return (out.stats, jax.tree.map(jnp.add, total, grads)), (out.carry, out.metrics)

        start = state.stats, jax.tree.map(jnp.zeros_like, state.params)
        parts = jnp.arange(accumulate), split(ids), split(images)
        (stats, total), (carry, metrics) = jax.lax.scan(add, start, parts)
        metrics = {name: jnp.sum(m, 0) if name == "sizes" else jnp.mean(m, 0) for name, m in metrics.items()}
        return jax.tree.map(lambda g: g / accumulate, total), Out(stats, jax.tree.map(join, carry), metrics)

    def step(state: State, chunk: Chunk):
        grads, out = (accumulated if accumulate > 1 else gradient)(state, chunk.ids, chunk.images)
        updates, opt = optimizer.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        memory = task.commit(params, state.memory, chunk.ids, out.carry)
        metrics = {**out.metrics, "grad_norm": optax.tree.norm(grads)}
        return State(state.step + 1, state.key, params, out.stats, opt, memory), metrics

    return step


class Stage(NamedTuple):
    """A pass of the plan, placed in the run."""

    epoch: int
    part: int  # the pass's number within its epoch
    todo: Pass
    start: int  # the step before its first
    steps: int
    last: bool  # of its epoch


def timetable(method: Method, examples: Mapping[str, int], epochs: int, batch_size: int) -> Iterator[Stage]:
    """Every pass of the run in order, with the steps it covers.

    Args:
      method: whose plan is laid out.
      examples: images in each split.
      epochs: the run's epochs.
      batch_size: images in a step.
    """
    start = 0
    for epoch in range(epochs):
        plan = method.plan(epoch)
        for part, todo in enumerate(plan):
            steps = examples[todo.split] // batch_size
            yield Stage(epoch, part, todo, start, steps, last=part == len(plan) - 1)
            start += steps


class Plan(NamedTuple):
    """What is trained and in which order: all that `run` needs beside a state, images and places to write."""

    method: Method
    views: Mapping[str, View]
    optimizer: optax.GradientTransformation
    stages: tuple[Stage, ...]
    mesh: Mesh
    seed: int  # decides the order of the images
    batch_size: int  # over all devices
    accumulate: int  # parts of a batch
    save_every: int  # epochs


Look = Callable[[State, int], None]  # (state, epochs that are done)


def run(
    state: State,
    plan: Plan,
    feeds: Mapping[str, Feed],
    checkpoints: Checkpoints,
    log: Log,
    look: Look,
    due: Due = never,
) -> State:
    """Trains from `state` to the end of the plan, and saves the last state.

    Where `state` lies inside a pass, the pass goes on at its next batch; a refit belongs to the moment before
    a pass's first step, so it is done exactly when no step of the pass is.

    Args:
      state: on every device of the mesh; it is donated.
      plan: what to train.
      feeds: the splits' images.
      checkpoints: where to save.
      log: takes the metrics.
      look: is shown the state between epochs: at the start, and at the end of each.
      due: asked after every batch.

    Raises:
      RunError: a metric is not finite; the checkpoints from before it are kept.
      Preempted: it was due to stop, and the state is saved.
    """
    whole = sharding.replicated(plan.mesh)
    steps = {
        name: jax.jit(
            make_step(task, plan.views, plan.optimizer, plan.accumulate),
            donate_argnums=0,
            out_shardings=(whole, whole),
        )
        for name, task in plan.method.tasks.items()
    }
    done = int(state.step)
    ends = {0: 0} | {stage.start + stage.steps: stage.epoch + 1 for stage in plan.stages if stage.last}
    if done in ends:
        _look(look, state, ends[done], checkpoints, log)
    for stage in plan.stages:
        if stage.start + stage.steps <= done:
            continue
        feed, todo = feeds[stage.todo.split], stage.todo
        if todo.refit and done <= stage.start:
            log.say(f"epoch {stage.epoch + 1}: {todo.refit} from a sweep over the split {todo.split}")
            try:
                state = refit(state, plan, plan.method.refits[todo.refit], feed, due)
            except Preempted:  # the whole refit will be done again
                _save(state, checkpoints, log)
                raise
        order = epoch_order(plan.seed, stage.epoch, stage.part, len(feed), plan.batch_size)
        skip = max(done - stage.start, 0)
        # Nothing may cross between host and devices unasked: one stray transfer a step halves a GPU's speed.
        with jax.transfer_guard("disallow"):
            for i, chunk in enumerate(feed.batches(order[skip:]), start=stage.start + skip + 1):
                state, metrics = steps[todo.task](state, chunk)
                log.push(i, stage.epoch, metrics)
                if due():
                    with jax.transfer_guard("allow"):
                        _save(state, checkpoints, log)
                    raise Preempted
        if stage.last:
            if (stage.epoch + 1) % plan.save_every == 0:
                _save(state, checkpoints, log)
            _look(look, state, stage.epoch + 1, checkpoints, log)
    _save(state, checkpoints, log)
    return state


def _look(look: Look, state: State, epochs: int, checkpoints: Checkpoints, log: Log) -> None:
    try:
        look(state, epochs)
    except Preempted:  # it will be taken when the run goes on, before anything else
        _save(state, checkpoints, log)
        raise


def _save(state: State, checkpoints: Checkpoints, log: Log) -> None:
    log.drain()  # so that what is saved is known to be finite
    checkpoints.save(state)


def refit(state: State, plan: Plan, todo: Refit, feed: Feed, due: Due = never) -> State:
    """Embeds a split, or a sample of it, and lets the method rewrite its parameters and memory from it.

    Raises:
      Preempted: it was due to stop; nothing is rewritten.
    """
    whole = sharding.replicated(plan.mesh)

    @jax.jit
    def embed(state: State, chunk: Chunk):
        x = augment(plan.views[todo.view], stream(state.key, "refit views", state.step), chunk.ids, chunk.images)
        h = todo.embed(state.params, state.stats, state.memory, x, stream(state.key, "refit embed", state.step))
        rows = jax.lax.with_sharding_constraint(h, sharding.batched(plan.mesh))
        return jax.lax.with_sharding_constraint(rows, whole)

    @partial(jax.jit, out_shardings=(whole, whole))
    def update(state: State, h: Array):
        return todo.update(state.params, state.memory, h, stream(state.key, "refit", state.step))

    rows = None
    if 0 < todo.sample < len(feed):
        rows = jax.random.choice(
            stream(state.key, "refit sample", state.step), len(feed), (todo.sample,), replace=False
        )
        rows = np.sort(jax.device_get(rows)).astype(np.int32)
    h = feed.sweep(lambda chunk: embed(state, chunk), plan.batch_size, due, rows)
    params, memory = update(state, sharding.put(h, whole))
    return state.replace(params=params, memory=memory)
