"""`--mode=prepare`: a data set of the papers, from the network or from files."""

from pathlib import Path

from jaxclust.commands import Command, lazily

COMMAND = Command(
    "make the config's data set, from the network or from files",
    lazily("work.prepare"),
    flags={"--from": {"dest": "origin", "type": Path, "help": "a folder or archive that holds the data set's files"}},
    devices=False,
)
