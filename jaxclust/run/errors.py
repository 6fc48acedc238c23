"""What goes wrong in one clear sentence: the errors that a command turns into a line and an exit code."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """The user's input is wrong; the message is one sentence that says what to do."""


class RunError(RuntimeError):
    """The run cannot go on; the message is one sentence that says what happened and what to do."""


def hint(word: str, words: Iterable[str], prefix: str = "") -> str:
    """`" (did you mean ...?)"`, or the list of what there is when nothing is near."""
    words = sorted(words)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.65)
    if near:
        return f" (did you mean {prefix}{near[0]}?)"
    return f" (there are: {', '.join(words)})" if words else ""
