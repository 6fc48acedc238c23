"""A run's images as the user's files, shown in their own shape wherever they lie."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxclust import data
from jaxclust.data import originals
from jaxclust.data.decode import Unusable

SHAPES = {"a.png": (300, 120), "b.jpg": (100, 200), "sub/c.png": (90, 90)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    for i, (name, size) in enumerate(SHAPES.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (80 * i, 200, 30)).save(folder / name)
    return folder


def found(path: Path) -> originals.Originals | None:
    settings = data.Settings("folder", {"train": "all"}, "", size=16, dir=str(path))
    return originals.of(data.load(settings)["train"], settings)


def tarred(photos: Path, name: str, mode: str) -> Path:
    with tarfile.open(photos.parent / name, mode) as archive:
        archive.add(photos, "photos")
    return photos.parent / name


def zipped(photos: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in SHAPES:
            archive.write(photos / name, name)
    return path


def listed(photos: Path) -> Path:
    path = photos.parent / "list.txt"
    path.write_text("\n".join(f"photos/{name}" for name in SHAPES))
    return path


def of_archives(photos: Path) -> Path:
    (photos.parent / "zips").mkdir()
    return zipped(photos, photos.parent / "zips" / "one.zip").parent


KINDS = {
    "folder": lambda photos: photos,
    "tar": lambda photos: tarred(photos, "p.tar", "w"),
    "tgz": lambda photos: tarred(photos, "p.tar.gz", "w:gz"),
    "zip": lambda photos: zipped(photos, photos.parent / "p.zip"),
    "list": listed,
    "folder of archives": of_archives,
}


@pytest.mark.parametrize("kind", KINDS)
def test_originals_are_found_in_whatever_they_lie(photos, kind):
    files = found(KINDS[kind](photos))
    for row, (width, height) in enumerate(SHAPES.values()):
        scale = min(1, 100 / max(width, height))
        wanted = (round(height * scale), round(width * scale), 3)
        assert files.decode(row, 100).shape == wanted
        assert abs(int(files.decode(row, 100)[5, 5, 0]) - 80 * row) < 4


def test_what_is_gone_damaged_or_led_out_of_the_folder_is_unusable(photos):
    files = found(photos)
    (photos / "a.png").unlink()
    (photos / "a.png").symlink_to(tarred(photos, "p.tar", "w"))
    (photos / "b.jpg").write_bytes(b"no image")
    (photos / "sub/c.png").unlink()
    for row, why in enumerate(("leads out", "not an image|image", "cannot be opened")):
        with pytest.raises(Unusable, match=why):
            files.decode(row, 100)


def test_a_folder_that_has_moved_has_no_originals_any_more(photos):
    files = found(photos)
    photos.rename(photos.parent / "elsewhere")
    with pytest.raises(Unusable):
        files.decode(0, 100)


def test_arrays_have_no_originals(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), np.uint8))
    assert found(tmp_path / "x.npy") is None
