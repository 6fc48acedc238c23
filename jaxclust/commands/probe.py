"""`--mode=probe`: a linear classifier on the frozen features of a checkpoint."""

from jaxclust.commands import Command, lazily

COMMAND = Command("train a linear classifier on a checkpoint's frozen features", lazily("work.probe"), restores=True)
