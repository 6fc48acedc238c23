"""`--mode=suggest-k`: how many clusters the embeddings of a checkpoint speak for."""

import argparse
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxclust.commands.work.evaluate import predict
from jaxclust.run.errors import ConfigError
from jaxclust.run.files import write_json
from jaxclust.run.preemption import Preemption
from jaxclust.run.workdir import SUGGEST_K, SUGGEST_K_PICTURE
from jaxclust.training import build, configs


def range_of(text: str | None) -> range:
    """The numbers of clusters that `--k=LOW:HIGH` asks for.

    Raises:
      ConfigError: it is no such range.
    """
    low, _, high = (text or "2:30").partition(":")
    if not (low.isdecimal() and high.isdecimal() and 2 <= int(low) <= int(high)):
        raise ConfigError(f"--k is {text}; give LOW:HIGH with 2 <= LOW <= HIGH, for example --k=2:30")
    return range(int(low), int(high) + 1)


def run_suggest_k(run: build.Opened, embeddings: Mapping[str, np.ndarray], ks: range) -> None:
    """Says how many clusters a run's embeddings f[N, D] speak for; writes `suggest_k.json` and `suggest_k.png`."""
    from jaxclust.clusters import suggest_k  # these are slow to import, and training needs neither
    from jaxclust.clusters.suggest_k import curves

    tables = {name: suggest_k.score(x, ks, run.config.seed) for name, x in embeddings.items()}
    name = suggest_k.clearest(tables)
    table = tables[name]
    k, reasons = suggest_k.recommend(table, run.config.clusters)
    columns = {field: column.tolist() for field, column in table._asdict().items() if np.ndim(column)}
    path, picture = run.workdir / SUGGEST_K, run.workdir / SUGGEST_K_PICTURE
    about = {"step": int(run.state.step), "seed": run.config.seed, "embedding": name, "sampled": table.sampled}
    write_json(
        path, {**about, "k": k, "reasons": reasons, "preferences": suggest_k.preferences(table), "table": columns}
    )
    curves.plot(table, k, picture)
    print(f"{suggest_k.headline(table, k)}, from {name} of {table.sampled:,} of {table.images:,} images")
    print("\n".join(f"  {reason}" for reason in reasons))
    if k and k != run.config.clusters:
        print(f"to train for them: the command that began this run, with --config.clusters={k} and another --workdir")
    print(f"the run was trained with {run.config.clusters}; curves in {picture}, numbers in {path}", flush=True)


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    ks = range_of(args.k)
    cfg, workdir = configs.find(args.config, args.workdir, "suggest-k", overrides)
    run = build.open_run(cfg, workdir, args.step)
    said = run.kept()
    # The images are only needed where no evaluation has been made of this checkpoint; all processes must do the same.
    if multihost_utils.broadcast_one_to_all(np.array(said is None)):
        whole = build.assemble(cfg, workdir, "suggest-k")
        said = predict(whole, run.state, build.feeds(whole)["train"], whole.eval.view, preemption.due)
    if jax.process_index() == 0:
        run_suggest_k(run, said.embeddings, ks)
