"""The loop that answers the page's requests, on the loopback interface only."""

import contextlib
import errno
import logging
import signal
import socket
import threading

import uvicorn

from jaxclust.pages.browse.keeping import keeping
from jaxclust.pages.browse.library import Library
from jaxclust.pages.browse.server import Embed, Sort, application
from jaxclust.run.errors import ConfigError
from jaxclust.run.workdir import DECISIONS

logger = logging.getLogger(__name__)


def serve(library: Library, port: int, embed: Embed | None = None, sort: Sort | None = None) -> None:
    """Answers until Ctrl-C, which is the way to end it and no failure. To be called in the main thread.

    Args:
      library: the run.
      port: to listen on, on 127.0.0.1; 0 is any that is free.
      embed: shows a new image to the network, for a search; None where it cannot be shown any.
      sort: makes a folder for each cluster; None where the images are not at hand as files.

    Raises:
      ConfigError: the port is taken, or the run's decisions cannot be read.
    """
    library.now()
    with contextlib.ExitStack() as held:
        listening = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen()
        except (OSError, OverflowError) as e:
            if getattr(e, "errno", None) == errno.EADDRINUSE:
                raise ConfigError(f"port {port} is taken; give another one, or --port=0 for any that is free") from e
            raise ConfigError(f"port {port} cannot be used ({getattr(e, 'strerror', None) or e}); give another") from e
        port = listening.getsockname()[1]
        changed = held.enter_context(keeping(library))
        how = uvicorn.Config(
            application(library, port, embed, sort, changed),
            http="h11",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        answering = uvicorn.Server(how)
        # From here on Ctrl-C only asks it to end, as it does once it runs.
        before = signal.signal(signal.SIGINT, answering.handle_exit)
        try:
            clusters = len(library.now().names)
            logger.info("%s images in %d clusters: http://127.0.0.1:%d/", f"{len(library.images):,}", clusters, port)
            logger.info("decisions are kept in %s; Ctrl-C ends this", library.workdir / DECISIONS)
            threading.Thread(target=library.prepare, daemon=True).start()
            answering.run([listening])
        finally:
            signal.signal(signal.SIGINT, before)
