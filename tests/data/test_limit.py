"""The cache has a limit, shows what it holds, and can be emptied."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from jaxclust import data, main
from jaxclust.data import limit
from jaxclust.run.errors import ConfigError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folder_of(grey: int, at, count: int = 10):
    at.mkdir()
    for i in range(count):
        Image.fromarray(np.full((8, 8, 3), grey + i, np.uint8)).save(at / f"{i}.png")
    return at


def load(folder, size: int = 32):
    return data.load(data.Settings("folder", {"train": "all"}, "", size, 0, str(folder)))["train"]


def test_what_was_used_longest_ago_goes_first(home, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE_GB", "8e-5")  # two of them and a half
    folders = [folder_of(20 * i, tmp_path / f"{i}") for i in range(4)]
    keys = []
    for folder in folders[:2]:
        load(folder)
        (new,) = {entry.path for entry in limit.kept(home)} - {*keys}
        keys.append(new)
    long_ago = time.time() - 1e6
    for age, path in ((10, keys[0]), (20, keys[1])):
        for file in path.iterdir():
            os.utime(file, (long_ago - age, long_ago - age))
    load(folders[0])  # is used again, and so the other one goes
    load(folders[2])
    assert keys[0].exists()
    assert not keys[1].exists()
    load(folders[3])  # nothing that may be in use goes
    assert keys[0].exists()
    assert len(limit.kept(home)) == 3


def test_more_than_the_cache_may_hold_is_refused_with_the_numbers(home, tmp_path):
    photos = folder_of(5, tmp_path / "photos", 20)
    with pytest.raises(ConfigError, match=r"20 images of 99,999 x 99,999 pixels take 600 GB decoded, .* at most 50;"):
        load(photos, 99_999)
    assert not limit.kept(home)


@pytest.mark.parametrize("given", ["a lot", "-3", "0", "nan"])
def test_a_limit_that_is_none_is_named(given, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE_GB", given)
    with pytest.raises(ConfigError, match="JAXCLUST_CACHE_GB is"):
        limit.limit()


def test_the_cache_is_shown_and_emptied(home, tmp_path, capsys):
    assert main.cli(["--mode=cache"]) == 0  # of nothing
    load(folder_of(5, tmp_path / "photos"))
    (home / "damaged").mkdir()
    (home / "mine").write_text("1")
    assert main.cli(["--mode=cache"]) == 0
    assert "10 images of 32 x 32, 0.png ... 9.png" in capsys.readouterr().out
    assert main.cli(["--mode=cache", "--clear"]) == 0
    assert not list(home.iterdir())
    assert load(tmp_path / "photos").images.shape == (10, 32, 32, 3)
