"""`--mode=probe`: a linear classifier on the frozen features of a checkpoint."""

import argparse
from collections.abc import Mapping

import jax

from jaxclust.clusters import probe
from jaxclust.commands.work.evaluate import predict
from jaxclust.run.files import write_json
from jaxclust.run.preemption import Due, Preemption, never
from jaxclust.run.workdir import PROBE
from jaxclust.training import build
from jaxclust.training.build import Run, feeds
from jaxclust.types import State

BACKBONE = "backbone"


def run_probe(run: Run, state: State, due: Due = never) -> None:
    """Trains a linear classifier on the frozen features of `state`, prints its accuracy and writes `probe.json`."""
    prediction = predict(run, state, feeds(run)["train"], run.eval.view, due)
    # A probe is of the representation that the heads were trained on, not of a head.
    name = BACKBONE if BACKBONE in prediction.embeddings else run.plan.method.space
    x = prediction.embeddings[name]
    held_out, seed = run.eval.held_out, run.config.seed
    scores = probe.score(x, run.sources["train"].labels, held_out, seed)
    if jax.process_index() == 0:
        step, path = int(state.step), run.workdir / PROBE
        write_json(path, {"step": step, "seed": seed, "embedding": name, "held_out": held_out, **scores})
        print(
            f"step {step}, linear probe of {name}: accuracy {scores['accuracy']:.3f} on {held_out:,} held-out images, "
            f"{scores['train_accuracy']:.3f} on the {len(x) - held_out:,} it was trained on; scores in {path}",
            flush=True,
        )


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    run = build.build(args.config, args.workdir, "probe", overrides)
    state = build.restore(run, args.step)
    run_probe(run, state, preemption.due)
