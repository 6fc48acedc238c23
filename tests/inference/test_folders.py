"""Folders of sorted images: what is made and moved, and that no content is lost, whatever becomes of the originals."""

import errno
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from jaxclust.data import new_images
from jaxclust.inference import folders, manifest, names
from jaxclust.run.errors import ConfigError

DIGITS = np.round(load_digits().images * (255 / 16)).astype(np.uint8)  # u8[1797, 8, 8]

NAMES = ["../../x", "a/b", "CON", "x\0y", "ü" * 200, " . ", "", "<b>\n", "..", "\udcff"]


@pytest.mark.parametrize("copy", [False, True])
def test_folders_have_safe_names_and_touch_nothing_else(copy, tmp_path):
    origin, into = tmp_path / "origin", tmp_path / "into"
    files = ["a/x.png", "b/x.png", "b/X.PNG", "c/" + "n" * 251 + ".png", "d/one.png"]
    for i, name in enumerate(files):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS[i]).save(origin / name)
    into.mkdir()
    (into / "00 .._.._x").mkdir()
    (into / "00 .._.._x" / "x (2).png").write_text("mine")
    found, groups = new_images.find(origin, (8, 8, 1), 8), dict(enumerate([*NAMES, "last"]))

    def sort(where):
        return folders.make(into, found, origin, where, groups, copy)

    assert sort([(0, 0), (1, 0), (2, 0), (3, 3), (4, 4)]) == ((0, 5) if copy else (5, 0))
    made = sorted(str(path.relative_to(into)) for path in into.rglob("*.*") if path.parent != into)
    assert made[:4] == [f"00 .._.._x/{name}" for name in ("X (3).PNG", "x (2).png", "x (4).png", "x.png")]
    assert all(len(part.encode()) <= 255 for path in made for part in Path(path).parts)
    assert {path.resolve().is_relative_to(tmp_path) for path in into.rglob("*")} == {True}
    for path, row in (("00 .._.._x/x.png", 0), ("00 .._.._x/X (3).PNG", 1)):
        assert (into / path).read_bytes() == (origin / found.listing.names[row]).read_bytes()
        assert (into / path).is_symlink() != copy
    sort([(0, 1)])  # decided otherwise: what was made goes, what was there stays
    left = sorted(str(path.relative_to(into)) for path in into.rglob("*.png"))
    assert left == ["00 .._.._x/x (2).png", "01 a_b/x.png"]
    assert (into / "00 .._.._x" / "x (2).png").read_text("utf-8") == "mine"


@pytest.mark.parametrize("name", [*NAMES, "a" * 300 + ".jpeg", "💛" * 100, ".hidden"])
def test_harmless_names_are_names(name, tmp_path):
    safe = names.harmless(name)
    assert safe == names.harmless(safe)
    (tmp_path / safe).touch()
    assert [path.name for path in tmp_path.iterdir()] == [safe]


def photos(folder: Path, which: range) -> Path:
    """A card of photos, which are called alike on every card."""
    for i, digit in enumerate(which):
        (folder / str(i % 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS[digit]).save(folder / str(i % 2) / f"IMG_{i}.png")
    return folder


def sort_into(into: Path, origin: Path, clusters: int = 2, *, turned: int = 0, copy: bool = True) -> tuple[int, int]:
    found = new_images.find(origin, (8, 8, 1), 8)
    rows = range(found.listing.count)
    groups = dict.fromkeys(range(clusters), "")
    return folders.make(into, found, origin, [(row, (row + turned) % clusters) for row in rows], groups, copy)


def contents(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def packed(kind: str, folder: Path, archive: Path) -> Path:
    """The photos of a folder as one file of this kind; the folder itself where none is named."""
    if kind == "folder":
        return folder
    files = sorted(folder.rglob("*.png"))
    archive = archive.with_suffix(f".{kind}")
    if kind == "npy":
        np.save(archive, np.stack([np.asarray(Image.open(file)) for file in files]))
    elif kind == "tar":
        with tarfile.open(archive, "w") as f:
            for file in files:
                f.add(file, file.relative_to(folder))
    else:
        with zipfile.ZipFile(archive, "w") as f:
            for file in files:
                f.write(file, file.relative_to(folder))
    return archive


@pytest.mark.parametrize("kind", ["folder", "tar", "zip", "npy"])
def test_copies_whose_originals_are_gone_stay(kind, tmp_path):
    into, card = tmp_path / "into", packed(kind, photos(tmp_path / "card", range(6)), tmp_path / "card")
    assert sort_into(into, card) == (0, 6)
    first = contents(into)
    shutil.rmtree(tmp_path / "card")
    card.unlink(missing_ok=True)
    other = packed(kind, photos(tmp_path / "card", range(6, 12)), tmp_path / "another")  # a path that no index knows
    assert sort_into(into, other) == (0, 6)
    both = contents(into)
    assert len(both) == 12
    assert set(first) < set(both)
    sort_into(into, other, turned=1)
    assert contents(into) == both
    assert [*into.rglob("*.part")] == []


def test_copies_follow_their_clusters_without_being_copied_again(tmp_path):
    into, card = tmp_path / "into", photos(tmp_path / "card", range(7))
    sort_into(into, card)
    places = {path.stat().st_ino: path for path in into.rglob("*.png")}
    sort_into(into, card, turned=1)
    moved = {path.stat().st_ino: path for path in into.rglob("*.png")}
    assert places.keys() == moved.keys()
    assert all(places[one].parent.name != moved[one].parent.name for one in places)
    sort_into(into, card, 1)
    assert sorted(path.name for path in into.iterdir()) == [manifest.MANIFEST, "0"]
    assert len(contents(into)) == 7
    before = sorted(into.rglob("*"))
    sort_into(into, card, 1)
    assert sorted(into.rglob("*")) == before


def test_images_that_are_the_same_each_keep_a_copy(tmp_path):
    into, card = tmp_path / "into", tmp_path / "card"
    card.mkdir()
    for i in range(2000):
        (card / f"{i}.png").write_bytes(b"all the same")
    sort_into(into, card)
    before = {path: path.stat().st_ino for path in into.rglob("*.png")}
    sort_into(into, card)
    assert {path: path.stat().st_ino for path in into.rglob("*.png")} == before
    sort_into(into, card, turned=1)
    assert sorted(path.name for path in into.rglob("*.png")) == sorted(path.name for path in card.iterdir())
    for i in range(1000):
        (card / f"{i}.png").unlink()
    sort_into(into, card)
    assert len(contents(into)) == 1000  # the others are copies of what is still there


def test_copies_of_0_2_are_known_by_their_content_too(tmp_path):
    into, card = tmp_path / "into", photos(tmp_path / "card", range(6))
    sort_into(into, card)
    times = {str(path.relative_to(into)): path.stat().st_mtime_ns for path in into.rglob("*.png")}
    (into / manifest.MANIFEST).write_text(str(times).replace("'", '"'))
    (card / "0" / "IMG_0.png").unlink()
    sort_into(into, card, turned=1)
    assert len(contents(into)) == 6


def test_the_list_never_names_a_time_by_which_0_2_would_remove_a_copy(tmp_path):
    sort_into(tmp_path / "into", photos(tmp_path / "card", range(2)))
    listed = (tmp_path / "into" / manifest.MANIFEST).read_text("utf-8")
    assert listed == '{"0/IMG_0.png": 0, "1/IMG_1.png": 0}'


@pytest.mark.parametrize("edited", ["copy", "original"])
def test_what_was_edited_with_its_time_kept_stays(edited, tmp_path):
    into, card = tmp_path / "into", photos(tmp_path / "card", range(4))
    sort_into(into, card)
    path = (into if edited == "copy" else card) / "0" / "IMG_0.png"
    then, time = (into / "0" / "IMG_0.png").read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(mine := then[:-1] + b"!")
    os.utime(path, ns=(time, time))
    sort_into(into, card)
    assert (into / "0" / "IMG_0.png").read_bytes() == (mine if edited == "copy" else then)
    assert (into / "0" / "IMG_0 (2).png").read_bytes() == (then if edited == "copy" else mine)
    assert len(contents(into)) == 5


@pytest.mark.parametrize("again", [False, True])
def test_an_original_that_vanishes_in_the_middle_leaves_what_was_made(again, tmp_path):
    into, card = tmp_path / "into", photos(tmp_path / "card", range(6))
    if again:
        sort_into(into, card)
    found = new_images.find(card, (8, 8, 1), 8)

    def decided():
        yield from ((row, 0) for row in range(found.listing.count))
        (card / "0" / "IMG_2.png").rename(tmp_path / "away.png")

    with pytest.raises(ConfigError, match=r"(?s)1 of 6 images could not be copied to .*; the first are:.*IMG_2"):
        folders.make(into, found, card, decided(), {0: "", 1: ""}, True)
    assert len(contents(into)) == (6 if again else 5)
    (tmp_path / "away.png").rename(card / "0" / "IMG_2.png")
    assert sort_into(into, card) == (0, 6)
    assert len(contents(into)) == 6


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "gone")], ids=ascii
)
@pytest.mark.parametrize("at", range(6))
def test_what_ends_in_the_middle_loses_nothing_and_is_made_whole_by_the_next(at, error, tmp_path, monkeypatch):
    into, card = tmp_path / "into", photos(tmp_path / "card", range(6))
    sort_into(into, card)
    old = contents(into)
    photos(card, range(6, 12))  # half of the names, and other pictures
    with monkeypatch.context() as patch:
        rename, calls = os.rename, iter(range(100))

        def rename_or_end(*paths):
            if next(calls) == at:
                raise error
            rename(*paths)

        patch.setattr(os, "rename", rename_or_end)
        with pytest.raises(ConfigError if getattr(error, "errno", 0) == errno.EIO else type(error)):
            sort_into(into, card, turned=1)
    assert set(old) <= set(contents(into))
    assert [*into.glob(f"{folders.PART}*")] == []
    assert sort_into(into, card, turned=1) == (0, 6)
    assert contents(into) == sorted([*old, *contents(card)])


def test_originals_that_became_links_to_their_copies_are_not_lost(tmp_path):
    into, card = tmp_path / "into", photos(tmp_path / "card", range(4))
    sort_into(into, card)
    for path in card.rglob("*.png"):
        kept = next(copy for copy in into.rglob("*.png") if copy.read_bytes() == path.read_bytes())
        path.unlink()
        path.symlink_to(kept)
    before = contents(into)
    sort_into(into, card, turned=1)
    assert set(before) <= set(contents(into))
    assert all(path.is_file() for path in card.rglob("*.png"))


def test_copies_stay_where_links_are_asked_for_and_the_rest_is_linked(tmp_path):
    into, card = tmp_path / "into", photos(tmp_path / "card", range(4))
    sort_into(into, card)
    Image.fromarray(DIGITS[9]).save(card / "0" / "new.png")
    assert sort_into(into, card, turned=1, copy=False) == (1, 4)
    assert [path.name for path in into.rglob("*.png") if path.is_symlink()] == ["new.png"]
    assert sort_into(into, card) == (0, 5)


def test_what_was_made_in_a_place_is_not_sorted_into_it(tmp_path):
    into, card = tmp_path / "into", photos(tmp_path / "card", range(6))
    for copy in (True, False):
        sort_into(into, card, copy=copy)
        before = sorted(into.rglob("*"))
        with pytest.raises(ConfigError, match=r"was made in .* by an earlier command; give another folder"):
            sort_into(into, into / "0", copy=copy)
        assert sorted(into.rglob("*")) == before
        shutil.rmtree(into)


@pytest.mark.parametrize("place", ["a/b/" + "x" * 300, "file", "file/a/b", "circle", "circle/a/b", "a/../file"])
def test_a_place_that_cannot_be_is_refused_and_nothing_is_left(place, tmp_path):
    card = photos(tmp_path / "card", range(2))
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"cannot be made in .*; give another folder"):
        sort_into(tmp_path / place, card)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_links_gets_copies(number, tmp_path, monkeypatch):
    into, card = tmp_path / "into", photos(tmp_path / "card", range(4))

    def refused(target, path):
        raise OSError(number, "no links here", path)

    monkeypatch.setattr(os, "symlink", refused)
    with pytest.raises(ConfigError, match=r"file system without links .*; ask for copies of the files"):
        sort_into(into, card, copy=False)
    assert not into.exists()
    assert sort_into(into, card) == (0, 4)
