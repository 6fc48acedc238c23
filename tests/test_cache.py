"""The cache of decoded images: whole or absent, whoever is killed, whatever is full, however many write at once.

More kills than the suite has time for:  KILLS=20 python -m pytest -n 0 tests/test_cache.py -k killed
"""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jaxclust import data
from jaxclust.config import ConfigError
from jaxclust.data import cache, folder
from jaxclust.files import alone_in

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
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_the_second_time_nothing_is_decoded(photos, home, monkeypatch):
    first = load(photos)
    monkeypatch.setattr(cache, "decode_all", None)
    again = load(photos)
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.names, first.skipped) == (again.names, again.skipped)
    assert {path.name for path in home.rglob("*") if path.is_file()} == {"images.u8", "index.json", "skipped.csv"}


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
    assert len(list(home.iterdir())) == 3


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
    assert [path.name for path in home.iterdir()] == [key]


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
from jaxclust import sharding
from jaxclust.feed import Feed, epoch_order

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
