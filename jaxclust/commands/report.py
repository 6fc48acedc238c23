"""`--mode=report`: a page about a run."""

from jaxclust.commands import Command, lazily

COMMAND = Command("a page about the run: scores, curves, clusters, findings", lazily("work.report"), restores=True)
