"""Harmless names of files and folders, for any file system, from names that anybody may have given."""

import re
import unicodedata
from pathlib import PurePosixPath

LONGEST = 255  # bytes of a name, as file systems have it
ROOM = 12  # bytes of it for a number that tells apart what would be called alike
FORBIDDEN = set('/\\:*?"<>|')  # on some system or other


def free(name: str, taken: set[str]) -> str:
    """A harmless name like `name` that is not taken yet, whatever the file system thinks of case; it then is."""
    (stem, suffix), number = _parts(name), 1
    name = f"{stem}{suffix}"
    while folded(name) in taken:
        number += 1
        name = f"{stem} ({number}){suffix}"
    taken.add(folded(name))
    return name


def unnumbered(name: str) -> str:
    """What all names that `free` may give for this one have in common."""
    stem, suffix = _parts(name)
    return re.sub(r" \(\d+\)$", "", stem) + suffix


def _parts(name: str) -> tuple[str, str]:
    name = harmless(name)
    suffix = _suffix(name)
    return name.removesuffix(suffix), suffix


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if len(suffix.encode()) <= 16 else ""


def harmless(name: str) -> str:
    """A name for one file or folder anywhere: no path, nothing invisible, not hidden, not too long."""
    name = "".join("_" if c in FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs") else c for c in name)
    name = name.lstrip(". ").rstrip(". ") or "_"
    suffix = _suffix(name)
    room = LONGEST - ROOM - len(suffix.encode())
    return name.removesuffix(suffix).encode()[:room].decode(errors="ignore").rstrip() + suffix


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
