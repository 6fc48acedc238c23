"""`--mode=evaluate`: the scores of a checkpoint."""

from jaxclust.commands import Command, lazily

COMMAND = Command("score a checkpoint's clusters", lazily("work.evaluate"), restores=True)
