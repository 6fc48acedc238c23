"""The modes of the command, one a file: `--mode=suggest-k` is `suggest_k.py`, found by its name.

A file of this room that has a `COMMAND` is a mode; `main` asks for nothing else, so a new one is a new file. What it
says of itself is read before any command, and so it imports nothing that is slow to import; what the modes do is in
`work/`.
"""

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxclust.run.preemption import Preemption

Flags = Mapping[str, Mapping[str, Any]]  # "--k" -> what argparse is told of it; where it is not given it is None


class Command(NamedTuple):
    """What a mode does."""

    help: str
    run: Callable[[argparse.Namespace, Mapping[str, str], Preemption], None]  # (flags, overrides, when to stop)
    flags: Flags = MappingProxyType({})  # its own, beside those that all modes take
    restores: bool = False  # whether it is about a checkpoint, and takes --step
    devices: bool = True  # whether it computes, so that several processes join and compiled programs are kept


def lazily(module: str) -> Callable[[argparse.Namespace, Mapping[str, str], Preemption], None]:
    """The `main` of a module of this room, which is imported when it is called."""

    def run(args: argparse.Namespace, overrides: Mapping[str, str], preemption: Preemption) -> None:
        importlib.import_module(f"{__name__}.{module}").main(args, overrides, preemption)

    return run


def find() -> dict[str, Command]:
    """All modes by their names."""
    modules = {info.name: importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)}
    return {
        name.strip("_").replace("_", "-"): module.COMMAND
        for name, module in modules.items()
        if hasattr(module, "COMMAND")
    }
