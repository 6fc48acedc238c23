"""Lists of files, in every way in which people, Windows and spreadsheets write them."""

import os

import numpy as np
import pytest
from PIL import Image

from jaxclust import data
from jaxclust.data import lists, new_images
from jaxclust.run.errors import ConfigError

NAMES = ["a.png", "b c.png", "ü.png", "deep/#d.png"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / "cache"))
    for i, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * i,) * 3).save(path)
    return tmp_path / "photos"


def write(path, content: bytes | str):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


WAYS = {
    "plain.txt": lambda f: "\n".join(f).encode(),
    "windows.txt": lambda f: "\r\n".join([*f, ""]).encode(),
    "old mac.txt": lambda f: "\r".join([*f, ""]).encode(),
    "notepad.txt": lambda f: b"\xef\xbb\xbf" + "\r\n".join(f).encode(),
    "powershell.txt": lambda f: "\r\n".join(f).encode("utf-16"),
    "big endian.txt": lambda f: b"\xfe\xff" + "\n".join(f).encode("utf-16-be"),
    "comments.txt": lambda f: ("# mine\n\n" + "\n".join(f) + "\n#end").encode(),
    "copy as path.txt": lambda f: "\n".join(f'"{x}"' for x in f).encode(),
    "single quotes.lst": lambda f: "\n".join(f"'{x}'" for x in f).encode(),
    "spaces.txt": lambda f: "\n".join(f"  {x}\t " for x in f).encode(),
    "no suffix": lambda f: "\n".join(f).encode(),
    "utf-16 without suffix": lambda f: "\n".join(f).encode("utf-16"),
    "table.csv": lambda f: ("label,file\n" + "\n".join(f'1,"{x}"' for x in f)).encode(),
    "excel.csv": lambda f: b"\xef\xbb\xbf" + ("File;label\r\n" + "\r\n".join(f"{x};1" for x in f)).encode(),
    "table.tsv": lambda f: ("path\tlabel\n" + "\n".join(f"{x}\t1" for x in f)).encode("utf-16"),
    "no header.csv": lambda f: "\n".join(f).encode(),
}


@pytest.mark.parametrize("where", ["absolute", "beside the list", "in the current folder", "at home"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_a_list_names_the_same_files(way, where, photos, tmp_path, monkeypatch):
    home = tmp_path / "lists"
    home.mkdir()
    monkeypatch.chdir(photos.parent if where == "in the current folder" else home)
    monkeypatch.setenv("HOME", str(photos.parent))
    start = {"absolute": str(photos), "beside the list": "../photos", "at home": "~/photos"}.get(where, "photos")
    path = home / way.replace(" ", "_" if "suffix" in way else " ")
    write(path, WAYS[way]([f"{start}/{name}" for name in NAMES]))
    listed = lists.read(path)
    assert [os.path.realpath(file) for file in listed.files] == [str(photos / name) for name in NAMES]
    assert listed.names == [f"{start}/{name}" for name in NAMES]
    found = new_images.find(path, (8, 8, 3), 8)
    assert found.listing.count == len(NAMES)


def test_a_line_is_the_file_of_that_very_name_where_there_is_one(tmp_path):
    names = ["#1.png", " 2.png ", '"3.png"', "4.png"]
    for name in names:
        write(tmp_path / name, b"x")
    assert lists.read(write(tmp_path / "all.txt", "\n".join(names))).names == names


def test_a_file_that_is_not_there_is_named_beside_the_list(tmp_path):
    listed = lists.read(write(tmp_path / "all.txt", "# no file\n gone.png \n"))
    assert (listed.names, listed.files) == (["gone.png"], [str(tmp_path / "gone.png")])


def test_names_that_are_not_utf8_are_kept(tmp_path):
    name = os.fsdecode(b"\xff.png")
    write(tmp_path / name, b"x")
    assert lists.read(write(tmp_path / "all.txt", b"\xff.png\n")).names == [name]


@pytest.mark.parametrize("name", ["all.txt", "all.csv", "all"])
def test_a_list_is_trained_on(name, photos, tmp_path):
    path = write(tmp_path / name, "\n".join(f"photos/{name}" for name in NAMES))
    source = data.load(data.Settings("folder", {"train": "all"}, "", 8, dir=str(path)))["train"]
    assert source.names == [f"photos/{name}" for name in NAMES]
    np.testing.assert_array_equal(source.images[:, 0, 0, 0], [0, 40, 80, 120])


def test_labels_are_a_column_and_stay_with_their_files(photos, tmp_path):
    rows = "".join(f"photos/{name},{kind}\n" for name, kind in zip([*NAMES, "no.png"], "bcaab", strict=True))
    path = write(tmp_path / "all.csv", "file,kind\n" + rows.replace("a.png", "gone.png", 1))
    source = data.load(data.Settings("folder", {"train": "all"}, "kind", 8, dir=str(path), max_bad=0.5))["train"]
    said = {name: source.classes[label] for name, label in zip(source.names, source.labels, strict=True)}
    assert said == {f"photos/{name}": kind for name, kind in zip(NAMES[1:], "caa", strict=True)}
    assert {name for name, _ in source.skipped} == {"photos/gone.png", "photos/no.png"}


def test_a_file_that_is_named_again_is_set_aside(photos, tmp_path):
    path = write(tmp_path / "all.txt", f"photos/a.png\n{photos / 'a.png'}\nphotos/a.png\nphotos/gone.png\n")
    source = data.load(data.Settings("folder", {"train": "all"}, "", 8, dir=str(path), max_bad=0.5))["train"]
    assert source.names == ["photos/a.png"]
    assert [name for name, _ in source.skipped] == [str(photos / "a.png"), "photos/a.png", "photos/gone.png"]


@pytest.mark.parametrize(
    ("name", "content", "labels", "sentence"),
    [
        ("x.txt", "\n\n", "", "names no file"),
        ("x.csv", "", "", "has the columns none"),
        ("x.csv", "file,label\n", "", "names no file"),
        ("x.csv", "who,what\na,b\n", "", "call the one with the files 'file'"),
        ("x.csv", "file,label\na.png,1\n", "labels", "no such column.*did you mean"),
        ("x.csv", "file,label\na.png\n", "label", "a row without its file or label"),
        ("x.txt", "a.png\n", "folders", "only a .csv has columns"),
        ("x.txt", b"\0\1\2", "", "is no list of files"),
        ("x.txt", b"\xff\xfea", "", "cannot be read"),
    ],
)
def test_what_is_no_list_is_refused(name, content, labels, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        lists.read(write(tmp_path / name, content), labels)


def test_an_image_without_a_suffix_is_no_list(photos, tmp_path):
    (photos / "a.png").rename(tmp_path / "picture")
    assert not lists.is_list(tmp_path / "picture")
    assert new_images.find(tmp_path / "picture", (8, 8, 3), 8).listing.names == ["picture"]
