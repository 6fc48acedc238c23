"""`clusters.csv` beside the run, written anew after decisions while the page is served.

Nothing waits for it: decisions that come faster than it is written are written once. It follows from `decisions.json`,
so that what a kill keeps from it is made up for at the next start.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from jaxclust.clusters import table
from jaxclust.pages.browse.library import Library
from jaxclust.run.errors import ConfigError

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def keeping(library: Library) -> Iterator[Callable[[], None]]:
    """Keeps the table, where images are files, until the context ends; gives what is to be called after decisions."""
    due, ending = threading.Event(), threading.Event()

    def keep() -> None:
        last = False
        while not last:
            due.wait()
            due.clear()
            last = ending.is_set()  # what was decided before that is written below
            try:
                _write(library)
            except (ConfigError, OSError) as e:
                logger.warning("note: the table of clusters could not be written (%s)", e)

    if library.files is None:
        yield lambda: None
        return
    writing = threading.Thread(target=keep)
    writing.start()
    due.set()
    try:
        yield due.set
    finally:
        ending.set()
        due.set()
        writing.join()


def _write(library: Library) -> None:
    """Writes the table of the newest decisions, though others make some meanwhile."""
    written = None
    while (now := library.now()).version != written:
        table.write(library.workdir, library.files, now.names, now.members.group, now.members.confidence)
        written = now.version
