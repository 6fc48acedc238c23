"""A run's own images in folders by cluster: which are there, what they are called, and where they cannot be put."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxclust.inference import manifest
from jaxclust.inference.arrange import arrange
from jaxclust.run.errors import ConfigError

SIDE = 8
FILES = ["0/a.png", "0/b.png", "1/a.png", "1/ü 💛.png", os.fsdecode(b"no utf-8 \xff.png")]
GROUP = np.array([0, 1, 1, 10, 0])
GROUPS = {0: "", 1: "cats & dogs", 10: "../../x", 11: "empty"}
FOLDERS = {0: "00", 1: "01 cats & dogs", 10: "10 .._.._x"}


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def data(tmp_path) -> Path:
    for name, picture in zip(FILES, pictures(len(FILES))):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "data" / name)
    return tmp_path / "data"


def sort(path: Path, into: Path, group=GROUP, files=FILES, groups=GROUPS, copy=False) -> tuple[int, int]:
    return arrange(path, (SIDE, SIDE, 3), SIDE, into, files, np.array(group), groups, copy)


def made(into: Path) -> dict[str, list[str]]:
    """What lies in each folder."""
    return {folder.name: sorted(path.name for path in folder.iterdir()) for folder in into.iterdir() if folder.is_dir()}


@pytest.mark.parametrize("copy", [False, True])
def test_each_cluster_gets_a_folder_with_its_name(copy, data, tmp_path):
    into = tmp_path / "new" / "sorted"
    assert sort(data, into, copy=copy) == ((0, 5) if copy else (5, 0))
    wanted = {"00": ["a.png", "no utf-8 _.png"], "01 cats & dogs": ["a.png", "b.png"], "10 .._.._x": ["ü 💛.png"]}
    assert made(into) == wanted
    for name, number in (("0/a.png", 0), ("1/a.png", 1), ("1/ü 💛.png", 10)):
        path = into / FOLDERS[number] / Path(name).name
        assert path.is_symlink() != copy
        assert path.read_bytes() == (data / name).read_bytes()
    assert sorted(path.name for path in into.iterdir()) == [manifest.MANIFEST, *sorted(wanted)]


@pytest.mark.parametrize("copy", [False, True])
def test_what_is_decided_later_moves_images_and_folders(copy, data, tmp_path):
    into = tmp_path / "sorted"
    sort(data, into, copy=copy)
    assert sort(data, into, [1] * 5, groups={1: "all"}, copy=copy) == ((0, 5) if copy else (5, 0))
    assert made(into) == {"1 all": ["a (2).png", "a.png", "b.png", "no utf-8 _.png", "ü 💛.png"]}


def test_files_that_came_since_are_left_out_and_those_that_went_are_not_missed(data, tmp_path):
    Image.fromarray(pictures(1)[0]).save(data / "0" / "aa new.png")
    (data / "1" / "a.png").unlink()
    assert sort(data, tmp_path / "sorted") == (4, 0)
    assert made(tmp_path / "sorted")["01 cats & dogs"] == ["b.png"]
    assert not [*(tmp_path / "sorted").rglob("*new*")]


@pytest.mark.parametrize("copy", [False, True])
def test_images_of_an_array_are_called_by_their_rows(copy, tmp_path):
    np.save(tmp_path / "data.npy", pictures(5))
    into = tmp_path / "sorted"
    assert sort(tmp_path / "data.npy", into, files=None, copy=copy) == (0, 5)
    assert made(into) == {"00": ["0.png", "4.png"], "01 cats & dogs": ["1.png", "2.png"], "10 .._.._x": ["3.png"]}
    np.testing.assert_array_equal(np.asarray(Image.open(into / FOLDERS[10] / "3.png")), pictures(5)[3])


def test_images_of_an_archive_are_written_in_any_case(data, tmp_path):
    archive, into = shutil.make_archive(str(tmp_path / "packed"), "tar", data), tmp_path / "sorted"
    assert sort(Path(archive), into) == (0, 5)
    assert made(into)["10 .._.._x"] == ["ü 💛.png"]
    assert (into / FOLDERS[1] / "b.png").read_bytes() == (data / "0" / "b.png").read_bytes()


def test_images_that_are_gone_are_said_to_be_so(data, tmp_path):
    shutil.rmtree(data)
    with pytest.raises(ConfigError, match=r"are not at .*data any more; put them back, or sort others"):
        sort(data, tmp_path / "sorted")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("place", ["data", "data/new", "data/0", "away/../data/new", "link", "link/a/b"])
def test_nothing_is_made_among_the_images(place, data, tmp_path):
    (tmp_path / "link").symlink_to(data)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="is inside the images, and would be among them next time"):
        sort(data, tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["data 2", "link out"])
def test_a_place_beside_the_images_is_none_among_them(place, data, tmp_path):
    (tmp_path / "away").mkdir()
    (tmp_path / "link out").symlink_to(tmp_path / "away")
    assert sort(data, tmp_path / place) == (5, 0)
    assert len(made(tmp_path / place)) == 3
