"""Showing a run: its report, several runs beside each other, and the page to work in."""

import functools
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxclust import config, decisions, predictions
from jaxclust.build import Run, feeds
from jaxclust.checkpoint import Checkpoints
from jaxclust.config import ConfigError
from jaxclust.modes.scoring import predict, run_evaluation
from jaxclust.preemption import Due, Preempted, never
from jaxclust.report import facts
from jaxclust.types import State


def run_report(run: Run, state: State, due: Due = never) -> None:
    """Writes the page about `state`, and evaluates it first where that has not been done.

    Raises:
      Preempted: it was due to stop.
    """
    source, step, scores = run.sources["train"], int(state.step), run.workdir / "scores.json"
    about = step, run.eval.view, source.fingerprint()
    todo = False
    if jax.process_index() == 0:
        scored = scores.is_file() and config.read_json(scores)["step"] == step
        todo = not scored or predictions.load(run.workdir, *about) is None
    # Process 0 may only just have written them, and all must do the same.
    if multihost_utils.broadcast_one_to_all(np.array(todo)):
        run_evaluation(run, state, due)
    if due():
        raise Preempted
    if jax.process_index() != 0:
        return
    from jaxclust.report import page  # slow to import

    said = predictions.load(run.workdir, *about)
    decided = decisions.load(run.workdir, step, run.config.clusters)
    found = facts.gather(run.workdir, run.config.to_dict(), step, source, said, decided)
    print(f"the report is {page.write(found, run.workdir / 'report')}", flush=True)


def run_compare(runs: str | None, workdir: Path | None) -> None:
    """Writes one table of several runs."""
    from jaxclust.report import compare

    if not runs:
        raise ConfigError("--mode=compare needs --runs=A,B,..., workdirs of runs or folders that hold some")
    compare.run([Path(name) for name in runs.split(",") if name], workdir or Path("compare"))


def run_browse(run: Run, step: int | None, port: int) -> None:
    """Serves the page to work in, about the checkpoint of `step` or the newest, until it is interrupted."""
    from jaxclust.browse import library, server
    from jaxclust.predict import model

    source = run.sources["train"]
    with Checkpoints(run.workdir, keep=None) as checkpoints:
        step = checkpoints.steps[-1] if step is None and checkpoints.steps else step
        about = run.eval.view, source.fingerprint()
        said = None if step is None else predictions.load(run.workdir, step, *about)
        if said is None:
            state = checkpoints.restore(run.like, step)
            step = int(state.step)
            said = predict(run, state, feeds(run)["train"], run.eval.view, never)
            predictions.save(run.workdir, step, *about, said)
    q, x = facts.assigned(said, run.config.clusters, run.config.seed)

    @functools.cache
    def sorter() -> model.Sorter:  # restores and compiles, which only a search needs
        return model.Sorter(model.read(run.workdir, step))

    def embed(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        said = [*sorter().all(images)]
        return np.concatenate([s.q for s in said]), np.concatenate([s.embeddings[s.first] for s in said])

    root = Path(run.config.data.dir).expanduser() if run.config.data.name == "folder" else None
    server.serve(
        library.Library(run.workdir, step, source.images, source.names, root if root and root.is_dir() else None, q, x),
        port,
        embed,
    )
