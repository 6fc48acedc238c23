"""What is meant to be a picture, and what only lies beside pictures, judged by name and content.

A broken .jpg is a bad image, which counts. Sidecars, movies, a system's own files and a NAS's thumbnails are no images.
"""

from collections.abc import Callable
from pathlib import PurePath

# Also of kinds that are not read, so that nobody's pictures are left out as if they were none.
PICTURES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"}
PICTURES |= {".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm"}
PICTURES |= {".tga", ".psd", ".ico", ".svg", ".eps", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".arw", ".raf", ".orf"}
PICTURES |= {".rw2", ".pef", ".srw"}
SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"II+\0",  # BigTIFF
    b"MM\0+",
    b"\0\0\0\x0cjP  \r\n\x87\n",  # JPEG 2000
    b"\xff\x4f\xff\x51",
    b"\0\0\0\x0cJXL \r\n\x87\n",
)
BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")  # the movies' are others
APPLE_DOUBLE = (b"\0\x05\x16\x07", b"\0\x05\x16\0")
# Thumbnails, other systems' halves of files, and what people have thrown away.
FOLDERS = {"__macosx", "@eadir", "@tmp", "@__thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"}
FOLDERS |= {"$recycle.bin", "recycler", "system volume information", "lost+found"}
HEAD = 32  # bytes of a file that tell its kind


def folder_aside(name: str) -> str | None:
    """Why a folder of this name holds nobody's pictures, or None."""
    if name.startswith(".") and name not in (".", ".."):
        return "a hidden folder"
    return "a folder of the system's own" if name.lower() in FOLDERS else None


def file_aside(name: str, head: Callable[[], bytes | None]) -> str | None:
    """Why a file is no picture, or None where it is meant to be one.

    Args:
      name: of the file; folders before it are not looked at.
      head: reads its first `HEAD` bytes, None where they cannot be read; called only where the name does not tell.
    """
    path = PurePath(name)
    double = path.name.startswith("._")
    if path.suffix.lower() in PICTURES and not double:
        return None
    start = head()
    if start is not None and is_picture(start):
        return None
    if double and (not start or start.startswith(APPLE_DOUBLE)):
        return "what macOS keeps beside a file"
    if path.suffix.lower() in PICTURES or (start is None and not path.suffix):
        return None
    return "not an image, by its name and its content"


def is_picture(head: bytes) -> bool:
    """Whether a file that begins so is an image."""
    return (
        head.startswith(SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and head[6:10] == bytes(4))
        or (head[4:8] == b"ftyp" and head[8:12] in BRANDS)
    )
