"""`--mode=evaluate`: the scores of a checkpoint."""

import argparse
import logging
from collections.abc import Mapping

import jax

from jaxclust.clusters import embed, evaluate, journal, predictions, table
from jaxclust.data.feed import Feed
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import write_json
from jaxclust.run.preemption import Due, Preemption, never
from jaxclust.run.workdir import SCORES
from jaxclust.training import build
from jaxclust.training.build import Run, feeds
from jaxclust.types import Prediction, State

logger = logging.getLogger(__name__)


def predict(run: Run, state: State, feed: Feed, view: str, due: Due) -> Prediction:
    """The method's prediction of every image of `feed`, shown through the policy `view`.

    Raises:
      ConfigError: some of the run's images are gone.
    """
    if run.gone:
        raise ConfigError(
            f"{run.gone:,} images of the run in {run.workdir} are gone, and no evaluation of this checkpoint is kept; "
            f"restore them, or give the --step of a checkpoint that was evaluated"
        )
    return embed.train_split(
        state, run.plan.method, run.plan.views[view], feed, run.plan.mesh, run.eval.batch_size, due
    )


def run_evaluation(run: Run, state: State, due: Due = never) -> None:
    """Scores `state`, prints the table and writes `scores.json`."""
    source, method, feed = run.sources["train"], run.plan.method, feeds(run)["train"]
    view, paper_view = run.eval.view, run.eval.paper_view
    how = (method.space, source, run.config.clusters, run.config.seed, run.eval.restarts)
    prediction = predict(run, state, feed, view, due)
    scores = rows = evaluate.score(prediction, *how, due)
    if paper_view != view:
        shown = predict(run, state, feed, paper_view, due)
        rows = {name: evaluate.row(name, shown, *how) for name in set(method.reported.values())}
    paper = {name: rows[row] for name, row in method.reported.items()}
    if jax.process_index() == 0:
        step = int(state.step)
        predictions.save(run.workdir, step, view, source.fingerprint(), prediction)
        write_json(run.workdir / SCORES, {"step": step, "seed": run.config.seed, **scores, "paper": paper})
        if source.names and prediction.q is not None:
            decided = journal.of_step(run.workdir, step, run.config.clusters)
            members = decided.members(prediction.q, prediction.embeddings[method.space], source.names)
            path = table.write(run.workdir, source.names, decided.groups(), *members)
            print(f"the cluster of every image is in {path}")
        print(f"step {step}, {len(source.images):,} images, scores in {run.workdir / SCORES}")
        print(evaluate.table(scores, paper), flush=True)
        if fitted := scores["kmeans_pixels"].get("fitted"):
            print(f"k-means found its centres among {fitted:,} of the images, evenly spaced")


def note_decisions(run: Run, step: int, unheard: type[ConfigError]) -> None:
    """Says so, where what follows is without what somebody has decided, for a reason that is no failure of the mode.

    Raises:
      ConfigError: it is for another reason.
    """
    try:
        journal.load(run.workdir, step, run.config.clusters)
    except unheard as e:
        if jax.process_index() == 0:
            logger.warning("note: what follows is without a person's decisions: %s", e)


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    run = build.build(args.config, args.workdir, "evaluate", overrides)
    state = build.restore(run, args.step)
    note_decisions(run, int(state.step), ConfigError)
    run_evaluation(run, state, preemption.due)
