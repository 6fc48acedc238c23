"""The training loop. It knows no method and no data set by name: a method is a plan of passes over splits.

state = run(...)      the whole of training, from a state to the last step
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxclust.data.feed import Feed, epoch_order
from jaxclust.run import sharding
from jaxclust.run.checkpoint import Checkpoints
from jaxclust.run.errors import ConfigError
from jaxclust.run.preemption import Due, Preempted, never
from jaxclust.run.schema import option
from jaxclust.training.log import Log
from jaxclust.training.optim import Optimizer
from jaxclust.training.refit import make_refit
from jaxclust.training.step import make_step
from jaxclust.training.timetable import Stage
from jaxclust.types import Method, State
from jaxclust.views import View


@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: int = option(at_least=1)
    batch_size: int = option(at_least=1)  # over all devices
    # Parts of a batch, taken one after another; batch normalisation sees one at a time; 1 is no parts.
    accumulate: int = option(1, at_least=1)
    log_every: int = option(50, at_least=1)  # steps between records of the scalars

    def __post_init__(self):
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"train.accumulate is {self.accumulate}, which does not divide train.batch_size, {self.batch_size}"
            )


AT_STAKE = 60.0  # seconds of work that are saved before something that can only be broken off


class Plan(NamedTuple):
    """What is trained and in which order: all that `run` needs beside a state, images and places to write."""

    method: Method
    views: Mapping[str, View]
    optimizers: Mapping[str, Optimizer]
    stages: tuple[Stage, ...]
    mesh: Mesh
    seed: int  # decides the order of the images
    batch_size: int  # over all devices
    accumulate: int  # parts of a batch
    save_every: int  # epochs
    save_minutes: float


Look = Callable[[State, int], None]  # (state, epochs that are done)
Free = Callable[[], contextlib.AbstractContextManager[None]]


class Saves:
    """Keeps the state, as often as the plan says, and before what can only be broken off.

    Args:
      plan: what is trained.
      checkpoints: where to save.
      log: has taken the metrics of all steps.
      free: as `run` takes it.
    """

    def __init__(self, plan: Plan, checkpoints: Checkpoints, log: Log, free: Free):
        self._checkpoints, self._log, self._free = checkpoints, log, free
        # Of several processes each has a clock of its own, and all must save at the same step.
        self._seconds = plan.save_minutes * 60 if jax.process_count() == 1 else math.inf
        self._since: float | None = None  # when the oldest work was begun that is not saved
        self._used: set[str] = set()

    def save(self, state: State) -> None:
        """Starts to write the state."""
        with jax.transfer_guard("allow"):
            self._log.drain()  # so that what is saved is known to be finite
            self._checkpoints.save(state)
        self._since = None

    def worked(self) -> None:
        """Is told after every step and refit."""
        self._since = time.monotonic() if self._since is None else self._since

    def overdue(self, seconds: float | None = None) -> bool:
        """Whether work is unsaved for longer than so many seconds, or than the plan allows."""
        limit = self._seconds if seconds is None else seconds
        return self._since is not None and time.monotonic() - self._since > limit

    @contextlib.contextmanager
    def first_use(self, name: str, state: State) -> Iterator[None]:
        """For a use of the program of that name, which is compiled by the first one; what came before is saved then."""
        if name in self._used:
            yield
            return
        self._used.add(name)
        if self.overdue(min(AT_STAKE, self._seconds)):
            self.save(state)
            self._checkpoints.wait()
        with self._log.compiling(name), self._free():
            yield

    def look(self, look: Look, state: State, epochs: int) -> None:
        """Shows the state; where that is broken off, it will be done when the run goes on, before anything else."""
        try:
            with self.first_use("the look at the clusters", state):
                look(state, epochs)
        except Preempted:
            self.save(state)
            raise


def run(
    state: State,
    plan: Plan,
    feeds: Mapping[str, Feed],
    checkpoints: Checkpoints,
    log: Log,
    look: Look,
    due: Due = never,
    free: Free = contextlib.nullcontext,
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
      free: is entered for what may take minutes and cannot be asked to stop, with next to nothing unsaved.

    Raises:
      RunError: a metric is not finite; the checkpoints from before it are kept.
      Preempted: it was due to stop, and the state is saved.
    """
    steps, refits = programs(plan)
    done = int(state.step)
    saves = Saves(plan, checkpoints, log, free)
    ends = {0: 0} | {stage.start + stage.steps: stage.epoch + 1 for stage in plan.stages if stage.last}
    epochs = plan.stages[-1].epoch + 1
    if done and _is_done(plan.method, state):
        saves.look(look, state, epochs)
        return state
    if done in ends:
        saves.look(look, state, ends[done])
    for stage in plan.stages:
        if stage.start + stage.steps <= done:
            continue
        feed, todo = feeds[stage.todo.split], stage.todo
        if todo.refit and done <= stage.start:
            log.say(f"epoch {stage.epoch + 1}: {todo.refit} from a sweep over the split {todo.split}")
            try:
                with saves.first_use(f"the refit {todo.refit}", state):
                    state = refits[todo.refit](state, feed, due)
                saves.worked()
            except Preempted:  # the whole refit will be done again
                saves.save(state)
                raise
            ended = _is_done(plan.method, state)
            if ended or not todo.tasks:
                state = state.replace(step=sharding.put(np.int32(stage.start + 1), sharding.replicated(plan.mesh)))
            if ended:
                log.say(f"epoch {stage.epoch + 1}: {todo.refit} ends the training")
                saves.look(look, state, epochs)
                break
        state = _pass(state, plan, stage, max(done - stage.start, 0), steps, feed, saves, log, due)
        if stage.last:
            if (stage.epoch + 1) % plan.save_every == 0:
                saves.save(state)
            saves.look(look, state, stage.epoch + 1)
    saves.save(state)
    return state


def _pass(
    state: State,
    plan: Plan,
    stage: Stage,
    skip: int,
    steps: Mapping[str, Callable],
    feed: Feed,
    saves: Saves,
    log: Log,
    due: Due,
) -> State:
    """The steps of a pass but for the first `skip`, which are done."""
    tasks = stage.todo.tasks
    if not tasks:
        return state
    order = epoch_order(plan.seed, stage.epoch, stage.part, len(feed), plan.batch_size)[: stage.steps]
    chunks = [feed.batches(order[skip:])]
    if wanted := next((p for name in tasks if (p := plan.method.tasks[name].partners)), None):
        table = np.asarray(jax.device_get(state.memory[wanted.table]))
        chunks.append(feed.batches(partner_order(plan.seed, stage, order, table, wanted.draws)[skip:]))
    # Nothing may cross between host and devices unasked: one stray transfer a step halves a GPU's speed.
    with jax.transfer_guard("disallow"):
        for i, (chunk, *others) in enumerate(zip(*chunks), start=stage.start + skip + 1):
            task = tasks[(i - 1 - stage.start) % len(tasks)]
            with saves.first_use(f"the task {task}", state):
                state, metrics = steps[task](state, chunk, *(others if plan.method.tasks[task].partners else ()))
            saves.worked()
            log.push(i, stage.epoch, metrics)
            if due():
                saves.save(state)
                raise Preempted
            if saves.overdue():
                saves.save(state)
    return state


def partner_order(seed: int, stage: Stage, order: np.ndarray, table: np.ndarray, count: int) -> np.ndarray:
    """The rows of the partners of each step of a pass, i32[steps, B M]; a function of the seed and the pass.

    Args:
      seed: the run's.
      stage: the pass.
      order: i32[steps, B], the rows of each step.
      table: i32[N, k], what partners a row has.
      count: M, how many are drawn for each row.
    """
    rng = np.random.Generator(np.random.Philox([seed, stage.epoch, stage.part, 1]))
    column = rng.integers(0, table.shape[1], (*order.shape, count))
    return table[order[..., None], column].reshape(len(order), -1).astype(np.int32)


def programs(plan: Plan) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """The steps of every task and the refits by name, each compiled at its first use and never again."""
    whole = sharding.replicated(plan.mesh)
    steps = {
        name: jax.jit(
            make_step(task, plan.views, plan.optimizers, plan.accumulate),
            donate_argnums=0,
            out_shardings=(whole, whole),
        )
        for name, task in plan.method.tasks.items()
    }
    refits = {
        name: make_refit(todo, plan.views, plan.mesh, plan.batch_size) for name, todo in plan.method.refits.items()
    }
    return steps, refits


def _is_done(method: Method, state: State) -> bool:
    return method.done is not None and bool(jax.device_get(method.done(state.memory)))
