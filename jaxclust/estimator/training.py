"""Training for an estimator: the loop, without a report, and with somebody who listens."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import absl.logging

from jaxclust.run.checkpoint import Checkpoints
from jaxclust.run.files import read_records
from jaxclust.run.preemption import Due, Preempted, never
from jaxclust.run.workdir import METRICS
from jaxclust.training import loop
from jaxclust.training.build import Run, begin, feeds
from jaxclust.training.log import Log
from jaxclust.types import State

logger = logging.getLogger(__name__)

Tell = Callable[[int, Mapping[str, Any]], None]  # (epochs done, what was measured in the last)


class _Saved:
    """Keeps the last state that was saved at hand, and, where the run is kept, on the disk."""

    def __init__(self, checkpoints: Checkpoints | None):
        self._checkpoints = checkpoints
        self.last: State | None = None

    def save(self, state: State) -> None:
        self.last = state
        if self._checkpoints:
            self._checkpoints.save(state)

    def wait(self) -> None:
        if self._checkpoints:
            self._checkpoints.wait()


@contextlib.contextmanager
def _interruptible() -> Iterator[Due]:
    """Whether Ctrl-C was given; a second one is Python's. Where others hear it, or in another thread, all are."""
    python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not python or threading.current_thread() is not threading.main_thread():
        yield never
        return
    asked: list[int] = []

    def hear(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    signal.signal(signal.SIGINT, hear)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run(r: Run, tell: Tell, keep: bool, bar: bool) -> tuple[State, list[dict[str, Any]]]:
    """Trains to the end, or until `tell` raises StopIteration or Ctrl-C is given; from where the workdir's run is.

    Args:
      r: what to train.
      tell: is told of each epoch.
      keep: whether the workdir is to be a run that the command can go on with.
      bar: whether to show a progress bar.

    Returns:
      the state, and the metrics of each epoch.

    Raises:
      KeyboardInterrupt: before the first step, or a second time.
    """
    stopped = []
    if keep:
        begin(r)
    with contextlib.ExitStack() as held:
        checkpoints = held.enter_context(Checkpoints(r.workdir, r.checkpoint.keep)) if keep else None
        state = checkpoints.restore(r.like) if checkpoints and checkpoints.steps else r.init()
        begun, saved = int(state.step), _Saved(checkpoints)
        log = Log(
            r.workdir,
            step=begun,
            steps=r.plan.stages[-1].start + r.plan.stages[-1].steps,
            epochs=r.train.epochs,
            images=r.train.batch_size,
            every=r.train.log_every,
            write=True,
            bar=bar,
        )
        held.enter_context(log)
        due = held.enter_context(_interruptible())

        def look(state: State, epochs: int) -> None:
            if not epochs or int(state.step) == begun:
                return
            log.drain()
            try:
                tell(epochs, [{}, *history(r.workdir)][-1] | {"epoch": epochs})
            except StopIteration:
                stopped.append(state)
                raise

        try:
            state = loop.run(state, r.plan, feeds(r), cast(Checkpoints, saved), log, look, due)
        except StopIteration:
            (state,) = stopped
            saved.save(state)
        except Preempted:
            if saved.last is None or not int(saved.last.step):
                raise KeyboardInterrupt from None
            state = saved.last
            logger.warning(
                "interrupted: fitted with what %d of %d steps have learnt%s",
                int(state.step),
                r.plan.stages[-1].start + r.plan.stages[-1].steps,
                f"; fit with workdir={str(r.workdir)!r} goes on" if keep else "",
            )
    return state, history(r.workdir)


def history(workdir: Path) -> list[dict[str, Any]]:
    """The last record of each epoch of a run, counted from 1."""
    records = read_records(workdir / METRICS)
    return [*{r["epoch"]: r | {"epoch": r["epoch"] + 1} for r in records}.values()]


@contextlib.contextmanager
def libraries_silent() -> Iterator[None]:
    """Without what Orbax says of its work."""
    before = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        yield
    finally:
        absl.logging.set_verbosity(before)
