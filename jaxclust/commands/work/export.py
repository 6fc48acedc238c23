"""`--mode=export`: the network, to be used elsewhere."""

import argparse
from collections.abc import Mapping

import jax

from jaxclust.run.preemption import Preemption
from jaxclust.training import build, configs


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    from jaxclust.inference.export import export

    run = build.open_run(*configs.find(args.config, args.workdir, "export", overrides), args.step)
    if jax.process_index() == 0:
        print(f"the network is in {export.export(run, args.out)}", flush=True)
