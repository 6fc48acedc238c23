"""Making things: data sets, and the training itself."""

import contextlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxclust import __version__, config, data, train
from jaxclust.build import Run, feeds
from jaxclust.checkpoint import Checkpoints
from jaxclust.config import ConfigError
from jaxclust.files import locked, write_atomically, write_csv, write_json
from jaxclust.interop import weights
from jaxclust.log import Log
from jaxclust.preemption import Due, never
from jaxclust.progress import Progress
from jaxclust.types import State

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "scikit-learn",
    "numpy",
)


@contextlib.contextmanager
def alone(run: Run) -> Iterator[None]:
    """Keeps other runs out of the workdir.

    Raises:
      ConfigError: one is at work there.
    """
    if jax.process_index() != 0:
        yield
        return
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(run.workdir / ".lock"))
        except BlockingIOError as e:
            raise ConfigError(
                f"another run is at work in {run.workdir} ({e.strerror}); wait for it, or give another --workdir"
            ) from e
        except OSError as e:
            print(
                f"warning: {run.workdir} cannot be locked ({e.strerror}), so start no second run in it", file=sys.stderr
            )
        yield


def announce(run: Run) -> None:
    """Prints the config, package versions and devices, and keeps them beside the run."""
    if jax.process_index() != 0:
        return
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    devices = [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()]
    about = {"jaxclust": __version__, "python": platform.python_version(), **versions, "devices": devices}
    write_json(run.workdir / "environment.json", about)
    print("\n".join(f"{name} = {value!r}" for name, value in config.flatten(run.config.to_dict()).items()))
    print(", ".join(f"{name} {version}" for name, version in about.items() if name != "devices"))
    print(f"{len(devices)} device{'s' * (len(devices) > 1)}: {', '.join(devices)}", flush=True)


def run_training(run: Run, due: Due = never) -> State:
    """Trains to the end, from the newest checkpoint where there is one.

    Raises:
      Preempted: it was due to stop, and the state is saved.
    """
    with Checkpoints(run.workdir, run.checkpoint.keep) as checkpoints:
        if checkpoints.steps:
            state = checkpoints.restore(run.like)
        else:
            state = weights.start(run.config.net.init_from, run.init, run.like)
        step, last = int(state.step), run.plan.stages[-1]
        lead = jax.process_index() == 0
        if lead:
            if step:
                print(f"resuming from step {step} in {run.workdir}", flush=True)
            for name in set(run.plan.method.refits) - {stage.todo.refit for stage in run.plan.stages}:
                print(
                    f"note: {run.train.epochs} epochs end before the {name} are fitted, so the clusters stay untrained",
                    file=sys.stderr,
                )
            write_atomically(run.workdir / "config.json", run.config.to_json(indent=2) + "\n")
            write_json(run.workdir / "data.json", {name: source.about() for name, source in run.sources.items()})
            _report_skipped(run)
        with Log(
            run.workdir,
            step=step,
            steps=last.start + last.steps,
            epochs=run.train.epochs,
            images=run.train.batch_size,
            every=run.train.log_every,
            write=lead,
        ) as log:
            drawn = feeds(run)
            progress = Progress(
                run.workdir,
                run.plan,
                run.sources["train"],
                drawn["train"],
                run.eval.view,
                run.eval.batch_size,
                run.report,
                write=lead,
                due=due,
            )
            progress.resume(step)
            return train.run(state, run.plan, drawn, checkpoints, log, progress.look, due)


def _report_skipped(run: Run) -> None:
    """Says what was found beside the images and is not among them."""
    path = run.workdir / "skipped.csv"
    skipped = [row for source in run.sources.values() for row in source.skipped]
    write_csv(path, ("file", "reason"), skipped)
    if skipped:
        print(f"left out {len(skipped):,} of the files found; {path} says which and why", flush=True)


def run_prepare(settings: data.Settings, origin: Path | None) -> None:
    """Makes the data set of a config as array_record files."""
    from jaxclust import prepare  # what it needs is slow to import, and training needs none of it

    if settings.name in ("digits", "folder"):
        raise ConfigError(f"data.name is {settings.name!r}, which needs no preparing; train with it as it is")
    prepare.prepare(settings.name, data.records.directory(settings.dir), origin)
