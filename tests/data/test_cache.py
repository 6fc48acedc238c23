"""The cache of decoded images: whole or absent, whoever is killed, whatever is full, however many write at once.

More kills than the suite has time for:  KILLS=20 python -m pytest -n 0 tests/test_cache.py -k killed
"""

import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxclust import data
from jaxclust.data import cache, folder
from jaxclust.run.errors import ConfigError
from jaxclust.run.locks import alone_in

N, SIDE = 1500, 48
LOAD = """
import sys
from jaxclust import data
source = data.load(data.Settings("folder", {"train": "all"}, "", 48, 0, sys.argv[1], "auto", 0.2))["train"]
print(len(source.images), flush=True)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Many small images, some of which are none."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(N):
        path = folder / f"{i % 7}" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        if i % 97 == 5:
            path.write_bytes(b"no image")
        else:
            Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(path, compress_level=1)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(folder) -> data.Source:
    return data.load(data.Settings("folder", {"train": "all"}, "", SIDE, 0, str(folder), "auto", 0.2))["train"]


def start(folder) -> subprocess.Popen:
    """Loads in a process group of its own, so that its workers can be killed with it."""
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def content(home) -> dict[str, bytes]:
    """Of every file, but for the one that says when the images were written."""
    files = [path for path in home.rglob("*") if path.is_file() and path.name != "checked"]
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in files}


def test_the_second_time_nothing_is_decoded(photos, home, monkeypatch):
    first = load(photos)
    monkeypatch.setattr(cache, "decode_all", None)
    again = load(photos)
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.names, first.skipped) == (again.names, again.skipped)
    (entry,) = home.glob("folder-*")
    files = {"images.u8", "index.json", "skipped.csv", "states.json", "checked"}
    assert {path.name for path in entry.iterdir()} == files


def test_rows_and_names_belong_together_though_some_are_skipped(photos):
    source = load(photos)
    assert len(source.images) == len(source.names) == N - len(source.skipped) == N - 16
    for row in (0, 700, len(source.names) - 1, source.names.index("3/1487.png")):
        image = Image.open(photos / source.names[row]).resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
        np.testing.assert_array_equal(source.images[row], image)


def test_a_changed_folder_is_another_entry(tmp_path, home):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, grey in (("a.png", 10), ("b.png", 20)):
        Image.new("L", (9, 9), grey).save(photos / name)
    assert load(photos).images[:, 0, 0, 0].tolist() == [10, 20]
    Image.new("L", (9, 9), 30).save(photos / "b.png")
    assert load(photos).images[:, 0, 0, 0].tolist() == [10, 30]
    (photos / "b.png").rename(photos / "c.png")
    assert load(photos).names == ["a.png", "c.png"]
    assert len(list(home.glob("folder-*"))) == 1, "each took the place of the one before"


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_bytes(photos, home, tmp_path, monkeypatch):
    kills = int(os.environ.get("KILLS", "3"))
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / "undisturbed"))
    assert start(photos).wait() == 0
    began = time.monotonic()
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / "timed"))
    assert start(photos).wait() == 0
    length = time.monotonic() - began
    killed, moments = 0, random.Random(0)
    while killed < kills:
        monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / f"killed {killed}"))
        # Twice in a row, with its workers and without, so that a kill also meets a run that is going on.
        for group in (True, False):
            process = start(photos)
            time.sleep(moments.uniform(0.2, 0.9) * length)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
            process.wait()
        killed += 1
        assert start(photos).wait() == 0
        assert content(tmp_path / f"killed {killed - 1}") == content(tmp_path / "undisturbed")


def test_what_is_in_the_journal_is_not_decoded_again(photos, home, monkeypatch):
    seen = []
    decode_all = cache.decode_all

    def stop_after_five(out, chunks, shape, resize):
        for i, done in enumerate(decode_all(out, chunks, shape, resize)):
            if i == 5:
                raise KeyboardInterrupt
            seen.append(done[0])
            yield done

    monkeypatch.setattr(cache, "SYNC_SECONDS", 0)
    with monkeypatch.context() as m:
        m.setattr(cache, "decode_all", stop_after_five)
        with pytest.raises(KeyboardInterrupt):
            load(photos)
    (partial,) = home.iterdir()
    assert partial.name.endswith(".partial")
    with (partial / "journal.jsonl").open("a") as journal:
        journal.write('{"start": 640, "skip')  # as a kill leaves it

    def note(out, chunks, shape, resize):
        for done in decode_all(out, chunks, shape, resize):
            assert done[0] not in seen[:5]
            yield done

    with monkeypatch.context() as m:
        m.setattr(cache, "decode_all", note)
        resumed = load(photos)
    monkeypatch.setenv("JAXCLUST_CACHE", str(home / "fresh"))
    np.testing.assert_array_equal(resumed.images, load(photos).images)


def test_of_runs_at_once_one_decodes_and_the_others_wait(photos, home):
    """They find another at it, here the test, which then ends without having done anything."""
    key = folder.listing(photos, SIDE).key
    with alone_in(home / f".{key}.partial", ""):
        runs = [start(photos) for _ in range(3)]
        for run in runs:
            assert any(b"waiting for it" in line for line in run.stderr)
    outs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(set(outs)) == 1
    assert [path.name for path in home.glob("folder-*")] == [key]


def test_a_cache_that_cannot_be_written_is_done_without(photos, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be written"):
        assert len(load(photos).images) == N - 16


@pytest.fixture
def small_disk(tmp_path):
    """A file system of six megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("known", [True, False], ids=["before", "while writing"])
def test_a_full_disk_is_said_and_when_there_is_room_it_goes_on(known, photos, small_disk, monkeypatch):
    """Known before it begins, or met half way, as when others write to the disk."""
    monkeypatch.setenv("JAXCLUST_CACHE", str(small_disk))
    with monkeypatch.context() as m:
        if not known:
            m.setattr(cache.shutil, "disk_usage", lambda _: cache.shutil._ntuple_diskusage(10**12, 0, 10**12))
        with pytest.raises(ConfigError, match=r"the disk of .* is full: 1,500 images of 48 x 48 pixels take 0.0 GB"):
            load(photos)
    (partial,) = small_disk.iterdir()
    assert partial.name.endswith(".partial")
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    assert len(load(photos).images) == N - 16


def test_streaming_keeps_no_image_in_memory(tmp_path):
    """What a batch has read is let go of with the batch, though the file is mapped; its last 90 % are 177 MB."""
    code = """
import resource, sys
import numpy as np
from jaxclust.run import sharding
from jaxclust.data.feed import Feed, epoch_order

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * resource.getpagesize() / 2**20

images = np.memmap(sys.argv[1], np.uint8, "r", shape=(4000, 128, 128, 3))
feed = Feed(images, sharding.make_mesh(1), "never")
sizes = []
for i, chunk in enumerate(feed.batches(epoch_order(0, 0, 0, len(feed), 40))):
    chunk.pool.block_until_ready()
    sizes.append(resident())
print(max(sizes[10:]) - sizes[9])
"""
    path = tmp_path / "images.u8"
    path.write_bytes(np.random.default_rng(0).integers(0, 255, 4000 * 128 * 128 * 3, np.uint8).tobytes())  # 197 MB
    out = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout
    assert float(out) < 40


def test_images_of_a_single_colour_are_named_whatever_was_skipped(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "0.png").write_bytes(b"no image")
    for i, last in enumerate((9, 9, 200, 9), 1):
        image = Image.new("RGB", (SIDE, SIDE), (9, 8, 7))
        image.putpixel((SIDE - 1, SIDE - 1), (last, 8, 7))
        image.save(photos / f"{i}.png")
    for _ in range(2):  # decoded, and from the cache
        assert sorted(load(photos).plain) == ["1.png", "2.png", "4.png"]


def bitmap(grey: int) -> bytes:
    made = io.BytesIO()
    Image.new("L", (8, 8), grey).save(made, "BMP")
    return made.getvalue()


def packed(kind: str, at, grey: int):
    """Ten images of one grey, in a folder, an archive or an array that looks like that of any other grey."""
    at.mkdir(parents=True)
    images = {f"{i}.bmp": bitmap(grey) for i in range(10)}
    path = at / f"images{kind}"
    if kind == ".npy":
        np.save(path, np.full((10, SIDE // 2, SIDE // 2, 3), grey / 255, np.float32))
    elif kind == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in images.items():
                archive.writestr(zipfile.ZipInfo(name), content)
    else:
        folder = at / "images"
        folder.mkdir()
        for name, content in images.items():
            (folder / name).write_bytes(content)
            os.utime(folder / name, (1, 1))
        if kind == ".tar":
            with tarfile.open(path, "w") as archive:
                for name in images:
                    archive.add(folder / name, name)
    os.utime(path, (1, 1))
    return path


@pytest.mark.parametrize("kind", ["", ".tar", ".zip", ".npy"])
def test_other_images_of_the_same_names_sizes_and_times_are_other_images(kind, tmp_path, monkeypatch):
    first, second = (packed(kind, tmp_path / name, grey) for name, grey in (("first", 40), ("second", 200)))
    assert load(first).images.mean() == 40
    assert load(second).images.mean() == 200
    monkeypatch.setattr(cache, "decode_all", None)
    moved = tmp_path / f"elsewhere{kind}" if kind != ".npy" else tmp_path / "third" / "images.npy"
    moved.parent.mkdir(exist_ok=True)
    assert load(second.rename(moved)).images.mean() == 200


def test_a_replaced_archive_is_read_anew(tmp_path):
    photos = tmp_path / "photos.zip"
    for i in range(4):
        packed(".zip", tmp_path / f"{i}", 30 * i).replace(photos)
        assert load(photos).images.mean() == 30 * i


class Refused:
    """A file that cannot be read for as long as another one says why not."""

    def __init__(self, path, why):
        self.path, self.why = path, why

    def __fspath__(self):
        if not self.why.exists():
            return str(self.path)
        raise {"memory": MemoryError(), "permission": PermissionError(errno.EACCES, "")}.get(
            self.why.read_text("utf-8"), OSError(getattr(errno, self.why.read_text("utf-8"), 0), "as was said")
        )


@pytest.mark.parametrize("why", ["permission", "memory", "EIO", "EMFILE", "ENFILE", "ESTALE"])
def test_what_may_have_passed_is_tried_again(why, tmp_path):
    folder_of = packed("", tmp_path / "at", 40)
    (tmp_path / "why").write_text(why)
    listing = folder.listing(folder_of, 8)
    items = [
        Refused(item, tmp_path / "why") if i in (3, 9) else item for i, item in enumerate(listing.read(range(10))[0])
    ]
    listing = listing._replace(read=lambda rows: (items[rows.start : rows.stop], None))
    for _ in range(2):
        found = cache.entry(listing)
        assert [name for name, reason in found.skipped if reason.endswith("; tried again next time")] == [
            "3.bmp",
            "9.bmp",
        ]
        assert len(found.images) == 8
    (tmp_path / "why").unlink()
    found = cache.entry(listing)
    assert (found.names, found.skipped) == (listing.names, [])
    assert (found.images == 40).all()
    assert len(list(cache.directory().glob("folder-*"))) == 1


def test_what_is_damaged_for_good_is_not_tried_again(photos, monkeypatch):
    assert load(photos).skipped
    monkeypatch.setattr(cache, "decode_all", None)
    assert load(photos).skipped


@pytest.mark.parametrize("damage", ["flipped", "empty", "gone", "a zip", "a folder", "a pipe"])
def test_damaged_labels_are_noticed(damage, tmp_path, home, caplog):
    plain = folder.listing(packed("", tmp_path / "at", 40), SIDE)
    listing = plain._replace(read=lambda rows: (plain.read(rows)[0], [*rows]))
    cache.entry(listing)
    path = home / listing.key / "labels.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    if damage in ("flipped", "empty", "a zip"):
        path.write_bytes({"flipped": content, "empty": b"", "a zip": b"PK\x03\x04"}[damage])
    elif damage != "gone":
        {"a folder": os.mkdir, "a pipe": os.mkfifo}[damage](path)
    assert cache.entry(listing).labels.tolist() == [*range(10)]
    assert "are damaged" in caplog.text


INDEXES = {
    "cut": lambda index: json.dumps(index)[:-40],
    "a list": lambda index: "[1, 2]",
    "null": lambda index: "null",
    "deep": lambda index: "[" * 100_000,
    "empty": lambda index: "",
    "no names": lambda index: json.dumps({k: v for k, v in index.items() if k != "names"}),
    "huge": lambda index: json.dumps(index | {"shape": [60_000, 60_000, 3]}),
    "words": lambda index: json.dumps(index | {"shape": "abc"}),
    "less": lambda index: json.dumps(index | {"count": "10"}),
    "bytes": lambda index: "\udcff",
    "other names": lambda index: json.dumps(index | {"names": index["names"][::-1]}),
    "other plain ones": lambda index: json.dumps(index | {"plain": [0]}),
    "no sum": lambda index: json.dumps({k: v for k, v in index.items() if k != "sum"}),
}


@pytest.mark.parametrize("damage", [*INDEXES, "flipped", "zeros", "short", "gone", "a folder", "a pipe"])
def test_a_damaged_entry_is_set_aside_and_made_again(damage, tmp_path, home, caplog):
    photos = packed("", tmp_path / "at", 40)
    load(photos)
    (entry,) = home.glob("folder-*")
    index, images = entry / "index.json", entry / "images.u8"
    if damage in INDEXES:
        new = INDEXES[damage](json.loads(index.read_text("utf-8")))
        index.write_bytes(new.encode("utf-8", errors="surrogateescape"))
    elif damage == "flipped":
        content = bytearray(images.read_bytes())
        content[1000] ^= 1
        images.write_bytes(content)
    elif damage == "zeros":
        images.write_bytes(bytes(images.stat().st_size))
    elif damage == "short":
        os.truncate(images, 1000)
    else:
        images.unlink()
        if damage == "a folder":
            images.mkdir()
        if damage == "a pipe":
            os.mkfifo(images)
    source = load(photos)
    assert source.images.mean() == 40
    assert source.names == [f"{i}.bmp" for i in range(10)]
    assert "are damaged" in caplog.text
    assert {path.name for path in home.iterdir()} == {"damaged", "latest", entry.name}
    caplog.clear()
    load(photos)
    assert not caplog.text
