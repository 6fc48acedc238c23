"""Sources, and the order and content of batches."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxclust import data
from jaxclust.data.feed import Feed, epoch_order
from jaxclust.data.prepare import sets
from jaxclust.run import schema, sharding
from jaxclust.run.errors import ConfigError
from jaxclust.training import began

SETTINGS = {
    "splits": {"train": "all"},
    "labels": "label",
    "size": 8,
    "stored": 0,
    "dir": "",
    "resident": "auto",
    "max_bad": 0.0,
}


def random_images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)


def test_the_digits_are_all_there_in_eight_bits():
    source = data.load(data.Settings(name="digits", **SETTINGS))["train"]
    assert source.images.shape == (1797, 8, 8, 1)
    assert source.images.dtype == np.uint8
    assert (source.images.min(), source.images.max()) == (0, 255)
    assert np.bincount(source.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_no_labels_are_read_when_none_are_asked_for():
    assert data.load(data.Settings(name="digits", **SETTINGS | {"labels": ""}))["train"].labels is None


def test_prepared_data_is_read_as_tensorflow_datasets_reads_it(monkeypatch, tmp_path):
    if not (Path(os.environ.get("TFDS_DATA_DIR", "nowhere")) / "cifar10").is_dir():
        pytest.skip("TFDS_DATA_DIR has no cifar10")
    import tensorflow_datasets as tfds

    monkeypatch.setenv("JAXCLUST_CACHE", str(tmp_path))
    settings = data.Settings(
        **SETTINGS | {"name": "cifar10", "splits": {"train": "train[:500]+test[:300]"}, "size": 32}
    )
    source = data.load(settings)["train"]
    wanted = tfds.data_source("cifar10", split="train[:500]+test[:300]")
    assert source.images.shape == (800, 32, 32, 3)
    for row in range(0, 800, 7):
        np.testing.assert_array_equal(source.images[row], wanted[row]["image"])
        assert source.labels[row] == wanted[row]["label"]
    stored = data.load(dataclasses.replace(settings, stored=16))["train"]
    assert stored.images.shape == (800, 16, 16, 3)
    for change in ({"splits": {"train": "trian"}}, {"labels": "lable"}):
        with pytest.raises(ConfigError, match=r"trian|did you mean label\?"):
            data.load(dataclasses.replace(settings, **change))


def test_every_file_of_data_sets_is_found():
    assert {"cifar10", "cifar100", "stl10", "mnist", "fashion_mnist", "imagenet10", "imagenet_dogs"} < set(sets.SPECS)


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
    images = random_images(40)
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
    images = random_images(n)
    feed = Feed(images, sharding.make_mesh(8), resident)
    ids, sums = feed.sweep(jax.jit(lambda chunk: (chunk.ids, chunk.images.sum((1, 2, 3)))), batch_size=16)
    np.testing.assert_array_equal(ids, np.arange(n))
    np.testing.assert_array_equal(sums, images.sum((1, 2, 3)))


def test_a_run_of_when_every_file_counted_finds_its_images_in_its_order(tmp_path):
    """As the cache made it then: the last images in the places of files that are none."""
    names, aside = ["a.png", "c.png", "e.png", "f.png", "g.png"], ["b.txt", "d.json", "z.txt"]
    images = np.arange(5, dtype=np.uint8)[:, None, None, None]
    skipped = [(name, "no image") for name in aside] + [("0/", "a hidden folder"), ("1.png", "a link to a.png, which")]
    source = data.Source(images, np.arange(5), names, tuple(skipped))
    before = data.Source(images[[0, 3, 1, 4, 2]], np.arange(5), ["a.png", "f.png", "c.png", "g.png", "e.png"])
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "data.json").write_text(json.dumps({"train": before.about()}))
    found = began.as_before(tmp_path, {"train": source}, "evaluate")[0]["train"]
    assert found.names == before.names
    assert found.images.ravel().tolist() == found.labels.tolist() == [0, 3, 1, 4, 2]
    (tmp_path / "data.json").write_text(json.dumps({"train": source.about()}))
    assert began.as_before(tmp_path, {"train": source}, "evaluate")[0]["train"] is source
    (tmp_path / "data.json").write_text(json.dumps({"train": before._replace(names=[*"abcde"]).about()}))
    with pytest.raises(ConfigError, match="5 then, 5 now, with other names"):
        began.as_before(tmp_path, {"train": source}, "evaluate")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": 0}, "data.size is 0"),
        ({"stored": -1}, "data.stored is -1"),
        ({"max_bad": 1.5}, "data.max_bad is 1.5"),
        ({"name": "folder"}, "data.dir is empty"),
        ({"name": "folder", "dir": "nowhere"}, "there is no folder, archive, array or list of images at nowhere"),
        ({"splits": {"test": "all"}}, "no split called train"),
        ({"name": "digits", "splits": {"train": "test"}}, "a single split, 'all'"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        data.load(schema.settings(data.Settings, {"name": "digits", **SETTINGS, **change}, "data"))
