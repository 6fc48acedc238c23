"""The first seconds of the command, in which it imports: Ctrl-C then ends it as the shell expects, without a traceback.

Importing this begins them, and `over` ends them.
"""

import os
import signal
import sys
import threading

os.environ.pop("MPLBACKEND", None)  # a notebook's own, which Matplotlib may refuse; no window is opened here

_found = signal.getsignal(signal.SIGINT)
_ours = _found is signal.default_int_handler and threading.current_thread() is threading.main_thread()
if _ours:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def over() -> None:
    """Ctrl-C is Python's again."""
    if _ours:
        signal.signal(signal.SIGINT, _found)


def in_utf8() -> None:
    """Starts the command again in Python's UTF-8 mode where the locale has the names of files in another encoding.

    A run would not know its images again under another locale, and its tables would not have their names.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode:
        return
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")  # the terminal's, as before
    os.environ["PYTHONUTF8"] = "1"  # for processes that this one starts
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
