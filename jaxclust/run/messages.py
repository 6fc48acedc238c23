"""What jaxclust says while it works: through `logging`, by the names of the rooms, and shown only where asked for.

A line that a person waits for is of level INFO, and goes to standard output; what is wrong or worth a note is a
WARNING, and goes to standard error. The command shows both; a library only what `logging` is told to show, which by
default is the warnings.
"""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from typing import TextIO

from tqdm import tqdm

ROOT = logging.getLogger("jaxclust")

# What a terminal obeys, above all escape sequences; what turns the order of letters round; halves of characters.
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, stream: TextIO) -> str:
    """`text`, in which names are anybody's, with a backslash for what a terminal would obey or has no letter for."""
    text = OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


class _Shown(logging.Handler):
    """Writes each message as it is to the stream of its level, without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
            tqdm.write(printable(record.getMessage(), stream), file=stream)
            stream.flush()
        except Exception:  # as every handler does: a message must not end what it is about
            self.handleError(record)


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Shows messages inside, as the command does; what `logging` was told before holds again afterwards."""
    handler, level, propagate = _Shown(), ROOT.level, ROOT.propagate
    ROOT.addHandler(handler)
    ROOT.setLevel(logging.INFO)
    ROOT.propagate = False
    try:
        yield
    finally:
        ROOT.removeHandler(handler)
        ROOT.setLevel(level)
        ROOT.propagate = propagate
