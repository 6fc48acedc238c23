"""Training for an estimator: the loop, without a report, and with somebody who listens."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import absl.logging

from jaxclust import train
from jaxclust.build import Run, feeds
from jaxclust.checkpoint import Checkpoints
from jaxclust.files import read_records, write_atomically, write_json
from jaxclust.log import Log
from jaxclust.types import State

Tell = Callable[[int, Mapping[str, Any]], None]  # (epochs done, what was measured in the last)


class _Nowhere:
    """Checkpoints of a run that is not kept."""

    def save(self, state: State) -> None:
        pass


def run(r: Run, tell: Tell, keep: bool) -> tuple[State, list[dict[str, Any]]]:
    """Trains from the start to the end, or until `tell` raises StopIteration.

    Args:
      r: what to train.
      tell: is told of each epoch.
      keep: whether the workdir is to be a run that the command can go on with.

    Returns:
      the state, and the metrics of each epoch.
    """
    stopped = []
    if keep:
        write_atomically(r.workdir / "config.json", r.config.to_json(indent=2) + "\n")
        write_json(r.workdir / "data.json", {name: source.about() for name, source in r.sources.items()})
    with (
        Checkpoints(r.workdir, r.checkpoint.keep) if keep else contextlib.nullcontext(_Nowhere()) as checkpoints,
        Log(
            r.workdir,
            step=0,
            steps=r.plan.stages[-1].start + r.plan.stages[-1].steps,
            epochs=r.train.epochs,
            images=r.train.batch_size,
            every=r.train.log_every,
            write=True,
        ) as log,
    ):

        def look(state: State, epochs: int) -> None:
            if not epochs:
                return
            log.drain()
            try:
                tell(epochs, [{}, *history(r.workdir)][-1] | {"epoch": epochs})
            except StopIteration:
                stopped.append(state)
                raise

        try:
            state = train.run(r.init(), r.plan, feeds(r), checkpoints, log, look)
        except StopIteration:
            (state,) = stopped
            checkpoints.save(state)
    return state, history(r.workdir)


def history(workdir: Path) -> list[dict[str, Any]]:
    """The last record of each epoch of a run, counted from 1."""
    records = read_records(workdir / "metrics.jsonl")
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
