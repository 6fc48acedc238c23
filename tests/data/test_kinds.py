"""What is no image is set aside: photo folders as phones, computers and NAS systems leave them."""

import io
import os
import shutil
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxclust import data
from jaxclust.data import folder, kinds

JPEG = io.BytesIO()
Image.new("RGB", (8, 8), "red").save(JPEG, "JPEG")
JPEG = JPEG.getvalue()
DOUBLE = struct.pack(">II", 0x00051607, 0x00020000) + b"Mac OS X        " + bytes(130)
PHOTOS = {f"{i % 2}/IMG_{i:04d}.JPG": JPEG for i in range(6)}
MOVIE = b"\0\0\0\x14ftypqt  " + bytes(90)
LAYOUTS = {  # what lies beside the photos
    "a Mac's USB stick": {f"{Path(name).parent}/._{Path(name).name}": DOUBLE for name in PHOTOS},
    "Finder": {"0/.DS_Store": b"\0\0\0\1Bud1" + bytes(60), ".DS_Store": b"", "Icon\r": b""},
    "Windows": {"0/Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(60), "1/desktop.ini": b"[x]"},
    "Takeout": {f"{name}.supplemental-metadata.json": b"{}" for name in PHOTOS},
    "live photos": {"0/IMG_0000.MOV": MOVIE, "0/IMG_0000.AAE": b"<plist/>", "1/IMG_0001.xmp": b"<x/>"},
    "Synology": {"0/@eaDir/IMG_0000.JPG/SYNOFILE_THUMB_M.jpg": JPEG, "0/@eaDir/x": b"x", "#recycle/old.jpg": JPEG},
    "Finder's archive": {f"__MACOSX/{Path(name).parent}/._{Path(name).name}": DOUBLE for name in PHOTOS},
    "hidden folders": {".thumbnails/a.jpg": JPEG, "0/.git/b.jpg": JPEG},
    "webdataset": {"0/IMG_0000.json": b"{}", "0/IMG_0000.txt": b"a digit", "0/IMG_0000.cls": b"7"},
}
SETTINGS = {"name": "folder", "splits": {"train": "all"}, "labels": "", "size": 8}


def load(path, **change) -> data.Source:
    return data.load(data.Settings(**{**SETTINGS, "dir": str(path), **change}))["train"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(root: Path, files: dict[str, bytes], kind: str) -> Path:
    """The files as a folder or archive of that kind."""
    path = root / f"photos{kind}"
    if kind == "":
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    elif kind == ".zip":
        with zipfile.ZipFile(path, "w") as z:
            for name, content in files.items():
                z.writestr(name, content)
    else:
        with tarfile.open(path, {".tar": "w", ".tgz": "w:gz", ".tar.gz": "w:gz", ".tar.xz": "w:xz"}[kind]) as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["", ".zip", ".tar"])
@pytest.mark.parametrize("beside", LAYOUTS)
def test_what_lies_beside_photos_is_listed_and_not_counted(beside, kind, tmp_path):
    source = load(write(tmp_path, PHOTOS | LAYOUTS[beside], kind), labels="folders")
    assert source.names == sorted(PHOTOS)
    assert source.classes == ("0", "1")
    aside = [name for name, _ in source.skipped]
    for name in LAYOUTS[beside]:
        assert any(name == other or (other.endswith("/") and name.startswith(other)) for other in aside)


@pytest.mark.parametrize("kind", [".tar.gz", ".tgz", ".tar.xz"])
def test_compressed_tars_are_read(kind, tmp_path):
    source = load(write(tmp_path, {f"./{name}": content for name, content in PHOTOS.items()}, kind))
    assert source.names == sorted(PHOTOS)
    np.testing.assert_array_equal(source.images, load(write(tmp_path, PHOTOS, "")).images)


@pytest.mark.parametrize(
    ("name", "head", "counts"),
    [
        ("broken.jpg", b"no picture", True),
        ("empty.PNG", b"", True),
        ("IMG_1.HEIC", b"", True),
        ("._double.jpg", DOUBLE, False),
        ("._double.jpg", b"", False),
        ("._photo.jpg", JPEG, True),
        ("._broken.jpg", b"no picture", True),
        ("photo", JPEG, True),
        ("photo.bak", JPEG, True),
        ("photo.bin", b"\0\0\0\x24ftypheic", True),
        ("movie.mov", MOVIE, False),
        ("notes.txt", b"BM, he said", False),
        ("README", b"read me", False),
        ("unreadable", None, True),
        ("unreadable.txt", None, False),
    ],
)
def test_name_and_content_say_what_was_meant_to_be_an_image(name, head, counts):
    assert (kinds.file_aside(f"a/{name}", lambda: head) is None) == counts


def test_what_appears_beside_the_photos_later_changes_nothing(tmp_path):
    path = write(tmp_path, PHOTOS | {"0/broken.jpg": b"no picture"}, "")
    before = load(path, max_bad=0.5)
    write(tmp_path, {"0/.DS_Store": b"Bud1", "1/a.json": b"{}"}, "")
    after = load(path, max_bad=0.5)
    assert after.fingerprint() == before.fingerprint()
    assert {name for name, _ in after.skipped} == {"0/.DS_Store", "1/a.json", "0/broken.jpg"}
    with pytest.raises(data.ConfigError, match="1 of 7 images cannot be used"):
        load(path)


@pytest.mark.parametrize("kind", [".tar", ".tar.gz", ".zip"])
def test_a_folder_of_archives_alone_is_read_as_one_of_folders(kind, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for i in range(3):
        write(tmp_path, PHOTOS, kind).rename(shards / f"{i}{kind}")
    (shards / "meta.json").write_text("{}")
    source = load(shards)
    assert source.names == sorted(f"{i}{kind}/{name}" for i in range(3) for name in PHOTOS)
    assert [name for name, _ in source.skipped] == ["meta.json"]
    (shards / "photo.jpg").write_bytes(JPEG)  # where there are photos, archives lie beside them
    assert load(shards).names == ["photo.jpg"]


@pytest.mark.parametrize("kind", [".zip", ".tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_listed(kind, tmp_path):
    path = tmp_path / f"twice{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w") as z:
            z.writestr("a.jpg", b"older")
            z.writestr("a.jpg", JPEG)
    else:
        with tarfile.open(path, "w") as tar:
            for content in (b"older", JPEG):
                info = tarfile.TarInfo("a.jpg")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    source = load(path)
    assert source.names == ["a.jpg"]
    assert source.skipped == (("a.jpg", "in the archive more than once; the last one is read"),)


def test_a_file_that_vanishes_while_the_folder_is_listed_is_only_listed(tmp_path, monkeypatch):
    path = write(tmp_path, PHOTOS | {"0/gone.jpg": JPEG, "0/late/x.jpg": JPEG}, "")
    scandir = os.scandir

    def slow(where):
        if where != str(path / "0"):
            return scandir(where)
        entries = [*scandir(where)]
        (path / "0" / "gone.jpg").unlink()
        shutil.rmtree(path / "0" / "late")
        return entries

    monkeypatch.setattr(folder.os, "scandir", slow)
    listing = folder.listing(path, 8)
    assert listing.names == sorted(PHOTOS)
    assert [name for name, _ in listing.aside] == ["0/gone.jpg", "0/late/"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_tells_names_alone_does_not_refuse_the_others():
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        path = write(Path(base), PHOTOS | {"0/notes.txt": b"", "2/a.jpg": JPEG}, "")
        (path / "0").chmod(0o744)
        os.seteuid(65534)
        try:
            listing = folder.listing(path, 8)
        finally:
            os.seteuid(0)
    assert listing.names == sorted([*PHOTOS, "2/a.jpg"])
    assert [name for name, _ in listing.aside] == ["0/notes.txt"]
