"""`--mode=export`: the network, to be used elsewhere."""

from pathlib import Path

from jaxclust.commands import Command, lazily

COMMAND = Command(
    "the network as StableHLO and ONNX, with its weights and a model card",
    lazily("work.export"),
    flags={"--out": {"type": Path, "metavar": "DIR", "help": "where to write (default: the workdir)"}},
    restores=True,
)
