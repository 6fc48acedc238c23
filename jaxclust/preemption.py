"""Being asked to stop: SIGTERM from a scheduler that wants the machine back, SIGUSR1 as its early warning.

Where there is something to save, the loop asks `due` after every batch, saves, and raises `Preempted`. Where there is
nothing, a process that is alone stops at once. Several processes stop after the same batch: JAX's preemption service
hears a SIGTERM to any of them and has all of them agree on one.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later

Due = Callable[[], bool]  # whether to stop now; all processes call it equally often, and are told the same


class Preempted(BaseException):
    """The run stops because it was asked to; like KeyboardInterrupt, nothing but the command catches it."""


class Preemption:
    """Listens for the signals. One for each process, made in the main thread after the processes have joined."""

    def __init__(self):
        self._alone = jax.process_count() == 1
        self._asked = self._held = False
        self._calls = 0
        signal.signal(signal.SIGUSR1, self._hear)
        if self._alone:
            signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame) -> None:
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)  # the one that JAX's service listens for
        elif self._held:
            self._asked = True
        else:
            raise Preempted

    def due(self) -> bool:
        """Whether to stop after this batch."""
        if not self._alone:
            self._calls += 1
            # True is said once, at the call that the processes agree on.
            self._asked |= multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While there is something to save, a signal waits for `due`, or at the latest for the end of this.

        Raises:
          Preempted: at the end, where a signal came that nobody has asked for.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._asked:
            raise Preempted


def never() -> bool:
    """`Due` of what nobody stops."""
    return False
