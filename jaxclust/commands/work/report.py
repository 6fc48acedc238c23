"""`--mode=report`: a page about a run."""

import argparse
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxclust.clusters import journal, predictions, table
from jaxclust.commands.work.evaluate import note_decisions, run_evaluation
from jaxclust.data import originals
from jaxclust.pages.report import facts
from jaxclust.run.files import read_json
from jaxclust.run.preemption import Due, Preempted, Preemption, never
from jaxclust.run.workdir import REPORT, SCORES
from jaxclust.training import build
from jaxclust.training.build import Run
from jaxclust.types import State


def run_report(run: Run, state: State, due: Due = never) -> None:
    """Writes the page about `state`, and evaluates it first where that has not been done.

    Raises:
      Preempted: it was due to stop.
    """
    source, step, scores = run.sources["train"], int(state.step), run.workdir / SCORES
    about = step, run.eval.view, source.fingerprint()
    todo = False
    if jax.process_index() == 0:
        scored = scores.is_file() and read_json(scores).get("step") == step
        todo = not scored or predictions.load(run.workdir, *about) is None
    # Process 0 may only just have written them, and all must do the same.
    if multihost_utils.broadcast_one_to_all(np.array(todo)):
        run_evaluation(run, state, due)
    if due():
        raise Preempted
    if jax.process_index() != 0:
        return
    from jaxclust.pages.report import page  # slow to import

    said = predictions.load(run.workdir, *about)
    decided = journal.of_step(run.workdir, step, run.config.clusters)
    files = originals.of(source, run.config.data)
    found = facts.gather(run.workdir, run.config.to_dict(), step, source, said, run.plan.method.space, decided, files)
    if found.files:
        table.write(run.workdir, found.files, found.groups, found.group, found.confidence)
    print(f"the report is {page.write(found, run.workdir / REPORT)}", flush=True)


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    run = build.build(args.config, args.workdir, "report", overrides)
    state = build.restore(run, args.step)
    note_decisions(run, int(state.step), journal.OtherStep)
    run_report(run, state, preemption.due)
