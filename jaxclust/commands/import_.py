"""`--mode=import`: a run made of other people's weights."""

from pathlib import Path

from jaxclust.commands import Command, lazily

COMMAND = Command(
    "make a run of other people's weights",
    lazily("work.import_"),
    flags={"--from": {"dest": "origin", "type": Path, "help": "a checkpoint"}},
)
