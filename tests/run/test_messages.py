"""What is shown on a terminal holds nothing that the terminal would obey."""

import io
import logging
import sys

import pytest

from jaxclust import main
from jaxclust.run import messages

HOSTILE = {
    "\x1b[2Jgone": "\\x1b[2Jgone",
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",
    "\x9b31m": "\\x9b31m",
    "a\rb": "a\\rb",
    "a\bb\x7f": "a\\x08b\\x7f",
    "gpj\u202e.exe": "gpj\\u202e.exe",
}
KEPT = ["a\tb\nc", "é ü 💛", "👩\u200d👧", "\\x1b", "日本"]


@pytest.mark.parametrize(("text", "shown"), [*HOSTILE.items(), *zip(KEPT, KEPT)], ids=ascii)
def test_messages_and_errors_are_printable(text, shown, capsys):
    logging.getLogger("jaxclust.test").info("%s", text)
    logging.getLogger("jaxclust.test").warning("%s", text)
    out, err = capsys.readouterr()
    assert (out, err) == (f"{shown}\n", f"{shown}\n")
    assert main.cli([f"--mode={text}"]) == 2
    assert f"unknown mode {shown} (" in capsys.readouterr().err


def test_what_the_terminal_has_no_letter_for_is_backslashed():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert messages.printable("é 💛 a", stream) == "\\xe9 \\U0001f49b a"
    assert messages.printable("é", sys.stdout) == "é"


def test_half_a_character_is_backslashed(capsys):
    """Not logged here: pytest keeps what is, and its workers cannot send that to each other."""
    assert messages.printable("half \udcff", sys.stdout) == "half \\udcff"
    assert main.cli(["--mode=half \udcff"]) == 2
    assert "unknown mode half \\udcff (" in capsys.readouterr().err
