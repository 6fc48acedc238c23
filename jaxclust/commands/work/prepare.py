"""`--mode=prepare`: a data set of the papers, from the network or from files."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from jaxclust import data
from jaxclust.run.errors import ConfigError
from jaxclust.run.preemption import Preemption
from jaxclust.training import configs


def run_prepare(settings: data.Settings, origin: Path | None) -> None:
    """Makes the data set of a config as array_record files."""
    from jaxclust.data import prepare  # what it needs is slow to import, and training needs none of it

    if settings.name in ("digits", "folder"):
        raise ConfigError(f"data.name is {settings.name!r}, which needs no preparing; train with it as it is")
    prepare.prepare(settings.name, data.records.directory(settings.dir), origin)


def main(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
    run_prepare(configs.data_settings(args.config, "prepare", overrides), args.origin)
