"""A scene in any encoding: with a gradient, colours and a corner, so that one sees it turned, scaled or inverted."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from jaxclust.data import decode

W, H, SIDE = 64, 48, 32
ACROSS, DOWN = np.meshgrid(np.arange(W), np.arange(H))
SCENE = np.stack([ACROSS * 4, DOWN * 5, 255 - ACROSS * 4], -1).astype(np.uint8)
SCENE[:16, :16] = (250, 20, 20)
GREY = (SCENE.mean(-1) / 170 * 255).astype(np.uint8)  # from 127 to 245
PHOTO = Image.fromarray(SCENE)


def encoded(image: Image.Image, kind: str, **how) -> bytes:
    out = io.BytesIO()
    image.copy().save(out, kind, **how)
    return out.getvalue()


def decoded(content: bytes, side: int | None = SIDE, channels: int = 3) -> np.ndarray:
    return decode.decode(content, side, channels).astype(int)


def squeezed(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels).convert("RGB")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).astype(int)


PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, depth: int, kind: int) -> bytes:
    return PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))


# Primaries of Display P3, Adobe RGB and ProPhoto, as columns of XYZ under D50, and their gammas.
PROFILES = {
    "P3": ([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]], 2.2),
    "Adobe": ([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]], 2.19921875),
    "ProPhoto": ([[0.79767, 0.13519, 0.03134], [0.28804, 0.71188, 0.00009], [0, 0, 0.82491]], 1.8),
}
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
PLAIN = 255 - (255 - SCENE) // 2  # pale colours, which every space has


def profile(columns, gamma: float, space: bytes = b"RGB ") -> bytes:
    """An ICC profile of primaries and a gamma, or of grey with a gamma."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    if space == b"GRAY":
        tags = {b"kTRC": curve}
    else:
        tags = {c + b"TRC": curve for c in (b"r", b"g", b"b")}
        tags |= {c + b"XYZ": xyz(column) for c, column in zip((b"r", b"g", b"b"), np.transpose(columns))}
    return made(tags, space)


def made(tags: dict[bytes, bytes], space: bytes, to: bytes = b"XYZ ", device: bytes = b"mntr") -> bytes:
    """An ICC profile of these tags."""
    name = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(79)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"desc": name, b"wtpt": white, b"cprt": b"text" + bytes(8), **tags}
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        table += key + struct.pack(">II", at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", at + len(body), 0x02400000, device, space, to, b"acsp")
    return head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + table + body


def linear(levels: np.ndarray) -> np.ndarray:
    x = levels / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def in_space(name: str) -> np.ndarray:
    """The pale scene as a camera of this space stores it."""
    columns, gamma = PROFILES[name]
    there = linear(PLAIN) @ (np.linalg.inv(columns) @ SRGB).T
    return np.round(np.clip(there, 0, 1) ** (1 / gamma) * 255).astype(np.uint8)
