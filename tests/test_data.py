"""Sources, the cache of decoded images, and the order and content of batches."""

import threading

import jax
import numpy as np
import pytest

from jaxclust import data, sharding
from jaxclust.config import ConfigError
from jaxclust.feed import Chunk, Feed, epoch_order

SETTINGS = {"splits": {"train": "all"}, "label": "label", "size": 8, "dir": "", "resident": "auto"}


class Records:
    """What tfds gives: a random-access list of decoded examples."""

    def __init__(self, n, fail_at=None):
        self.n, self.fail_at = n, fail_at
        self.images = np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"image": self.images[i], "label": i % 7}

    def __getitems__(self, rows):
        if self.fail_at is not None and self.fail_at in rows:
            raise OSError("the file ends here")
        return [self[i] for i in rows]


def test_the_digits_are_all_there_in_eight_bits():
    source = data.load(data.Settings(name="digits", **SETTINGS))["train"]
    assert source.images.shape == (1797, 8, 8, 1)
    assert source.images.dtype == np.uint8
    assert (source.images.min(), source.images.max()) == (0, 255)
    assert np.bincount(source.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_no_labels_are_read_when_none_are_asked_for():
    assert data.load(data.Settings(name="digits", **SETTINGS | {"label": ""}))["train"].labels is None


def test_decoded_images_come_from_the_cache_the_second_time(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path))
    records = Records(2500)
    first = data._cached("set", records, "label")
    again = data._cached("set", None, "label")
    assert isinstance(again.images, np.memmap)
    for source in (first, again):
        np.testing.assert_array_equal(source.images, records.images)
        np.testing.assert_array_equal(source.labels, np.arange(2500) % 7)


def test_a_decoding_that_breaks_off_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="ends here"), pytest.warns(UserWarning, match="cannot be written"):
        data._cached("set", Records(2500, fail_at=1700), "label")
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be written"):
        source = data._cached("set", Records(10), "label")
    assert len(source.images) == 10


def test_two_runs_may_decode_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path))
    records, found = Records(3000), []
    threads = [threading.Thread(target=lambda: found.append(data._cached("set", records, "label"))) for _ in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for source in found:
        np.testing.assert_array_equal(source.images, records.images)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_every_example_is_seen_at_most_once_an_epoch_and_the_short_batch_differs():
    orders = [epoch_order(0, epoch, 0, 103, 10) for epoch in range(5)]
    left_out = set()
    for order in orders:
        assert order.shape == (10, 10)
        assert len(np.unique(order)) == 100
        left_out.add(tuple(sorted(set(range(103)) - set(order.ravel()))))
    assert len(left_out) == 5


def test_the_order_is_a_function_of_seed_epoch_and_pass():
    np.testing.assert_array_equal(epoch_order(1, 2, 0, 50, 5), epoch_order(1, 2, 0, 50, 5))
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert (epoch_order(1, 2, 0, 50, 5) != epoch_order(*other, 50, 5)).any()


@pytest.mark.parametrize("devices", [1, 8])
def test_streamed_and_resident_batches_are_the_same(devices):
    images = Records(40).images
    mesh = sharding.make_mesh(devices)
    order = epoch_order(0, 0, 0, 40, 16)
    seen = {}
    for resident in ("always", "never"):
        chunks = list(Feed(images, mesh, resident).batches(order))
        assert (chunks[0].rows is None) == (resident == "never")
        seen[resident] = [jax.device_get((c.ids, jax.jit(lambda c: c.images)(c))) for c in chunks]
    for (ids, x), (ids_streamed, x_streamed), rows in zip(seen["always"], seen["never"], order, strict=True):
        np.testing.assert_array_equal(ids, rows)
        np.testing.assert_array_equal(ids, ids_streamed)
        np.testing.assert_array_equal(x, images[rows])
        np.testing.assert_array_equal(x, x_streamed)


@pytest.mark.parametrize("resident", ["always", "never"])
@pytest.mark.parametrize("n", [5, 16, 37])
def test_a_sweep_sees_every_image_once_in_order(resident, n):
    images = Records(n).images
    feed = Feed(images, sharding.make_mesh(8), resident)
    ids, sums = feed.sweep(jax.jit(lambda chunk: (chunk.ids, chunk.images.sum((1, 2, 3)))), batch_size=16)
    np.testing.assert_array_equal(ids, np.arange(n))
    np.testing.assert_array_equal(sums, images.sum((1, 2, 3)))


def test_streaming_a_large_file_keeps_little_in_memory(tmp_path):
    """Rows are read from the memory map as they are asked for."""
    images = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(64, 4, 4, 3))
    chunk = next(Feed(images, sharding.make_mesh(1), "never").batches(epoch_order(0, 0, 0, 64, 8)))
    assert isinstance(chunk, Chunk)
    assert chunk.pool.shape == (8, 4, 4, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": 0}, "data.size is 0"),
        ({"splits": {"test": "all"}}, "no split called train"),
        ({"name": "digits", "splits": {"train": "test"}}, "a single split, 'all'"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        data.load(data.Settings(**{"name": "digits", **SETTINGS, **change}))
