"""Pictures that are whole though their files are not quite: what is damaged or bulky beside the pixels is left out.

Nothing here is tried before an image has been refused as it is.
"""

import re
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np

from jaxclust.data.encodings import opened, weigh

PNG = b"\x89PNG\r\n\x1a\n"
PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"IEND")  # chunks that these need
MAX_PROFILE = 2**24  # bytes
LOST = 0.01  # of a JPEG's pixels that may be missing
LOOK = (2048, 2048)  # pixels at which one looks for them, or more
JPEG, END = b"\xff\xd8", b"\xff\xd9"
DRI, SCAN = b"\xff\xdd\0\4", b"\xff\xda"  # says how far restart markers are apart; begins coefficients
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # none of these lies among the coefficients


def slim(content: bytes) -> tuple[BytesIO, bytes | None] | None:
    """A PNG without what its pixels do not need, such as megabytes of text or a chunk with a wrong checksum.

    Returns:
      the slim PNG and its colour profile, where it has one; None if there is nothing to leave out.
    """
    kept, profile = [], None
    for kind, chunk, right in _chunks(content):
        if kind in PIXELS or (kind == b"eXIf" and right):  # which says what is up
            kept.append(chunk)
        elif kind == b"iCCP" and right:
            profile = _profile(chunk[8:-4])
    new = PNG + b"".join(kept)
    return (BytesIO(new), profile) if len(new) < len(content) else None


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """(kind, all of its bytes, whether its checksum is right) of each chunk; the last may be cut short."""
    at = len(PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        chunk = content[at:end]
        yield chunk[4:8], chunk, zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        at = end


def _profile(body: bytes) -> bytes | None:
    try:
        inflate = zlib.decompressobj()
        profile = inflate.decompress(body[body.index(b"\0") + 2 :], MAX_PROFILE)
        return None if inflate.unconsumed_tail else profile
    except (ValueError, zlib.error):
        return None


def completed(content: bytes) -> BytesIO | None:
    """A JPEG that ends too early, with an end; None if it is no JPEG, or more is missing than `LOST`.

    It is decoded with nothing and with noise in place of the rest: where both are the same, nothing is missing.
    """
    content = content.rstrip(b"\xff")  # half a marker
    if not content.startswith(JPEG) or not _begun(content):
        return None
    nothing, noisy = (_looked_at(content + end + END) for end in (b"", _noise(content)))
    return BytesIO(content + END) if (nothing != noisy).any(-1).mean() <= LOST else None


def _noise(content: bytes) -> bytes:
    """What is read in place of the rest, or of so much of it that it is seen whether that is too much."""
    rng, most = np.random.default_rng(0), 2**16 + len(content) // 4
    if DRI not in content:
        return rng.bytes(most).replace(b"\xff", b"")
    # It has restart markers, up to which alone noise is read: many pieces, the first long enough for all of theirs.
    found = RESTART.findall(content[content.rfind(SCAN) :])
    each, follows = len(content) // (len(found) + 1), found[-1][1] - 0xD0 + 1 if found else 0
    sizes = [min(256 + 8 * each, most)] * (16 + len(found) // 50) + [16 + each // 5] * 5 * len(found)
    return b"".join(
        rng.bytes(size).replace(b"\xff", b"") + bytes([0xFF, 0xD0 + (follows + i) % 8]) for i, size in enumerate(sizes)
    )


def _looked_at(content: bytes) -> np.ndarray:
    image = opened(BytesIO(content))
    image.draft(None, LOOK)
    weigh(image, copies=2)
    return np.asarray(image.convert("RGB"))


def _begun(content: bytes) -> bool:
    """Whether every coefficient has been begun to be said in full; a progressive JPEG says them in many scans."""
    parts, exact = set(), set()
    at = len(JPEG)
    while found := MARKER.search(content, at):
        kind, body = found[0][1], found.end() + 2
        size = int.from_bytes(content[body - 2 : body], "big")
        segment = content[body : found.end() + size]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a frame: its components
            parts = {segment[i] for i in range(6, len(segment), 3)}
        elif kind == 0xDA and len(segment) == 4 + 2 * segment[0] and not segment[-1] & 15:
            here = segment[1:-3:2]
            exact |= {(part, i) for part in here for i in range(segment[-3], segment[-2] + 1)}
        at = found.end() + max(size, 2)
    return bool(parts) and all((part, i) in exact for part in parts for i in range(64))
