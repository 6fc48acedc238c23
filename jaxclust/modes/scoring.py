"""Scoring a checkpoint: its clusters, a linear probe of its features, how many clusters they speak for."""

import jax
import numpy as np

from jaxclust import evaluate, predictions, probe
from jaxclust.build import Run, feeds
from jaxclust.config import ConfigError
from jaxclust.feed import Feed
from jaxclust.files import write_csv, write_json
from jaxclust.preemption import Due, never
from jaxclust.types import Prediction, State


def predict(run: Run, state: State, feed: Feed, view: str, due: Due) -> Prediction:
    """The method's prediction of every image of `feed`, shown through the policy `view`."""
    return evaluate.embed(state, run.plan.method, run.plan.views[view], feed, run.plan.mesh, run.eval.batch_size, due)


def run_evaluation(run: Run, state: State, due: Due = never) -> None:
    """Scores `state`, prints the table and writes `scores.json`."""
    source, method, feed = run.sources["train"], run.plan.method, feeds(run)["train"]
    view, paper_view = run.eval.view, run.eval.paper_view
    how = (source, run.config.clusters, run.config.seed, run.eval.restarts)
    prediction = predict(run, state, feed, view, due)
    scores = rows = evaluate.score(prediction, *how, due)
    if paper_view != view:
        shown = predict(run, state, feed, paper_view, due)
        rows = {name: evaluate.row(name, shown, *how) for name in set(method.reported.values())}
    paper = {name: rows[row] for name, row in method.reported.items()}
    if jax.process_index() == 0:
        step, path = int(state.step), run.workdir / "scores.json"
        predictions.save(run.workdir, step, view, source.fingerprint(), prediction)
        write_json(path, {"step": step, "seed": run.config.seed, **scores, "paper": paper})
        if source.names and prediction.q is not None:
            write_csv(run.workdir / "clusters.csv", *evaluate.assignments(prediction.q, source.names))
            print(f"the cluster of every image is in {run.workdir / 'clusters.csv'}")
        print(f"step {step}, {len(source.images):,} images, scores in {path}")
        print(evaluate.table(scores, paper), flush=True)


def run_probe(run: Run, state: State, due: Due = never) -> None:
    """Trains a linear classifier on the frozen features of `state`, prints its accuracy and writes `probe.json`."""
    prediction = predict(run, state, feeds(run)["train"], run.eval.view, due)
    name, x = prediction.first, prediction.embeddings[prediction.first]
    held_out, seed = run.eval.held_out, run.config.seed
    scores = probe.score(x, run.sources["train"].labels, held_out, seed)
    if jax.process_index() == 0:
        step, path = int(state.step), run.workdir / "probe.json"
        write_json(path, {"step": step, "seed": seed, "embedding": name, "held_out": held_out, **scores})
        print(
            f"step {step}, linear probe of {name}: accuracy {scores['accuracy']:.3f} on {held_out:,} held-out images, "
            f"{scores['train_accuracy']:.3f} on the {len(x) - held_out:,} it was trained on; scores in {path}",
            flush=True,
        )


def range_of(text: str | None) -> range:
    """The numbers of clusters that `--k=LOW:HIGH` asks for.

    Raises:
      ConfigError: it is no such range.
    """
    low, _, high = (text or "2:30").partition(":")
    if not (low.isdecimal() and high.isdecimal() and 2 <= int(low) <= int(high)):
        raise ConfigError(f"--k is {text}; give LOW:HIGH with 2 <= LOW <= HIGH, for example --k=2:30")
    return range(int(low), int(high) + 1)


def run_suggest_k(run: Run, state: State, ks: range, due: Due = never) -> None:
    """Says how many clusters the embeddings of `state` speak for; writes `suggest_k.json` and `suggest_k.png`."""
    from jaxclust import suggest_k  # these are slow to import, and training needs neither
    from jaxclust.suggest_k import curves

    embeddings = predict(run, state, feeds(run)["train"], run.eval.view, due).embeddings
    tables = {name: suggest_k.score(x, ks, run.config.seed) for name, x in embeddings.items()}
    name = suggest_k.clearest(tables)
    table = tables[name]
    k, reasons = suggest_k.recommend(table, run.config.clusters)
    if jax.process_index() != 0:
        return
    columns = {field: column.tolist() for field, column in table._asdict().items() if np.ndim(column)}
    path, picture = run.workdir / "suggest_k.json", run.workdir / "suggest_k.png"
    about = {"step": int(state.step), "seed": run.config.seed, "embedding": name, "sampled": table.sampled}
    write_json(
        path, {**about, "k": k, "reasons": reasons, "preferences": suggest_k.preferences(table), "table": columns}
    )
    curves.plot(table, k, picture)
    print(f"{k} clusters, from {name} of {table.sampled:,} of {table.images:,} images" if k else "no clear clusters")
    print("\n".join(f"  {reason}" for reason in reasons))
    print(f"the run was trained with {run.config.clusters}; curves in {picture}, numbers in {path}", flush=True)
