"""`--mode=cache`: what lies in the cache of decoded images and compiled programs."""

from jaxclust.commands import Command, lazily

COMMAND = Command(
    "what the cache of decoded images and compiled programs holds; --clear empties it",
    lazily("work.cache"),
    flags={"--clear": {"action": "store_const", "const": True, "help": "remove all; it is made again when needed"}},
    devices=False,
)
