"""Names, which may be anybody's, as text that shows what they are and does nothing."""

import re
from typing import Any

JOINER = "\u200d"  # invisible, and part of many emoji


def shown(value: Any) -> str:
    """A name as it can be read: what cannot be seen, as a newline or half a surrogate pair, is backslashed."""
    return "".join(
        c if c.isprintable() or c == JOINER else c.encode("unicode_escape").decode("ascii") for c in str(value)
    )


# What Markdown makes something of inside a line; the last three are what GitHub's makes links.
MARKED = r"[\\`*\[\]|~$]|<(?=\S)|&(?=\S)|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=\w)@(?=\w)|(?i:(?<=www))\.(?=\w)"


def in_markdown(words: object) -> str:
    """Text that Markdown shows as it is, also in a table."""
    return re.sub(MARKED, r"\\\g<0>", shown(words))
