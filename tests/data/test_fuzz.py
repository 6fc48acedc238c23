"""Damaged images of every encoding: each gives pixels or a reason, soon, quietly, and in bounded memory.

Another number of them, or others:  FUZZ=20000 FUZZ_FROM=1000 python -m pytest -n 0 -m slow tests/data/test_fuzz.py
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from jaxclust.data.encodings import MAX_DECODED

SECONDS = 20  # at most, for one
COUNT, FIRST = int(os.environ.get("FUZZ", "2000")), int(os.environ.get("FUZZ_FROM", "0"))
CHILD = f"""
import faulthandler, importlib.util, os, sys
from jaxclust.data.decode import write_rows

spec = importlib.util.spec_from_file_location("fuzz", sys.argv[1])
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)
seeds = fuzz.originals()
for seed in range(int(sys.argv[2]), int(sys.argv[2]) + int(sys.argv[3])):
    print(seed, end=" ", flush=True)
    name, content, side = fuzz.mutated(seed, seeds)
    faulthandler.dump_traceback_later({SECONDS}, exit=True)
    skipped = write_rows(os.devnull, 0, [content], (side, side, 3), bool(seed % 4))
    faulthandler.cancel_dump_traceback_later()
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(peak, name, skipped[0][1] if skipped else "pixels", flush=True)
"""


def originals() -> list[tuple[str, bytes]]:
    """Small whole images of all encodings and of their features."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (24, 40, 3), np.uint8)).resize((120, 80))
    grey, clear = photo.convert("L"), photo.convert("RGBA")
    clear.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 16)
    blank = Image.new("RGBA", photo.size)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "b" * 2_000_000, zip=True)
    frames = {"save_all": True, "append_images": [clear, blank, photo]}
    made = [
        *((photo, "JPEG", how) for how in ({}, {"progressive": True}, {"restart_marker_rows": 1, "icc_profile": icc})),
        (photo.convert("CMYK"), "JPEG", {"exif": exif}),
        (photo, "MPO", {"save_all": True, "append_images": [photo]}),
        *((image, "PNG", {}) for image in (photo, grey, clear, deep, photo.quantize(16), grey.convert("1"))),
        (photo, "PNG", {"icc_profile": icc, "exif": exif, "pnginfo": text}),
        *((blank, kind, frames) for kind in ("PNG", "GIF", "WEBP")),
        (photo, "GIF", {}),
        *((image, "WEBP", how) for image in (photo, clear) for how in ({}, {"lossless": True, "icc_profile": icc})),
        *((image, "BMP", {}) for image in (photo, clear, photo.quantize(16), grey.convert("1"))),
        *((photo, "TIFF", {"compression": c}) for c in ("raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")),
        *(
            (image, "TIFF", {})
            for image in (deep, clear, photo.convert("CMYK"), photo.convert("LAB"), grey.convert("F"))
        ),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        *((image, "AVIF", {"quality": 60}) for image in (photo, clear)),
        *((image, "JPEG2000", {}) for image in (photo, deep, clear)),
    ]
    found = []
    for image, kind, how in made:
        if kind in Image.SAVE:
            out = io.BytesIO()
            image.copy().save(out, kind, **how)
            found.append((f"{kind} {image.mode}", out.getvalue()))
    with contextlib.suppress(ImportError):  # it is an extra
        import pillow_heif

        for image in (photo, clear):
            pillow_heif.from_pillow(image).save(out := io.BytesIO(), quality=50)
            found.append((f"HEIC {image.mode}", out.getvalue()))
    return found


def mutated(seed: int, seeds: list[tuple[str, bytes]]) -> tuple[str, bytes, int]:
    """(what it was, its bytes, a side to decode it to), of which only the seed decides."""
    rng = np.random.default_rng(seed)
    name, content = seeds[seed % len(seeds)]
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        head = rng.random() < 0.5  # where most of what matters is
        at = int(rng.integers(0, min(len(data), 200) if head else len(data))) if data else 0
        match rng.integers(0, 7):
            case 0:
                for i in rng.integers(0, max(1, len(data)), rng.integers(1, 30)):
                    data[i : i + 1] = bytes([data[i] ^ 1 << int(rng.integers(0, 8))]) if data else b""
            case 1:
                del data[at:]
            case 2:
                data[at : at + 1] = bytes([int(rng.choice([0, 1, 127, 128, 255]))])
            case 3:  # a number of a header, as likely as not an absurd one
                size = int(rng.choice([2, 4]))
                value = int(rng.choice([0, 1, 2**15, 2**16 - 1, 10**5, 2**31 - 1, 2**32 - 1])) % 256**size
                data[at : at + size] = value.to_bytes(size, rng.choice(["big", "little"]))
            case 4:
                del data[at : at + int(rng.integers(1, 100))]
            case 5:
                data[at:at] = data[at : at + int(rng.integers(1, 2000))] * int(rng.integers(1, 4))
            case 6:
                other = seeds[int(rng.integers(0, len(seeds)))][1]
                data[at:] = other[int(rng.integers(0, len(other))) :]
    if rng.random() < 0.7:
        data = b"".join(summed(bytes(data)))
    return name, bytes(data), int(rng.choice([8, 32, 96]))


def summed(content: bytes) -> Iterator[bytes]:
    """A PNG with right checksums, without which most of its changes would be noticed at once."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        yield content
        return
    yield content[:8]
    at = 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        yield content[at:end] + zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


@pytest.mark.slow
def test_any_damage_gives_pixels_or_a_reason():
    child = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", CHILD, str(Path(__file__)), str(FIRST), str(COUNT)],
        capture_output=True,
        text=True,
        errors="backslashreplace",
    )
    lines = child.stdout.splitlines()
    assert child.returncode == 0, f"the last seed in {lines[-1:]} ends it: {child.stderr}"
    assert not child.stderr
    assert len(lines) == COUNT
    outcomes = [re.fullmatch(r"(\d+) (\d+) (.*)", line) for line in lines]
    assert all(outcomes)
    most = max(int(found[2]) for found in outcomes) * 1024
    assert most < MAX_DECODED + 2**29
    pixels = sum(found[3].endswith(" pixels") for found in outcomes)
    assert 0.1 < pixels / COUNT < 0.9  # neither is all of it refused, nor is all of it whole
