"""Being asked to stop: SIGTERM, SIGUSR1 as a scheduler's early warning, SIGHUP of a closed terminal, and Ctrl-C.

Where there is something to save, the loop asks `due` after every batch, saves, and raises `Preempted`; a second Ctrl-C
waits for nothing. Where there is nothing to save, a process that is alone stops at once. Several processes stop after
the same batch: JAX's preemption service hears a SIGTERM to any of them and has all of them agree on one.

An exception out of a signal's handler can go unheard: Python drops it inside a destructor or a callback of the garbage
collector, asyncio, which Orbax reads with, logs it and goes on or is left half-open, and no handler runs while the main
thread is deep in one call of a compiler. So a thread hears the signals, too. It has an exception that was dropped, or
that would have come inside asyncio, raised again, and ends the process where nothing has come of it after `GRACE`
seconds; whatever is written here withstands that, as it does SIGKILL.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED = 130  # as a shell says of Ctrl-C
GRACE = 5.0  # seconds in which a process has to end that has nothing to save
SENTENCES = {
    EXIT_CODE: "stopped as asked; the same command goes on from here",
    INTERRUPTED: "interrupted; what was saved stays, and the same command goes on from there",
}
SAVED = "interrupted, and saved; the same command goes on from here"
SAVING = b"\njaxclust: saving after the step that is under way; Ctrl-C again quits at once\n"
STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)

Due = Callable[[], bool]  # whether to stop now; all processes call it equally often, and are told the same


class Preempted(BaseException):
    """The run stops because it was asked to; like KeyboardInterrupt, nothing but the command catches it."""


class Preemption:
    """Listens for the signals while it is entered, which is done once for each process, in the main thread.

    Args:
      leaving: whether the process ends after this. It then goes on to listen, so that a signal on the way out breaks
        nothing off, and a way out that takes too long is cut short.
    """

    def __init__(self, leaving: bool = False) -> None:
        self._leaving = leaving
        self._alone = True
        self._asked = self._held = self._free = False
        self._interrupted = False  # by the first Ctrl-C, while something was to be saved
        self._quiet = False  # whether an exception is on its way, or nothing is left that one could stop
        self._dropped = self._closed = False
        self._code = 0  # what the process ends with, once an exception was raised
        self._over: int | None = None  # what it ends with, once it was said
        self._calls = 0

    def __enter__(self) -> Self:
        # What is ignored stays so: under nohup, and Ctrl-C in what a script runs in the background.
        kept = [n for n in (signal.SIGHUP, signal.SIGINT) if signal.getsignal(n) is signal.SIG_IGN]
        ours = [n for n in (*STOPS, signal.SIGINT) if n not in kept]
        self._outside = sys._getframe(1)
        self._before = {number: signal.signal(number, self._hear) for number in ours}
        self._hook, sys.unraisablehook = sys.unraisablehook, self._note
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._quiet = True
        if self._leaving:
            return
        signal.set_wakeup_fd(self._wakeup)
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            if handler is not None and (self._alone or number != signal.SIGTERM):
                signal.signal(number, handler)
        self._closed = True
        with contextlib.suppress(BlockingIOError):  # it is full, and so read anyway
            os.write(self._write, b"\0")
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def joined(self) -> None:
        """To be called when several processes have joined: JAX's service has then taken SIGTERM."""
        import jax  # slow to import, and a process that is alone needs none of it here

        self._alone = jax.process_count() == 1
        if self._alone:
            signal.signal(signal.SIGTERM, self._hear)

    @property
    def preempted(self) -> tuple[int, str]:
        """The code and the sentence to end with after `Preempted`."""
        return (INTERRUPTED, SAVED) if self._interrupted else (EXIT_CODE, SENTENCES[EXIT_CODE])

    @property
    def code(self) -> int:
        """What to end with because of a signal that raised an exception; 0 where none did."""
        return self._code

    def over(self, code: int) -> None:
        """All is done and said: from here on a signal has nothing to stop."""
        self._quiet, self._over = True, code

    def due(self) -> bool:
        """Whether to stop after this batch."""
        if not self._alone:
            from jax.experimental import multihost_utils

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
            self._quiet |= self._asked
            self._held = False
        if self._asked:
            raise Preempted

    @contextlib.contextmanager
    def free(self) -> Iterator[None]:
        """Inside of `held`, what may take minutes in one call of a compiler while next to nothing is unsaved.

        Where that has not ended `GRACE` seconds after a signal, the process does.
        """
        self._free = self._alone
        try:
            yield
        finally:
            self._free = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and not self._held:
            self._raise(KeyboardInterrupt, INTERRUPTED, frame)
        elif number == signal.SIGINT and not self._interrupted:
            self._interrupted = True
            if not self._free:
                with contextlib.suppress(OSError):  # a terminal that is gone
                    os.write(2, SAVING)
            self._hear(signal.SIGTERM, frame)
        elif number == signal.SIGINT:
            pass  # the thread ends the process
        elif not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)  # the one that JAX's service listens for
        elif self._held:
            self._asked = True
        else:
            self._raise(Preempted, EXIT_CODE, frame)

    def _raise(self, kind: type[BaseException], code: int, frame: FrameType | None) -> None:
        if self._quiet:
            return  # a second exception would break off what the first one has cleaned up on its way
        self._quiet, self._code = True, self._code or code
        if self._loses(frame):
            self._dropped = True
        else:
            raise kind

    def _loses(self, frame: FrameType | None) -> bool:
        """Whether an exception would not come out of what the main thread is doing, or would break it."""
        while frame and frame is not self._outside:
            name = frame.f_globals.get("__name__", "")
            if frame.f_code is Preemption._note.__code__ or name.partition(".")[0] in ("asyncio", "nest_asyncio"):
                return True
            frame = frame.f_back
        return False

    def _note(self, dropped: Any) -> None:
        """In place of `sys.unraisablehook`: is told of exceptions that Python cannot raise, and drops."""
        if self._code and issubclass(dropped.exc_type, Preempted | KeyboardInterrupt):
            self._dropped = True
        else:
            self._hook(dropped)

    def _listen(self) -> None:
        """The thread. A number is there to be read as soon as its signal comes, before its handler runs."""
        code, interrupts, deadline = 0, 0, None
        while not self._closed:
            ready, _, _ = select.select([self._read], [], [], 0.1 if code else None)
            for number in os.read(self._read, 512) if ready else b"":
                if number == signal.SIGINT:
                    interrupts, code = interrupts + 1, code or INTERRUPTED
                elif number in STOPS and self._alone:
                    code = code or EXIT_CODE
            if interrupts > 1 and self._over is None:
                self._leave(INTERRUPTED)
            if self._dropped and self._over is None:
                # Its handler is to raise another, by now perhaps elsewhere.
                self._dropped = self._quiet = False
                again = signal.SIGINT if self._code == INTERRUPTED else signal.SIGUSR1
                interrupts -= again == signal.SIGINT
                signal.pthread_kill(threading.main_thread().ident or 0, again)
            if not code or (self._held and not self._free):
                deadline = None
            elif deadline is None:
                deadline = time.monotonic() + GRACE
            elif time.monotonic() > deadline:
                self._leave(code)

    def _leave(self, code: int) -> None:
        if self._over is None:
            with contextlib.suppress(OSError):  # a terminal that is gone
                os.write(2, f"\njaxclust: {SENTENCES[code]}\n".encode())
        os._exit(code if self._over is None else self._over)


def never() -> bool:
    """`Due` of what nobody stops."""
    return False
