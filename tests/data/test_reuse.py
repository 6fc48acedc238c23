"""Of a folder in which files have come or gone, the others are not decoded again."""

import os

import numpy as np
import pytest
from PIL import Image

from jaxclust import data
from jaxclust.data import cache

N, SIDE = 300, 8


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / "cache"))
    for i in range(N):
        picture(tmp_path / "photos" / f"{i:03d}.png", i % 250)
    (tmp_path / "photos" / "150.png").write_bytes(b"no image")
    return tmp_path / "photos"


def picture(path, grey):
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (SIDE, SIDE), grey).save(path)


def load(photos, side=SIDE):
    return data.load(data.Settings("folder", {"train": "all"}, "", side, 0, str(photos), "auto", 0.2))["train"]


@pytest.fixture
def decoded(photos, monkeypatch):
    """The names of the files that are decoded from now on."""
    load(photos)
    names, decode_all = [], cache.decode_all

    def watched(out, chunks, shape, resize):
        for start, items in chunks:
            names.extend(item.rpartition("/")[2] for item in items)
            yield from decode_all(out, [(start, items)], shape, resize)

    monkeypatch.setattr(cache, "decode_all", watched)
    return names


def greys(source):
    return {name: int(image[0, 0, 0]) for name, image in zip(source.names, source.images)}


EXPECTED = {f"{i:03d}.png": i % 250 for i in range(N) if i != 150}


def come(photos):
    picture(photos / "0005.png", 77)
    return EXPECTED | {"0005.png": 77}


def go(photos):
    (photos / "007.png").unlink()
    return {name: grey for name, grey in EXPECTED.items() if name != "007.png"}


def change(photos):
    picture(photos / "008.png", 99)
    return EXPECTED | {"008.png": 99}


def mend(photos):
    picture(photos / "150.png", 42)
    return EXPECTED | {"150.png": 42}


@pytest.mark.parametrize("what", [come, go, change, mend])
def test_what_is_as_it_was_is_not_decoded_again(what, photos, decoded):
    expected = what(photos)
    source = load(photos)
    assert greys(source) == expected
    assert [name for name, _ in source.skipped] == (["150.png"] if what is not mend else [])
    assert len(decoded) <= (0 if what is go else cache.CHUNK)
    assert len(list(cache.directory().glob("folder-*"))) == 1, "the earlier entry goes"
    assert np.array_equal(load(photos).images, source.images)


def test_a_file_that_was_replaced_with_its_time_kept_is_decoded_again(photos, decoded):
    before = (photos / "008.png").stat()
    picture(photos / "008.png", 99)
    os.utime(photos / "008.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    picture(photos / "zzz.png", 1)
    assert greys(load(photos)) == EXPECTED | {"008.png": 99, "zzz.png": 1}


def test_another_size_or_a_damaged_entry_is_of_no_use(photos, decoded):
    load(photos, 2 * SIDE)
    assert len(decoded) == N
    for entry in cache.directory().glob("folder-*"):
        (entry / "images.u8").write_bytes(bytes((entry / "images.u8").stat().st_size))
    assert greys(load(photos)) == EXPECTED
