"""`--mode=browse`: the page to work in."""

from jaxclust.commands import Command, lazily

PORT = 8321

COMMAND = Command(
    "a local page to work in: look through clusters, name, merge, split them, move images",
    lazily("work.browse"),
    flags={"--port": {"type": int, "help": f"where to listen, on this machine alone (default: {PORT})"}},
    restores=True,
)
