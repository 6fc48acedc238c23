"""Lists of what was made, from anybody: whatever they say, nothing outside changes, and nothing is lost.

Another number of made-up lists, or others:  FUZZ=20000 FUZZ_FROM=1000 python -m pytest tests/inference/test_manifest.py
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxclust.data import new_images
from jaxclust.inference import folders, manifest
from jaxclust.run.errors import ConfigError

COUNT, FIRST = int(os.environ.get("FUZZ", "800")), int(os.environ.get("FUZZ_FROM", "0"))
FORMS = [
    "",
    "[]",
    "3",
    "null",
    '"x"',
    "{",
    '{"a": []}',
    '{"a/b": true}',
    '{"a/b": {"c": 1}}',
    "NaN",
    "\x00",
    "1" * 9999,
]
FORMS += ["[" * 100_000, '{"a":' * 100_000, '{"a": 1', "\ufeff{}"]


@pytest.fixture
def stranger(tmp_path):
    """A sorted folder, the images that it was made of, and things around it that nobody may touch."""
    around = tmp_path / "around"
    (around / "empty").mkdir(parents=True)
    (around / "deep" / "er").mkdir(parents=True)
    for i in range(4):
        (around / "card").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(around / "card" / f"{i}.png")
    (around / "mine").write_text("mine")
    shutil.copy(around / "card" / "1.png", around / "deep" / "er" / "1.png")  # the same bytes as an image at hand
    (around / "link").symlink_to("mine")
    into = around / "into"
    again(into)
    (into / "0" / "own.png").write_text("mine, too")
    (into / "to").symlink_to("../deep/er")
    (into / "up").symlink_to("..")
    return into


def again(into: Path, copy: bool = True) -> None:
    found = new_images.find(into.parent / "card", (8, 8, 1), 8)
    folders.make(into, found, into.parent / "card", [(row, row % 2) for row in range(4)], {0: "", 1: ""}, copy)


def state(into: Path) -> dict[str, tuple]:
    """All that lies around a folder."""
    there = {}
    for folder, _, files in os.walk(into.parent):
        if not Path(folder).is_relative_to(into):
            there[folder] = ()
            for name in files:
                path = Path(folder, name)
                there[str(path)] = path.lstat().st_ino, path.lstat().st_mtime_ns, path.read_bytes()
    return there


@pytest.mark.parametrize("text", FORMS, ids=range(len(FORMS)))
def test_a_list_of_another_form_is_an_error_in_a_sentence(text, stranger):
    (stranger / manifest.MANIFEST).write_text(text)
    before = state(stranger), sorted(stranger.rglob("*"))
    with pytest.raises(ConfigError, match=r"should list what was made there, .*; move it away, or give another folder"):
        again(stranger)
    assert (state(stranger), sorted(stranger.rglob("*"))) == before


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "endless"])
def test_what_is_no_file_in_a_lists_place_is_neither_read_nor_written(kind, stranger):
    path = stranger / manifest.MANIFEST
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link": "../mine", "dangling": "../new", "endless": "/dev/zero"}[kind])
    before = state(stranger)
    with pytest.raises(ConfigError, match="should list what was made there"):
        again(stranger)
    assert state(stranger) == before


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_nothing_is_written_through_what_lies_where_copies_are_prepared(kind, stranger):
    path = stranger / f"{folders.PART}.a"
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(stranger.parent / "card" / "0.png")
    before = state(stranger)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link": "../mine", "dangling": "../new"}[kind])
    again(stranger)
    assert [*stranger.glob(f"{folders.PART}*")] == ([path] if kind == "folder" else [])
    assert state(stranger) == before


def names(rng: np.random.Generator, into: Path) -> str:
    """A name as a hostile list may have it."""
    there = ["0/0.png", "0/2.png", "1/1.png", "1/3.png", "0/own.png", "0", "1", "to/1.png", "up/mine", "up/link"]
    outside = ["mine", "link", "card/1.png", "empty", "deep/er/1.png", "new", "empty/x"]
    parts = ["..", ".", "", "0", "1", "to", "up", "\0", "\ud800", "\udcff", "~", "x" * 300, "*", "0.png", "mine", "\n"]
    one = outside[rng.integers(len(outside))]
    kinds = [
        there[rng.integers(len(there))],
        str(into.parent / one),
        f"../{one}",
        f"0/../../{one}",
        f"./{there[0]}",
        f"//{into.parent}/{one}",
        str(into / there[rng.integers(len(there))]),
        "/".join(parts[i] for i in rng.integers(len(parts), size=rng.integers(5))),
        "/" + parts[rng.integers(len(parts))],
    ]
    return kinds[rng.integers(len(kinds))]


def value(rng: np.random.Generator, into: Path):
    kinds = [None, 0, 10**30, -1, (into.parent / "mine").stat().st_mtime_ns, (into / "0/own.png").stat().st_mtime_ns]
    return kinds[rng.integers(len(kinds))] if rng.random() < 0.98 else [1.5, "x", [], True][rng.integers(4)]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT // 80))
def test_no_list_reaches_out_of_its_folder_or_loses_anything(seed, stranger):
    """Eighty lists, one after the other: of made-up names, the last one with more of them, and with flipped bytes."""
    rng, path = np.random.default_rng(seed), stranger / manifest.MANIFEST
    inside = {file.read_bytes() for file in stranger.glob("*/*.png")}
    before, refused = state(stranger), 0
    for turn in range(80):
        listed = json.loads(path.read_text("utf-8")) if turn % 2 and path.stat().st_size < 10_000 else {}
        listed |= {names(rng, stranger): value(rng, stranger) for _ in range(rng.integers(1, 12))}
        text = bytearray(json.dumps(listed).encode())
        for at in rng.integers(len(text), size=rng.integers(0, 4) if turn % 4 > 1 else 0):
            text[at] = rng.integers(256)
        whole = path.read_bytes()
        path.write_bytes(text)
        try:
            again(stranger, copy=seed % 2 == 0)
        except ConfigError:
            refused += 1
            path.write_bytes(whole)
        assert state(stranger) == before
        assert inside <= {file.read_bytes() for file in stranger.glob("*/*.png")}
    assert 0 < refused < 80
