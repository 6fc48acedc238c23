"""`--mode=compare`: several runs beside each other."""

from jaxclust.commands import Command, lazily

COMMAND = Command(
    "several runs in one table and on one page",
    lazily("work.compare"),
    flags={"--runs": {"metavar": "A,B,...", "help": "workdirs, folders of workdirs, or patterns"}},
    devices=False,
)
