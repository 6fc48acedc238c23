"""`--mode=import`: a run made of other people's weights."""

import argparse
from collections.abc import Mapping

from jaxclust.run.errors import ConfigError
from jaxclust.run.preemption import Preemption
from jaxclust.training import build, weights


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    if not args.origin:
        raise ConfigError("--mode=import needs --from=FILE, the checkpoint to make a run of")
    weights.run_import(build.build(args.config, args.workdir, "import", overrides), args.origin)
