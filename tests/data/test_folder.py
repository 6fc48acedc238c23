"""A user's own images: every format, archive and array that is read, and everything that can be wrong with a file."""

import csv
import io
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from jaxclust import data
from jaxclust.data import cache, decode, folder
from jaxclust.run.errors import ConfigError

DIGITS = np.round(load_digits().images * (255 / 16)).astype(np.uint8)  # u8[1797, 8, 8]
LABELS = load_digits().target
SETTINGS = {
    "name": "folder",
    "splits": {"train": "all"},
    "labels": "",
    "size": 8,
    "stored": 0,
    "resident": "auto",
    "max_bad": 0.0,
}


def load(path, **change) -> data.Source:
    return data.load(data.Settings(**{**SETTINGS, "dir": str(path), **change}))["train"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path_factory.mktemp("cache")))


def encoded(image: Image.Image, kind: str, **how) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def grey16(digit):
    return Image.fromarray(digit.astype(np.uint16) * 257)


def transparent(digit):
    """Black ink on nothing: the paper is the inverse of the digit's alpha."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 3] = 255 - digit
    return Image.fromarray(rgba)


def turned(image, orientation):
    """The image as a camera stores it that was held otherwise, with the tag that says so."""
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image.transpose(stored), exif


LOSSLESS = {
    "grey.png": lambda d: encoded(Image.fromarray(d), "PNG"),
    "colour.png": lambda d: encoded(Image.fromarray(d).convert("RGB"), "PNG"),
    "palette.png": lambda d: encoded(Image.fromarray(d).convert("P"), "PNG"),
    "alpha.png": lambda d: encoded(transparent(d), "PNG"),
    "grey alpha.png": lambda d: encoded(Image.fromarray(d).convert("LA"), "PNG"),
    "sixteen bits.png": lambda d: encoded(grey16(d), "PNG"),
    "image.webp": lambda d: encoded(Image.fromarray(d).convert("RGB"), "WEBP", lossless=True),
    "image.gif": lambda d: encoded(Image.fromarray(d), "GIF"),
    "animated.gif": lambda d: encoded(
        Image.fromarray(d), "GIF", save_all=True, append_images=[Image.fromarray(255 - d), Image.new("L", (8, 8))]
    ),
    "image.bmp": lambda d: encoded(Image.fromarray(d).convert("RGB"), "BMP"),
    "image.tiff": lambda d: encoded(Image.fromarray(d).convert("RGB"), "TIFF", compression="tiff_lzw"),
    "sixteen bits.tif": lambda d: encoded(grey16(d), "TIFF"),
    "floats.tif": lambda d: encoded(Image.fromarray(d.astype(np.float32) / 255), "TIFF"),
    "cmyk.tif": lambda d: encoded(
        Image.fromarray(np.stack([0 * d, 0 * d, 0 * d, 255 - d], -1), "CMYK"), "TIFF", compression="tiff_lzw"
    ),
    "wrong ending.jpg": lambda d: encoded(Image.fromarray(d), "PNG"),
    "no ending": lambda d: encoded(Image.fromarray(d), "PNG"),
    **{
        f"turned {n}.png": lambda d, n=n: encoded((t := turned(Image.fromarray(d), n))[0], "PNG", exif=t[1])
        for n in range(2, 9)
    },
    "turned.tif": lambda d: encoded((t := turned(Image.fromarray(d), 6))[0], "TIFF", exif=t[1]),
}
LOSSY = {
    "grey.jpg": lambda d: encoded(Image.fromarray(d), "JPEG", quality=95),
    "colour.jpg": lambda d: encoded(Image.fromarray(d).convert("RGB"), "JPEG", quality=95),
    "progressive.jpg": lambda d: encoded(Image.fromarray(d), "JPEG", quality=95, progressive=True),
    "cmyk.jpg": lambda d: encoded(Image.fromarray(d).convert("RGB").convert("CMYK"), "JPEG", quality=95),
    "turned.jpg": lambda d: encoded((t := turned(Image.fromarray(d), 6))[0], "JPEG", quality=95, exif=t[1]),
    "lossy.webp": lambda d: encoded(Image.fromarray(d).convert("RGB"), "WEBP", quality=95),
}


@pytest.fixture
def tree(tmp_path):
    """The digits in a folder of class folders, each in another format; returns the folder and name -> digit."""
    content = {}
    for i, (name, encode) in enumerate((LOSSLESS | LOSSY).items()):
        path = f"{LABELS[i]}/deep/{'er/' * (i % 3)}{i:02d} {name}"
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(encode(DIGITS[i]))
        content[path] = i
    return tmp_path, content


def check(source, content):
    assert source.images.dtype == np.uint8
    assert source.images.shape == (len(content), 8, 8, 3)
    assert sorted(source.names) == sorted(content)
    for name, image in zip(source.names, source.images, strict=True):
        wanted = np.repeat(DIGITS[content[name]][..., None], 3, -1)
        lossy = any(name.endswith(kind) for kind in LOSSY)
        np.testing.assert_allclose(image.astype(int), wanted, atol=40 if lossy else 0, err_msg=name)
    assert not source.skipped


def test_every_format_is_read(tree):
    check(load(tree[0]), tree[1])


@pytest.mark.parametrize("top", ["", "photos/"])
def test_archives_are_read_as_the_folders_they_hold(tree, top, tmp_path_factory):
    folder, content = tree
    out = tmp_path_factory.mktemp("archives")
    with tarfile.open(out / "a.tar", "w") as tar, zipfile.ZipFile(out / "a.zip", "w", zipfile.ZIP_DEFLATED) as z:
        for name in content:
            tar.add(folder / name, top + name)
            z.write(folder / name, top + name)
    for path in (out / "a.tar", out / "a.zip"):
        source = load(path, labels="folders")
        check(source, content)
        assert source.labels.tolist() == [LABELS[content[name]] for name in source.names]


@pytest.mark.parametrize("kind", ["uint8", "float32", "float16"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_arrays_are_read(kind, channels, tmp_path):
    digits = DIGITS[:30] if channels is None else np.repeat(DIGITS[:30, ..., None], channels, -1)
    images = digits if kind == "uint8" else (digits / 255).astype(kind)
    np.save(tmp_path / "x.npy", images)
    np.savez(tmp_path / "x.npz", x=images, y=LABELS[:30])
    wanted = digits.reshape(30, 8, 8, -1)
    np.testing.assert_array_equal(load(tmp_path / "x.npy").images, wanted)
    source = load(tmp_path / "x.npz", labels="y")
    np.testing.assert_array_equal(source.images, wanted)
    np.testing.assert_array_equal(source.labels, LABELS[:30])
    assert load(tmp_path / "x.npy", stored=6).images.shape == (30, 6, 6, channels or 1)


FEW = [2**40 + 3, 7, 2**40 + 3, 2**32 + 7]  # of which 32 bits make 3, 7, 3 and 7


@pytest.mark.parametrize(
    ("labels", "wanted", "classes"),
    [
        (np.array(FEW), [2, 0, 2, 1], ("7", str(2**32 + 7), str(2**40 + 3))),
        (np.array(["cat", "ant", "cat", "bee"]), [2, 0, 2, 1], ("ant", "bee", "cat")),
        (np.array([True, False, True, True]), [1, 0, 1, 1], ("False", "True")),
        (np.array([[3.0], [-1], [3], [5]]), [3, -1, 3, 5], ()),
        (np.array([[3], [1], [3], [5]], np.uint64), [3, 1, 3, 5], ()),
    ],
    ids=lambda of: str(of.dtype) if isinstance(of, np.ndarray) else "",
)
def test_labels_of_any_kind_tell_apart_what_they_told_apart(labels, wanted, classes, tmp_path):
    for kind in (np.uint8, np.float32):  # as they are, and by way of the cache
        np.savez(tmp_path / "x.npz", x=(DIGITS[:4] / 255).astype(kind), y=labels)
        source = load(tmp_path / "x.npz", labels="y")
        assert source.labels.dtype == np.int32
        assert (source.labels.tolist(), source.classes) == (wanted, classes)


def test_an_array_of_bytes_is_mapped_and_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", DIGITS)
    assert isinstance(load(tmp_path / "x.npy").images.base, np.memmap)
    assert not any(cache.directory().iterdir())


@pytest.mark.parametrize(
    ("arrays", "labels", "sentence"),
    [
        ({"x": np.zeros((5, 8))}, "", "must hold one array of images"),
        ({"x": DIGITS[:5], "z": DIGITS[:5]}, "", "must hold one array of images"),
        ({"x": DIGITS[:5, None]}, "", "the last axis must be 1"),
        ({"x": DIGITS[:5].astype(int)}, "", "give uint8, or floats"),
        ({"x": DIGITS[:5]}, "y", "has no such array"),
        ({"x": DIGITS[:5], "y": LABELS[:4]}, "y", "give 5 whole numbers or words"),
        ({"x": DIGITS[:5], "y": np.eye(5)}, "y", "give 5 whole numbers"),
        ({"x": DIGITS[:5], "y": np.full(5, 0.5)}, "y", "give 5 whole numbers"),
        ({"x": DIGITS[:5], "y": np.full(5, np.nan)}, "y", "give 5 whole numbers"),
        ({"x": np.array([{}])}, "", "cannot be read"),
    ],
)
def test_arrays_that_are_no_images_are_refused(arrays, labels, sentence, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ConfigError, match=sentence):
        load(tmp_path / "x.npz", labels=labels)


def test_floats_beyond_one_are_skipped_and_named(tmp_path):
    images = DIGITS[:10] / 255
    images[3] *= 200
    images[7, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", images)
    source = load(tmp_path / "x.npy", max_bad=0.2)
    assert len(source.images) == 8
    assert [name for name, _ in source.skipped] == ["record 3", "record 7"]


def test_links_are_followed_once_and_never_in_circles(tmp_path):
    root, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for path in (root / "real" / "a.png", root / "b.png", elsewhere / "c.png", elsewhere / "d.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(LOSSLESS["grey.png"](DIGITS[len(path.name)]))
    (root / "0 again").symlink_to("real")
    (root / "0 again.png").symlink_to("b.png")
    (root / "real" / "up").symlink_to("..")
    (root / "album").symlink_to(elsewhere)
    (root / "album too").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "one.png").symlink_to(elsewhere / "d.png")
    source = load(root)
    assert source.names == ["album/c.png", "album/d.png", "b.png", "real/a.png"]
    reasons = dict(source.skipped)
    assert reasons == {
        "0 again/": "a link to real/, which is read already",
        "0 again.png": "a link to b.png, which is read already",
        "real/up/": "a link to the whole folder, which is read already",
        "album too/": "a link to album/, which is read already",
        "album/back/": "a link to the whole folder, which is read already",
        "one.png": "a link to album/d.png, which is read already",
    }


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 black pixels in half a megabyte."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(bytes(7501)) for _ in range(60_000)) + rows.flush()
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def worst(root) -> tuple[set[str], set[str]]:
    """Fills a folder with the worst files there are; returns the names of those that are images after all, and not."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8))
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF"}
    whole = {suffix: encoded(photo, kind) for suffix, kind in kinds.items()}
    whole["progressive.jpg"] = encoded(photo, "JPEG", progressive=True)
    whole["lzw.tif"] = encoded(photo, "TIFF", compression="tiff_lzw")
    good, bad = {}, {}
    for suffix, content in whole.items():
        good[f"whole.{suffix}"] = content
        for tenth in range(10):
            bad[f"cut to {tenth} tenths.{suffix}"] = content[: len(content) * tenth // 10]
        broken = bytearray(content)
        broken[len(content) // 3 : len(content) // 3 + 200] = bytes(200)
        (root / f"zeros in {suffix}").write_bytes(broken)  # whether it can still be read is the format's affair
    good["png, says jpg.jpg"] = whole["png"]
    good["cmyk.jpg"] = encoded(photo.convert("CMYK"), "JPEG")
    good["sixteen bits.png"] = encoded(Image.fromarray(rng.integers(0, 65535, (9, 9)).astype(np.uint16)), "PNG")
    good["animated.gif"] = encoded(photo, "GIF", save_all=True, append_images=[photo.rotate(90)])
    good["two\nlines.png"] = good['smile 😀 "quoted", and comma.png'] = good["-rf *.png"] = whole["png"]
    good[os.fsdecode(b"not utf-8 \xff.png")] = whole["png"]
    good["one pixel.png"] = encoded(Image.new("L", (1, 1)), "PNG")
    good["thin.png"] = encoded(Image.new("L", (1, 5000)), "PNG")
    good["bad exif.jpg"] = encoded(photo, "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff nonsense")
    bad["text.jpg"] = b"this is no picture"
    bad["page.html"] = b"<html><img src=x></html>"
    bad["noise.jpg"] = rng.integers(0, 255, 5000, np.uint8).tobytes()
    bad["noise after a header.jpg"] = whole["jpg"][:20] + rng.integers(0, 255, 5000, np.uint8).tobytes()
    bad["zero bytes.png"] = b""
    bad["bomb.png"] = bomb()
    bad["huge header.bmp"] = b"BM" + struct.pack(
        "<IHHIIiiHHIIIIII", 100, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0
    )
    bad["movie.mp4"] = b"\x00\x00\x00\x18ftypmp42" + bytes(100)
    bad["script.eps"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    bad["drawing.svg"] = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    bad[".DS_Store"] = b"\x00\x00\x00\x01Bud1"
    bad["Thumbs.db"] = b"\xd0\xcf\x11\xe0"
    bad["floats.tif"] = encoded(Image.fromarray(np.full((9, 9), 1e6, np.float32)), "TIFF")
    for name, content in (good | bad).items():
        (root / name).write_bytes(content)
    os.mkfifo(root / "pipe.jpg")
    (root / "nowhere.jpg").symlink_to("gone.jpg")
    (root / "circle.jpg").symlink_to("circle.jpg")
    (root / "folder.jpg").mkdir()
    (root / "folder.jpg" / "inside.png").write_bytes(whole["png"])
    return {*good, "folder.jpg/inside.png"}, {*bad, "pipe.jpg", "nowhere.jpg", "circle.jpg"}


def test_the_worst_folder_is_read(tmp_path):
    good, bad = worst(tmp_path)
    assert len(bad) >= 95
    source = load(tmp_path, max_bad=1.0, size=16)
    skipped, read = dict(source.skipped), set(source.names)
    assert len(read) == len(source.images)
    assert {name for name in read if not name.startswith("zeros in")} == good
    assert {name for name in skipped if not name.startswith("zeros in")} == bad
    assert all(reason and "\n" not in reason for reason in skipped.values())
    assert "too large" in skipped["bomb.png"]
    assert skipped["pipe.jpg"] == "not a regular file"
    assert skipped["zero bytes.png"] == "empty"
    assert "not an image" in skipped["text.jpg"]
    assert "no such file" in skipped["nowhere.jpg"]

    (entry,) = cache.directory().glob("folder-*")
    with (entry / "skipped.csv").open(newline="", encoding="utf-8") as f:
        assert [tuple(row) for row in csv.reader(f)] == [("file", "reason"), *source.skipped]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_may_not_be_read_is_skipped():
    """Decoded in this process, which for that long is nobody; pytest's own folders would be closed to nobody."""
    with tempfile.TemporaryDirectory() as base:
        path = Path(base)
        path.chmod(0o755)
        for name in ("mine.png", "yours.png", "closed/inside.png"):
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(LOSSLESS["grey.png"](DIGITS[0]))
        (path / "mine.png").chmod(0)
        (path / "closed").chmod(0)
        os.seteuid(65534)
        try:
            listing = folder.listing(path, 8)
            reasons = dict(decode.write_rows(os.devnull, 0, listing.read(range(3))[0], (8, 8, 3), True))
        finally:
            os.seteuid(0)
    assert listing.names == ["closed/", "mine.png", "yours.png"]
    assert reasons == {0: "a folder that cannot be read", 1: "no permission to read it; tried again next time"}


def test_too_many_bad_files_stop_the_run_and_ten_are_shown(tmp_path):
    for i in range(30):
        (tmp_path / f"{i:02d}.png").write_bytes(LOSSLESS["grey.png"](DIGITS[i]) if i < 18 else b"no")
    with pytest.raises(ConfigError, match=r"12 of 30 images cannot be used, more than data.max_bad=0.39 allows") as e:
        load(tmp_path, max_bad=0.39)
    assert len(str(e.value).splitlines()) == 11
    assert "'18.png': not an image" in str(e.value)
    source = load(tmp_path, max_bad=0.4)
    assert len(source.images) == 18
    for i in range(18):
        (tmp_path / f"{i:02d}.png").unlink()
    with pytest.raises(ConfigError, match="none of 12 images can be used"):
        load(tmp_path, max_bad=1.0)


def test_a_file_that_kills_its_decoder_is_found_and_the_rest_is_read(tmp_path):
    """No image here does that, so one is made to: a chunk of images meets a worker that dies on reading it."""
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(LOSSLESS["grey.png"](DIGITS[i]))
    listing = folder.listing(tmp_path, 8)
    items = [Deadly() if i == 4 else item for i, item in enumerate(listing.read(range(9))[0])]
    entry = cache.entry(listing._replace(read=lambda rows: (items[rows.start : rows.stop], None)))
    assert entry.skipped == [("4.png", "its decoder crashed, or was killed; tried again next time")]
    assert len(entry.images) == 8
    np.testing.assert_array_equal(entry.images[4, ..., 0], DIGITS[8])  # the last image has filled the gap
    assert entry.names[4] == "8.png"


class Deadly(str):
    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p / "nothing", "there is no folder, archive, array or list"),
        (lambda p: p, "there is no file in"),
        (lambda p: written(p / "x.rar", b"Rar!"), "is not a folder, .tar, .zip, .npy, .npz or list"),
        (lambda p: written(p / "x.zip", b"PK nonsense"), "damaged or of another kind"),
        (lambda p: written(p / "x.tar", zlib.compress(bytes(9999))), "damaged or of another kind"),
        (lambda p: written(p / "x.npy", b"nonsense"), "cannot be read as an array"),
    ],
)
def test_a_path_that_holds_no_images_is_refused(make, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        load(make(tmp_path))


def written(path, content):
    path.write_bytes(content)
    return path


def test_an_archive_that_is_cut_short_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a.png", "b.png"):
            tar.add(written(tmp_path / name, os.urandom(3000)), name)
    for size in (2000, 5000, 8000):  # in the first image, in the header of the second, in the second
        written(tmp_path / "cut.tar", (tmp_path / "a.tar").read_bytes()[:size])
        with pytest.raises(ConfigError, match=r"ends in the middle|unexpected end of data"):
            load(tmp_path / "cut.tar")


def test_labels_of_folders_want_every_image_in_one(tmp_path):
    for name in ("cat/a.png", "stray.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written(tmp_path / name, LOSSLESS["grey.png"](DIGITS[0]))
    with pytest.raises(ConfigError, match=r"'stray.png' lies in none"):
        load(tmp_path, labels="folders")
    with pytest.raises(ConfigError, match=r"data\.labels is 'label'"):
        load(tmp_path, labels="label")
