"""`--mode=browse`: the page to work in."""

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxclust.clusters import predictions
from jaxclust.commands.browse import PORT
from jaxclust.commands.work.evaluate import predict
from jaxclust.data import originals
from jaxclust.pages.report import facts
from jaxclust.run.checkpoint import Checkpoints
from jaxclust.run.files import expanded
from jaxclust.run.preemption import Preemption, never
from jaxclust.training import build
from jaxclust.training.build import Run, feeds


def run_browse(run: Run, step: int | None, port: int) -> None:
    """Serves the page to work in, about the checkpoint of `step` or the newest, until it is interrupted."""
    from jaxclust.inference import model
    from jaxclust.inference.arrange import arrange
    from jaxclust.pages.browse import library, server, serving

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
    q, x = facts.assigned(said, run.plan.method.space, run.config.clusters, run.config.seed)

    @functools.cache
    def sorter() -> model.Sorter:  # restores and compiles, which only a search needs
        return model.Sorter(model.read(run.workdir, step))

    def embed(image: np.ndarray) -> server.Embedded:
        [said] = sorter().all(image[None])
        return server.Embedded(said.q, said.embeddings[run.plan.method.space], said.novel)

    def sort(now: library.Now, into: Path, copy: bool) -> tuple[int, int]:
        shape, members = source.images.shape[1:], now.members.group
        return arrange(data, shape, run.config.data.size, into, source.names, members, now.names, copy)

    data = expanded(run.config.data.dir) if run.config.data.name == "folder" else None
    serving.serve(
        library.Library(run.workdir, step, source.images, source.names, originals.of(source, run.config.data), q, x),
        port,
        embed,
        sort if data else None,
    )


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    run = build.build(args.config, args.workdir, "browse", overrides)
    run_browse(run, args.step, PORT if args.port is None else args.port)
