"""What each `--mode` does with a run that `build` has made."""

import contextlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from jaxclust import __version__, config, data, evaluate, predictions, probe, train
from jaxclust.build import Run, feeds
from jaxclust.checkpoint import Checkpoints
from jaxclust.config import ConfigError
from jaxclust.feed import Feed
from jaxclust.files import locked, write_atomically, write_csv, write_json
from jaxclust.log import Log
from jaxclust.preemption import Due, never
from jaxclust.progress import Progress
from jaxclust.types import Prediction, State

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
        state = checkpoints.restore(run.like) if checkpoints.steps else run.init()
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
            write_json(run.workdir / "data.json", {name: source.fingerprint() for name, source in run.sources.items()})
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


def run_evaluation(run: Run, state: State, due: Due = never) -> None:
    """Scores `state`, prints the table and writes `scores.json`."""
    source, method, feed = run.sources["train"], run.plan.method, feeds(run)["train"]
    view, paper_view = run.eval.view, run.eval.paper_view
    how = (source, run.config.clusters, run.config.seed, run.eval.restarts)
    prediction = _predict(run, state, feed, view, due)
    scores = rows = evaluate.score(prediction, *how, due)
    if paper_view != view:
        shown = _predict(run, state, feed, paper_view, due)
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
    name, x = next(iter(_predict(run, state, feeds(run)["train"], run.eval.view, due).embeddings.items()))
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


def _predict(run: Run, state: State, feed: Feed, view: str, due: Due) -> Prediction:
    """The method's prediction of every image of `feed`, shown through the policy `view`."""
    return evaluate.embed(state, run.plan.method, run.plan.views[view], feed, run.plan.mesh, run.eval.batch_size, due)


def range_of(text: str | None) -> range:
    """The numbers of clusters that `--k=LOW:HIGH` asks for.

    Raises:
      ConfigError: it is no such range.
    """
    low, _, high = (text or "2:30").partition(":")
    if not (low.isdecimal() and high.isdecimal() and 2 <= int(low) <= int(high)):
        raise ConfigError(f"--k is {text}; give LOW:HIGH with 2 <= LOW <= HIGH, for example --k=2:30")
    return range(int(low), int(high) + 1)


def run_prepare(settings: data.Settings, origin: Path | None) -> None:
    """Makes the data set of a config as array_record files."""
    from jaxclust import prepare  # what it needs is slow to import, and training needs none of it

    if settings.name in ("digits", "folder"):
        raise ConfigError(f"data.name is {settings.name!r}, which needs no preparing; train with it as it is")
    prepare.prepare(settings.name, data.records.directory(settings.dir), origin)


def run_suggest_k(run: Run, state: State, ks: range, due: Due = never) -> None:
    """Says how many clusters the embeddings of `state` speak for; writes `suggest_k.json` and `suggest_k.png`."""
    from jaxclust import suggest_k  # these are slow to import, and training needs neither
    from jaxclust.suggest_k import curves

    embeddings = _predict(run, state, feeds(run)["train"], run.eval.view, due).embeddings
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
