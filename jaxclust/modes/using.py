"""Using a run: new images, and what leaves jaxclust or comes to it."""

import argparse
from pathlib import Path

import jax

from jaxclust import config, decisions
from jaxclust.build import Run
from jaxclust.config import ConfigError
from jaxclust.interop import weights
from jaxclust.types import State


def run_predict(args: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Sorts new images into the groups of a run."""
    from jaxclust import predict

    if not args.images:
        raise ConfigError("--mode=predict needs --images=PHOTOS: a folder, a list of files, an archive or an array")
    workdir = args.workdir or (args.config and Path("runs") / config.find(args.config).stem)
    if not workdir:
        raise ConfigError("--mode=predict needs --workdir=RUN, the run that sorts the images")
    known = config.from_json(workdir / "config.json", overrides) if (workdir / "config.json").is_file() else None
    if others := overrides.keys() - {"data.max_bad"}:
        raise ConfigError(f"--config.{min(others)} changes nothing of --mode=predict; data.max_bad does")
    predict.run(
        workdir,
        args.images,
        step=args.step,
        max_bad=known and known.data.max_bad,
        out=args.out,
        into=args.into,
        copy=args.copy,
        vectors=args.embeddings,
    )


def run_export(run: Run, state: State, out: Path | None) -> None:
    """Writes what leaves jaxclust."""
    from jaxclust.interop import export

    decided = decisions.load(run.workdir, int(state.step), run.config.clusters)
    if jax.process_index() == 0:
        print(f"the network is in {export.export(run, state, decided, out)}", flush=True)


def run_import(run: Run, origin: Path | None) -> None:
    """Makes a run of other people's weights."""
    if not origin:
        raise ConfigError("--mode=import needs --from=FILE, the checkpoint to make a run of")
    weights.run_import(run, origin)
