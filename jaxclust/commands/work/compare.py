"""`--mode=compare`: several runs beside each other."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from jaxclust.run.errors import ConfigError
from jaxclust.run.files import expanded
from jaxclust.run.preemption import Preemption


def run_compare(runs: str | None, workdir: Path | None) -> None:
    """Writes one table of several runs."""
    from jaxclust.pages import compare

    if not runs:
        raise ConfigError("--mode=compare needs --runs=A,B,..., workdirs of runs or folders that hold some")
    compare.run([expanded(name) for name in runs.split(",") if name], workdir or Path("compare"))


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    run_compare(args.runs, args.workdir)
