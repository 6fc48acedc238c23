"""`--mode=train`: the training itself, then its evaluation and its report."""

import argparse
import contextlib
import importlib.metadata
import logging
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping

import jax

from jaxclust import __version__
from jaxclust.commands.work.evaluate import run_evaluation
from jaxclust.commands.work.report import run_report
from jaxclust.run import config
from jaxclust.run.checkpoint import Checkpoints, decided_on
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import write_csv, write_json
from jaxclust.run.locks import locked
from jaxclust.run.preemption import Due, Preemption, never
from jaxclust.run.workdir import CONFIG, DECISIONS, ENVIRONMENT, LOCK, SINGLE_COLOUR, SKIPPED
from jaxclust.training import build, loop, weights
from jaxclust.training.build import Run, feeds
from jaxclust.training.log import Log
from jaxclust.training.looks import Progress
from jaxclust.types import State

logger = logging.getLogger(__name__)

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
            held.enter_context(locked(run.workdir / LOCK))
        except BlockingIOError as e:
            raise ConfigError(
                f"another run is at work in {run.workdir} ({e.strerror}); wait for it, or give another --workdir"
            ) from e
        except OSError as e:
            logger.warning("warning: %s cannot be locked (%s), so start no second run in it", run.workdir, e.strerror)
        yield


def announce(run: Run) -> None:
    """Says the config, package versions and devices, and keeps them beside the run."""
    if jax.process_index() != 0:
        return
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    devices = [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()]
    about = {"jaxclust": __version__, "python": platform.python_version(), **versions, "devices": devices}
    write_json(run.workdir / ENVIRONMENT, about)
    if sys.stdout.isatty():
        logger.info("the settings are in %s", run.workdir / CONFIG)
    else:  # a log has them all; on a terminal they would hide what follows
        for name, value in config.flatten(run.config.to_dict()).items():
            logger.info("%s = %r", name, value)
    logger.info("%s", ", ".join(f"{name} {version}" for name, version in about.items() if name != "devices"))
    logger.info("%s", f"{len(devices)} device{'s' * (len(devices) > 1)}: {', '.join(devices)}")
    steps, images = run.plan.stages[-1].start + run.plan.stages[-1].steps, len(run.sources["train"].images)
    epochs, size = run.train.epochs, run.train.batch_size
    logger.info("%s", f"{images:,} images, {epochs:,} epochs: {steps:,} steps of {size:,}")


def run_training(run: Run, due: Due = never, free: loop.Free = contextlib.nullcontext) -> State:
    """Trains to the end, from the newest checkpoint where there is one.

    Raises:
      Preempted: it was due to stop, and the state is saved.
    """
    with Checkpoints(run.workdir, run.checkpoint.keep) as checkpoints:
        with free():  # nothing has been done yet
            if checkpoints.steps:
                state = checkpoints.restore(run.like)
            else:
                state = weights.start(run.config.net.init_from, run.init, run.like)
        step, last = int(state.step), run.plan.stages[-1]
        lead = jax.process_index() == 0
        if lead:
            if step:
                logger.info("resuming from step %d in %s", step, run.workdir)
            for name in set(run.plan.method.refits) - {stage.todo.refit for stage in run.plan.stages}:
                logger.warning(
                    "note: %d epochs end before the %s are fitted, so the clusters stay untrained",
                    run.train.epochs,
                    name,
                )
            build.begin(run)
            _report_skipped(run)
            _note_decisions(run, step)
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
            return loop.run(state, run.plan, drawn, checkpoints, log, progress.look, due, free)


def _report_skipped(run: Run) -> None:
    """Says what was found beside the images and is not among them, and which of them show nothing."""
    path = run.workdir / SKIPPED
    skipped = [row for source in run.sources.values() for row in source.skipped]
    write_csv(path, ("file", "reason"), skipped)
    if skipped:
        logger.info("%s", f"left out {len(skipped):,} of the files found; {path} says which and why")
    if plain := [(name,) for source in run.sources.values() for name in source.plain]:
        write_csv(run.workdir / SINGLE_COLOUR, ("file",), plain)
        logger.info("%s", f"images of a single colour: {len(plain):,}; {run.workdir / SINGLE_COLOUR} lists them")


def _note_decisions(run: Run, step: int) -> None:
    """Says what becomes of a person's decisions when the run goes on to other clusters."""
    decided, last = decided_on(run.workdir), run.plan.stages[-1]
    if decided is not None and step < last.start + last.steps:
        logger.warning(
            "note: what has been decided in %s is about the clusters of step %d, and training makes others: that "
            "checkpoint is kept, and browse, report, predict and export have the decisions with --step=%d",
            run.workdir / DECISIONS,
            decided,
            decided,
        )


def _next(run: Run) -> str:
    """What can be done with a run that has ended, as commands."""
    here = f"--workdir={shlex.quote(str(run.workdir))}"
    todo = {"look through the clusters, name and mend them": f"jaxclust --mode=browse {here}"}
    if run.config.data.name == "folder":
        todo["sort other images into them"] = f"jaxclust --mode=predict {here} --images=NEW_PHOTOS --into=SORTED"
    todo["train on"] = f"jaxclust {here} --config.train.epochs={2 * run.train.epochs}"
    return "\n".join(f"to {what}: {command}" for what, command in todo.items())


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    run = build.build(args.config, args.workdir, "train", overrides)
    with alone(run):
        announce(run)
        with preemption.held():
            state = run_training(run, preemption.due, preemption.free)
        run_evaluation(run, state, preemption.due)
        if run.report.page:
            run_report(run, state, preemption.due)
    if jax.process_index() == 0:
        logger.info("%s", _next(run))
