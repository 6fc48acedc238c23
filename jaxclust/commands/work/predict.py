"""`--mode=predict`: new images, sorted into the clusters of a run."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from jaxclust.run import config
from jaxclust.run.errors import ConfigError
from jaxclust.run.preemption import Preemption
from jaxclust.run.workdir import is_run
from jaxclust.training import configs


def run_predict(args: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Sorts new images into the clusters of a run."""
    from jaxclust.inference import sort

    if not args.images:
        raise ConfigError(
            "--mode=predict needs --workdir=RUN and --images=PHOTOS: a folder, a list of files, an archive or an array"
        )
    workdir = args.workdir or (args.config and Path("runs") / config.name(args.config))
    if not workdir:
        raise ConfigError("--mode=predict needs --workdir=RUN, the run that sorts the images")
    known = configs.saved(workdir, overrides) if is_run(workdir) else None
    if others := overrides.keys() - {"data.max_bad"}:
        raise ConfigError(f"--config.{min(others)} changes nothing of --mode=predict; data.max_bad does")
    sort.run(
        workdir,
        args.images,
        step=args.step,
        max_bad=known and known.data.max_bad,
        out=args.out,
        into=args.into,
        copy=args.copy,
        vectors=args.embeddings,
    )


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    run_predict(args, overrides)
