"""`--mode=train`: the training itself, then its evaluation and its report."""

from jaxclust.commands import Command, lazily

COMMAND = Command("the default; it evaluates and reports at the end", lazily("work.train"))
