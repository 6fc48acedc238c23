"""One image: whatever encoding and depth it comes with, it is that picture, or has a reason; and what it takes."""

import io
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from helpers.images import (
    ACROSS,
    DOWN,
    GREY,
    PHOTO,
    PLAIN,
    PNG,
    PROFILES,
    SCENE,
    SIDE,
    H,
    W,
    chunk,
    decoded,
    encoded,
    header,
    in_space,
    profile,
    squeezed,
)
from PIL import Image, TiffImagePlugin

from jaxclust.data import decode, encodings, picture
from jaxclust.data.decode import Unusable, Zipped


def tiff(
    pixels: np.ndarray, *, kind: int = 1, photometric: int | None = None, planar: int = 1, order: str = "<", **tags
):
    """An uncompressed TIFF as instruments write them, of any sample type."""
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    h, w, n = *pixels.shape[:2], 1 if pixels.ndim == 2 else pixels.shape[2]
    body = (pixels if planar == 1 else np.moveaxis(pixels, -1, 0)).tobytes()
    parts = 1 if planar == 1 else n
    entries = {256: (4, [w]), 257: (4, [h]), 258: (3, [8 * pixels.itemsize] * n), 259: (3, [1])}
    entries |= {262: (3, [(1 if n < 3 else 2) if photometric is None else photometric]), 277: (3, [n]), 278: (4, [h])}
    entries |= {
        273: (4, [8 + i * len(body) // parts for i in range(parts)]),
        279: (4, [len(body) // parts] * parts),
    }
    entries |= {284: (3, [planar]), 339: (3, [kind] * n)} | {int(tag[1:]): (3, value) for tag, value in tags.items()}
    at = 8 + len(body)
    directory, tail = struct.pack(order + "H", len(entries)), b""
    for tag, (form, values) in sorted(entries.items()):
        raw = struct.pack(f"{order}{len(values)}{'HI'[form == 4]}", *values)
        if len(raw) > 4:
            raw, tail = struct.pack(order + "I", at + 2 + 12 * len(entries) + 4 + len(tail)), tail + raw
        directory += struct.pack(order + "HHI", tag, form, len(values)) + raw.ljust(4, b"\0")
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return start + struct.pack(order + "I", at) + body + directory + bytes(4) + tail


def bits(n: int) -> np.ndarray:
    return np.round(GREY.astype(float) * (2**n - 1) / 255)


DEEP = {
    **{f"{n} bits.png": encoded(Image.fromarray(bits(n).astype(np.uint16)), "PNG") for n in (10, 12, 14, 16)},
    **{f"{n} bits.tif": tiff(bits(n).astype(np.uint16)) for n in (8, 10, 12, 14, 16)},
    **{f"{n} bits, big end.tif": tiff(bits(n).astype(np.uint16), order=">") for n in (10, 12, 16)},
    "12 bits.jp2": encoded(Image.fromarray(bits(16).astype(np.uint16)), "JPEG2000"),
    "12 bits, lzw.tif": encoded(Image.fromarray(bits(12).astype(np.uint16)), "TIFF", compression="tiff_lzw"),
    "dark, but the tag says 12 bits.tif": tiff(bits(12).astype(np.uint16) // 8, t281=[4095]),
    "white is zero.tif": tiff(65535 - bits(16).astype(np.uint16), photometric=0),
    "u32.tif": tiff(bits(32).astype(np.uint32)),
    "u32 of 12 bits.tif": tiff(bits(12).astype(np.uint32)),
    "i32.tif": tiff(bits(16).astype(np.int32), kind=2),
    "i32 of 8 bits.tif": tiff(GREY.astype(np.int32), kind=2),
    "floats.tif": tiff((GREY / 255).astype(np.float32), kind=3),
    "floats, a little more.tif": tiff((GREY / 255 * 1.0000002).astype(np.float32), kind=3),
    "white is zero, floats.tif": tiff((1 - GREY / 255).astype(np.float32), kind=3, photometric=0),
}


@pytest.fixture(params=[False, True], ids=["", "libtiff"])
def tiffs(request, monkeypatch):
    """TIFFs are read by Pillow, or by libtiff as those are that are compressed."""
    monkeypatch.setattr(TiffImagePlugin, "READ_LIBTIFF", request.param)


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.usefixtures("tiffs")
def test_deep_grey_is_scaled_by_the_bits_that_it_has(name):
    wanted = GREY // 8 if name.startswith("dark") else GREY
    np.testing.assert_allclose(decoded(DEEP[name]), squeezed(wanted), atol=1)


def colour(n: int) -> np.ndarray:
    return np.round(SCENE.astype(float) * (2**n - 1) / 255).astype(np.uint16)


def png16(pixels: np.ndarray) -> bytes:
    """A PNG with colours of sixteen bits, which Pillow does not write."""
    kind = {3: 2, 4: 6}[pixels.shape[-1]]
    rows = pixels.astype(">u2").reshape(len(pixels), -1).view(np.uint8)
    body = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    return (
        PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 16, kind, 0, 0, 0)) + chunk(b"IDAT", body) + chunk(b"IEND")
    )


@pytest.mark.parametrize("n", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("strip", [picture.STRIP, 7 * W])
@pytest.mark.usefixtures("tiffs")
def test_deep_colours_are_scaled_by_the_bits_that_they_have(n, strip, monkeypatch):
    monkeypatch.setattr(picture, "STRIP", strip)
    opaque = np.full((H, W, 1), 65535, np.uint16)
    planar = [tiff(colour(n), planar=2, order=order) for order in "<>"]
    for content in (
        png16(colour(n)),
        png16(np.concatenate([colour(n), opaque], -1)),
        tiff(colour(n)),
        tiff(colour(n), order=">"),
        *planar * (n == 16 or not TiffImagePlugin.READ_LIBTIFF),
    ):
        np.testing.assert_allclose(decoded(content), squeezed(SCENE), atol=1)
    for content in planar * (n < 16 and TiffImagePlugin.READ_LIBTIFF):
        with pytest.raises(Unusable, match="colours of 16 bits, of which few are used; save it with 8 bits a channel"):
            decoded(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff((bits(16) - 32768).astype(np.int16), kind=2), "grey values from .*; save it with values from 0 up"),
        (tiff(GREY.astype(np.float32), kind=3), r"values from 127 to 245; floats must lie in \[0, 1\]; save it so"),
        (tiff(np.full((H, W), np.nan, np.float32), kind=3), "NaN or infinity"),
        (tiff(GREY / 255, kind=3), "TIFF that cannot be read .* save it anew, or as PNG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), r"not an image of a kind that is read \(JPEG, .*\); convert it"),
        (encoded(PHOTO, "PNG")[:100], "damaged"),
    ],
)
def test_what_cannot_be_shown_has_a_reason_that_says_what_to_do(content, reason):
    with pytest.raises(Unusable, match=reason):
        decoded(content)


def with_alpha(alpha, pixels=SCENE) -> Image.Image:
    return Image.fromarray(np.dstack([pixels, np.broadcast_to(alpha, (H, W))]).astype(np.uint8))


def bmp32(alpha: int) -> bytes:
    head = struct.pack(
        "<IiiHHIIiiII4I4s48x", 108, W, H, 1, 32, 3, 0, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 255 << 24, b"BGRs"
    )
    body = np.dstack([SCENE[::-1, :, ::-1], np.full((H, W), alpha, np.uint8)]).tobytes()
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


@pytest.mark.parametrize("strip", [picture.STRIP, 7 * W])
@pytest.mark.parametrize("alpha", [0, 1, 255])
def test_alpha_that_hides_everything_is_not_meant(alpha, strip, monkeypatch):
    monkeypatch.setattr(picture, "STRIP", strip)
    image = with_alpha(alpha)
    for content in (
        encoded(image, "PNG"),
        encoded(image, "WEBP", lossless=True, exact=True),
        encoded(image, "TIFF"),
        bmp32(alpha),
        png16(np.array(image).astype(np.uint16) * 257),
    ):
        np.testing.assert_allclose(decoded(content), squeezed(SCENE), atol=1)


def test_alpha_is_shown_on_white_and_a_white_drawing_on_black():
    ring = np.where((ACROSS - 32) ** 2 + (DOWN - 24) ** 2 < 300, 255, 0)
    red = encoded(with_alpha(ring, np.full((H, W, 3), (255, 0, 0))), "PNG")
    np.testing.assert_allclose(decoded(red, None)[[0, 24], [0, 32]], [[255, 255, 255], [255, 0, 0]])
    white = encoded(with_alpha(ring, np.full((H, W, 3), 255)), "PNG")
    np.testing.assert_allclose(decoded(white, None), np.dstack([ring] * 3))
    half = encoded(with_alpha(128, np.zeros((H, W, 3), np.uint8)), "PNG")
    np.testing.assert_allclose(decoded(half), 127, atol=1)


ANIMATED = [
    ("GIF", {}),
    ("WEBP", {"lossless": True}),
    ("PNG", {}),
    ("PNG", {"default_image": True}),
    *([("AVIF", {"quality": 100})] if "AVIF" in Image.SAVE else []),
]


@pytest.mark.parametrize("blank", [(0, 0, 0, 0), (0, 0, 0, 255), (255, 255, 255, 255)])
@pytest.mark.parametrize(("kind", "how"), ANIMATED)
def test_the_first_frame_that_shows_something_is_taken(kind, how, blank):
    none, one = Image.new("RGBA", (W, H), blank), PHOTO.convert("RGBA")
    other = one.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for frames in ([one, other], [none, one, other], [none, none, one]):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **how)
        assert np.abs(decoded(content) - squeezed(SCENE)).mean() < 6, len(frames)
    alone = decoded(encoded(none, kind, save_all=True, append_images=[none], duration=100, **how))
    assert np.ptp(alone.reshape(-1, 3), 0).max() <= 1  # nothing is made up


@pytest.mark.parametrize(
    "kind", [kind for kind in ("AVIF", "JPEG2000", "WEBP", "TIFF", "GIF", "BMP", "PNG", "JPEG") if kind in Image.SAVE]
)
def test_every_encoding_is_read(kind):
    assert np.abs(decoded(encoded(PHOTO, kind)) - squeezed(SCENE)).mean() < 6
    for side in (None, 8, SIDE):
        assert decoded(encoded(PHOTO, kind, progressive=True), side).shape == (side or H, side or W, 3)


def test_heic_is_read_where_pillow_heif_is_and_named_where_not():
    try:
        import pillow_heif
    except ImportError:
        with pytest.raises(Unusable, match=r"HEIC.*install jaxclust\[heic\], or convert it to JPEG"):
            decoded(b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(400))
        return
    out = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(in_space("P3"))).save(
        out, quality=100, icc_profile=profile(*PROFILES["P3"])
    )
    assert np.abs(decoded(out.getvalue()) - squeezed(PLAIN)).mean() < 4
    with pytest.raises(Unusable, match="HEIC"):
        decoded(out.getvalue()[:200])


MEASURE = """
import sys
from jaxclust.data.decode import Unusable, decode

def peak():  # of this process; `getrusage` begins with that of the one which started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

decode(sys.argv[2], 96, 3)
before = peak()
try:
    shape = decode(sys.argv[1], int(sys.argv[3]) or None, 3, most=1600).shape
except Unusable as e:
    shape = e
print(peak() - before, shape, sep="\\n")
"""


def measured(tmp_path, image: bytes, side: int = 96) -> tuple[float, str]:
    """MiB that a process takes for it, and the shape or the reason."""
    (tmp_path / "large").write_bytes(image)
    (tmp_path / "small").write_bytes(encoded(PHOTO, "PNG"))
    args = [sys.executable, "-c", MEASURE, str(tmp_path / "large"), str(tmp_path / "small"), str(side)]
    out = subprocess.run(args, check=True, capture_output=True, text=True)
    assert not out.stderr
    taken, shape = out.stdout.splitlines()
    return int(taken) / 1024, shape


def ramp(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.broadcast_to((np.arange(width) * 256 // width).astype(np.uint8), (height, width)).copy())


def test_a_jpeg_of_200_megapixels_takes_what_an_eighth_of_its_sides_takes(tmp_path):
    taken, shape = measured(tmp_path, encoded(ramp(16320, 12240), "JPEG", quality=50))
    assert shape == "(96, 96, 3)"
    assert taken < 40


def test_a_large_blank_page_is_no_animation(monkeypatch):
    monkeypatch.setattr(encodings, "MAX_DECODED", 9 * 10**6)
    content = encoded(Image.new("RGB", (1500, 1500), "white"), "PNG")
    assert (decoded(content) == 255).all()
    blank = {"save_all": True, "append_images": [Image.new("RGB", (1500, 1500))]}
    with pytest.raises(Unusable, match="too large: 1,500 x 1,500 pixels take 27 MB to decode, more than 9; save it"):
        decoded(encoded(Image.new("RGB", (1500, 1500), "white"), "PNG", **blank))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16"])
def test_a_large_image_takes_its_pixels_and_little_more(mode, tmp_path):
    image = (
        ramp(6000, 5000).convert(mode)
        if mode != "I;16"
        else Image.fromarray(np.asarray(ramp(6000, 5000)) * np.uint16(9))
    )
    taken, shape = measured(tmp_path, encoded(image, "PNG", compress_level=1))
    assert shape == "(96, 96, 3)"
    assert taken < 30e6 * {"RGBA": 4, "LA": 4, "P": 1, "I;16": 2}[mode] / 2**20 + 60


@pytest.mark.parametrize(
    "content",
    [
        header(17_000, 17_000, 8, 2) + chunk(b"IDAT", bytes(99)),
        header(60_000, 60_000, 1, 0) + chunk(b"IDAT", bytes(99)),
        encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True).replace(
            struct.pack(">BHH", 8, 64, 64), struct.pack(">BHH", 8, 50_000, 50_000)
        ),
        encoded(Image.new("RGBA", (64, 64)), "BMP").replace(
            struct.pack("<ii", 64, 64), struct.pack("<ii", 30000, 30000)
        ),
        encoded(Image.new("L", (64, 64)), "TIFF").replace(
            struct.pack("<HHII", 256, 4, 1, 64), struct.pack("<HHII", 256, 4, 1, 2**31)
        ),
    ],
    ids=["png", "png of one bit", "progressive jpeg", "bmp", "tiff"],
)
def test_what_would_take_too_much_memory_is_refused_before_it_does(content, tmp_path):
    taken, reason = measured(tmp_path, content)
    assert reason.startswith(("too large", "damaged", "TIFF that"))
    assert taken < 40


@pytest.mark.parametrize("sort", ["f4", "f8", "f2"])
def test_floats_that_round_to_a_level_are_one(sort):
    values = (np.linspace(-0.001, 1.001, 64)).astype(sort).reshape(8, 8, 1)
    assert decode.decode(values, None, 1).ravel()[[0, -1]].tolist() == [0, 255]
    for wrong in (values * 1.01, values - 0.01, values * np.nan):
        with pytest.raises(Unusable, match=r"floats must lie in \[0, 1\]"):
            decode.decode(wrong, None, 1)


def test_a_member_that_is_encrypted_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", encoded(PHOTO, "PNG"))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for at in (6, content.find(b"PK\1\2") + 8):  # the flags, here and in the list of members
        content[at] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(Unusable, match="encrypted; unpack the archive with its password, and give the folder"):
        decode.decode(Zipped(str(tmp_path / "a.zip"), "a.png"), SIDE, 3)


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (640, 480), (90, 60), (100, 100)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_that_keeps_its_shape_is_at_most_so_large(kind, size):
    image = PHOTO.resize(size)
    got = decode.decode(encoded(image, kind, **({"quality": 95} if kind == "JPEG" else {})), None, 3, most=100)
    longer = min(1, 100 / max(size))
    assert got.shape == (max(1, round(size[1] * longer)), max(1, round(size[0] * longer)), 3)
    wanted = image.resize(got.shape[1::-1], Image.Resampling.BILINEAR)
    assert np.abs(got.astype(int) - np.asarray(wanted)).mean() < (3 if min(got.shape[:2]) > 1 else 15)


def test_a_large_photograph_is_shown_within_its_limits(tmp_path):
    taken, shape = measured(tmp_path, encoded(ramp(16320, 12240), "JPEG", quality=50), side=0)
    assert shape == "(1200, 1600, 3)"
    assert taken < 100


def test_a_chunk_silences_the_error_stream_once(tmp_path, monkeypatch):
    turned, dup2 = [], decode.os.dup2
    monkeypatch.setattr(decode.os, "dup2", lambda old, new: turned.append(new) or dup2(old, new))
    content, pixels = encoded(Image.new("RGB", (4, 4), "red"), "PNG"), tmp_path / "pixels"
    pixels.touch()
    unusable = decode.write_rows(str(pixels), 0, [content, b"broken", *[content] * 8], (4, 4, 3), True)
    assert turned == [2, 2]  # to nothing, and back
    assert [row for row, _ in unusable] == [1]
    images = np.fromfile(pixels, np.uint8).reshape(10, 4, 4, 3)
    assert (images[[0, *range(2, 10)]] == (255, 0, 0)).all()
    assert not images[1].any()
