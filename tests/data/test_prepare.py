"""Prepared data is what tfds would have prepared, whatever happens on the way."""

import dataclasses
import json
import os
import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.hashing import Hasher
from test_builders import cifar_files, imagenet_files, imagenet_origin, server, small, tar, write_mnist, write_tree

from jaxclust import data
from jaxclust.data import prepare as module
from jaxclust.data.prepare import prepare
from jaxclust.data.prepare.images import encode
from jaxclust.data.prepare.sets import SPECS, idx
from jaxclust.run.errors import ConfigError
from jaxclust.run.locks import alone_in

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def use(monkeypatch, spec):
    """Lets `prepare` take a small data set for a whole one."""
    monkeypatch.setitem(SPECS, spec.name, spec)
    return spec


def records(name: str, data_dir: Path, split: str) -> list[dict]:
    return list(tfds.builder(name, data_dir=data_dir, file_format="array_record").as_data_source(split))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- real data


def first(spec, splits, each: int):
    """The first `each` images of every class, under the keys that they have among all, and the spec for them."""
    cut = {}
    for name, split in splits.items():
        labels = np.asarray(split.columns["label"])
        rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(10)]))
        columns = {feature: np.asarray(values)[rows] for feature, values in split.columns.items()}
        cut[name] = split._replace(images=split.images[rows], columns=columns, keys=rows.tolist())
    return cut, dataclasses.replace(small(spec.name, each), parse=lambda spec, files: cut)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_prepared_as_tfds_would(tmp_path, monkeypatch):
    """All of it is read and checked, and 2,000 images of it are written."""
    spec = SPECS["fashion_mnist"]
    splits = spec.open(DEBIAN, tmp_path)
    assert {s: int(split.images.sum(dtype=np.int64)) for s, split in splits.items()} == {
        "train": 3_431_114_169,
        "test": 573_469_082,
    }
    cut, spec = first(spec, splits, 100)
    use(monkeypatch, spec)
    assert prepare("fashion_mnist", tmp_path, DEBIAN) == tmp_path / "fashion_mnist" / "3.0.1"
    for name, split in splits.items():
        rows = sorted(cut[name].keys, key=Hasher(name).hash_key)
        prepared = records("fashion_mnist", tmp_path, name)
        np.testing.assert_array_equal([r["image"] for r in prepared], split.images[rows])
        np.testing.assert_array_equal([r["label"] for r in prepared], split.columns["label"][rows])


@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR, with tfds's own CIFAR-10, is not set")
@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar10_equals_what_tfds_prepared(version, tmp_path, monkeypatch):
    """The first 500 images of each split, put back into the published files."""
    theirs = tfds.builder("cifar10", file_format="array_record")
    n, official, counts, files = 500, {}, {}, {}
    for split in ("train", "test"):
        source = theirs.as_data_source(split)
        order = np.array(sorted(range(len(source)), key=Hasher(split).hash_key))
        official[split] = source.__getitems__(np.flatnonzero(order < n).tolist())  # in tfds's order
        examples = sorted(official[split], key=lambda e: e["id"])
        assert [e["id"] for e in examples] == [f"{split}_{i:05d}".encode() for i in range(n)]
        images = np.stack([e["image"] for e in examples]).transpose(0, 3, 1, 2).reshape(n, -1)
        labels = np.array([e["label"] for e in examples], np.uint8)
        counts[split] = {"label": tuple(np.bincount(labels).tolist())}
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        for name, part in zip(names, np.array_split(np.arange(n), len(names))):
            if version == "binary":
                files[f"{name}.bin"] = np.concatenate([labels[part, None], images[part]], 1).tobytes()
            else:
                files[name] = pickle.dumps({b"data": images[part], b"labels": labels[part].tolist()}, 2)
    sizes = dict.fromkeys(official, n)
    use(monkeypatch, dataclasses.replace(SPECS["cifar10"], counts=counts, sizes=sizes, tolerance=0.02))
    folder = prepare("cifar10", tmp_path, tar(tmp_path / "cifar.tar.gz", files, "w:gz"))
    for split, examples in official.items():
        for ours, their in zip(records("cifar10", tmp_path, split), examples, strict=True):
            assert (ours["id"], ours["label"]) == (their["id"], their["label"])
            np.testing.assert_array_equal(ours["image"], their["image"])
    for name in ("features.json", "label.labels.txt"):
        assert (folder / name).read_bytes() == (Path(theirs.data_path) / name).read_bytes()


# ---- any data set


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_data_set_is_read_by_tfds(name, tmp_path, monkeypatch, capsys):
    spec = use(monkeypatch, small(name, 2))
    origin = tmp_path / "in"
    if name in ("mnist", "fashion_mnist"):
        write_mnist(origin, spec)
    elif name in ("cifar10", "cifar100"):
        write_tree(origin, cifar_files(name, spec, python=False)[0])
    elif name == "stl10":
        rng = np.random.default_rng(0)
        write_tree(origin, {f"{s}_y.bin": bytes(np.repeat(np.arange(1, 11), 2).tolist()) for s in ("train", "test")})
        for x, n in (("train", 20), ("test", 20), ("unlabeled", 2)):
            write_tree(origin, {f"{x}_X.bin": rng.integers(0, 256, (n, 27648), dtype=np.uint8).tobytes()})
    else:
        imagenet_origin("folder", name, imagenet_files(spec, 64), tmp_path)
    folder = prepare(name, tmp_path / "data", origin)
    assert folder == tmp_path / "data" / name / str(tfds.builder_cls(name).VERSION)
    out = capsys.readouterr().out
    assert f"{name} is in {folder}" in out
    info = tfds.builder(name, data_dir=tmp_path / "data", file_format="array_record").info
    found = spec.open(origin, tmp_path)
    for split, n in spec.sizes.items():
        rows = sorted(range(n), key=lambda row: Hasher(split).hash_key(found[split].keys[row]))
        prepared = records(name, tmp_path / "data", split)
        assert info.splits[split].num_examples == n == len(prepared)
        assert [r["label"] for r in prepared] == [found[split].columns["label"][row] for row in rows]
        if isinstance(found[split].images, np.ndarray):
            np.testing.assert_array_equal([r["image"] for r in prepared], found[split].images[rows])
        assert f"{split:<12}{n:>8,} images" in out
        settings = data.Settings(name, {"train": split}, "label", 24, 0, str(tmp_path / "data"), "auto", 0.0)
        source = data.load(settings)["train"]
        shape = info.features["image"].shape
        assert source.images.shape == (n, *((24, 24, 3) if None in shape else shape))
        assert source.labels.tolist() == [r["label"] for r in prepared]
        if None not in shape:
            np.testing.assert_array_equal(source.images[0], prepared[0]["image"])
    if spec.names:
        assert info.features["label"].names == list(spec.names["label"])
    with Image.open(folder / "samples.png") as sheet:
        sheet.load()
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]  # no lock, nothing half done


def test_jpegs_are_stored_untouched(tmp_path, monkeypatch):
    from array_record.python.array_record_module import ArrayRecordReader

    spec = use(monkeypatch, small("imagenet10", 2))
    files = imagenet_files(spec)
    folder = prepare("imagenet10", tmp_path, imagenet_origin("tar", "imagenet10", files, tmp_path))
    (path,) = folder.glob("*.array_record-*")
    stored = b"".join(ArrayRecordReader(str(path)).read_all())
    assert all(image in stored for images in files.values() for image in images.values())


def test_neither_preparing_nor_reading_imports_tensorflow(tmp_path):
    code = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from test_builders import small, write_mnist
from jaxclust.data import prepare
from jaxclust.data.prepare import sets
import tensorflow_datasets as tfds
root = pathlib.Path(sys.argv[2])
sets.SPECS["mnist"] = small("mnist", 2)
write_mnist(root / "in", sets.SPECS["mnist"])
prepare.prepare("mnist", root / "data", root / "in")
test = tfds.builder("mnist", data_dir=root / "data", file_format="array_record").as_data_source("test")
assert test[3]["image"].any()
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, Path(__file__).parent, tmp_path], check=True)


def test_what_is_prepared_is_not_prepared_again(tmp_path, monkeypatch, capsys):
    write_mnist(tmp_path / "in", use(monkeypatch, small("mnist", 2)))
    folder = prepare("mnist", tmp_path / "data", tmp_path / "in")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare("mnist", tmp_path / "data", tmp_path / "nowhere") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert "mnist was prepared before" in capsys.readouterr().out


def test_a_download_is_prepared_and_a_damaged_one_says_what_to_delete(tmp_path, monkeypatch):
    spec = use(monkeypatch, small("mnist", 2))
    write_mnist(tmp_path / "served", spec, gz=True)
    with server(tmp_path / "served") as (url, _):
        use(monkeypatch, dataclasses.replace(spec, urls=tuple(f"{url}/{name}.gz" for name in idx.FILES)))
        prepare("mnist", tmp_path / "a", None)
        assert len(records("mnist", tmp_path / "a", "train")) == 20
        use(monkeypatch, dataclasses.replace(SPECS["mnist"], mean=(0.1307,)))
        with pytest.raises(ConfigError, match=r"have the mean .*: delete .*/b/downloads/mnist and run"):
            prepare("mnist", tmp_path / "b", None)
    assert not (tmp_path / "b" / "mnist" / ".3.0.1.partial").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cifar11", r"there is no data set 'cifar11' to prepare \(did you mean cifar10\?\)"),
        ("imagenet10", r"imagenet10 cannot be downloaded without an account; give --from=PATH to ILSVRC2012_img_train"),
    ],
)
def test_what_cannot_be_prepared_says_so(name, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        prepare(name, tmp_path, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"dataset_info.json": b'{"fileFormat": "tfrecord"}'}, "is prepared as tfrecord, not array_record"),
        ({"something": b"else"}, "is no prepared data set; move it away"),
    ],
)
def test_a_folder_that_holds_something_else_is_left_alone(files, sentence, tmp_path):
    write_tree(tmp_path / "mnist" / "3.0.1", files)
    with pytest.raises(ConfigError, match=sentence):
        prepare("mnist", tmp_path, tmp_path)
    assert content(tmp_path / "mnist" / "3.0.1") == files


# ---- trouble

RUN = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from test_builders import small
from jaxclust.data import prepare
from jaxclust.data.prepare import sets
prepare.SHARD = 200_000
sets.SPECS["mnist"] = small("mnist", 100)
print("ready", flush=True)
prepare.prepare("mnist", pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
"""


def start(data_dir: Path, origin: Path, **options) -> subprocess.Popen:
    """Prepares 2,000 images in eight files, in a process of its own."""
    command = [sys.executable, "-c", RUN, Path(__file__).parent, data_dir, origin]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of a set, and what comes of them."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_mnist(root / "in", small("mnist", 100))
    process = start(root / "data", root / "in")
    _, err = process.communicate()
    assert not process.returncode, err
    return root / "in", content(root / "data" / "mnist" / "3.0.1")


@pytest.mark.slow
def test_a_killed_preparation_ends_with_the_same_bytes(undisturbed, tmp_path):
    """Three kills, each a random moment after there was another whole file or two; these are kept."""
    origin, expected = undisturbed
    partial, chance = tmp_path / "mnist" / ".3.0.1.partial", random.Random()
    for whole in (0, 2, 5):
        process = start(tmp_path, origin)
        process.stdout.readline()
        while len(kept := {p: p.stat().st_mtime_ns for p in partial.glob("mnist-*")}) < whole:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert kept.items() <= {p: p.stat().st_mtime_ns for p in partial.glob("mnist-*")}.items()
    process = start(tmp_path, origin)
    _, err = process.communicate()
    assert not process.returncode, err
    assert (
        kept.items() <= {partial / p.name: p.stat().st_mtime_ns for p in (tmp_path / "mnist/3.0.1").iterdir()}.items()
    )
    assert content(tmp_path / "mnist" / "3.0.1") == expected
    assert [p.name for p in (tmp_path / "mnist").iterdir()] == ["3.0.1"]


def test_at_once_one_prepares_and_the_others_wait_and_find_it_done(undisturbed, tmp_path):
    """Two processes find a third at it, here the test, which then ends without having done anything."""
    origin, expected = undisturbed
    with alone_in(tmp_path / "mnist" / ".3.0.1.partial", ""):
        processes = [start(tmp_path, origin) for _ in range(2)]
        for process in processes:
            assert any("another process prepares mnist; waiting for it" in line for line in process.stderr)
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert content(tmp_path / "mnist" / "3.0.1") == expected
    assert [p.name for p in (tmp_path / "mnist").iterdir()] == ["3.0.1"]


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(undisturbed, tmp_path, monkeypatch):
    origin, expected = undisturbed
    use(monkeypatch, small("mnist", 100))
    monkeypatch.setattr(module, "SHARD", 200_000)
    written = []

    def fails_at_the_third(path, examples):
        written.append(path)
        if len(written) == 3:
            raise RuntimeError("write() failed: No space left on device; writing the shard")
        return write(path, examples)

    write = module.ArrayRecordFileAdapter.write_examples
    with monkeypatch.context() as m:
        m.setattr(module.ArrayRecordFileAdapter, "write_examples", fails_at_the_third)
        with pytest.raises(
            ConfigError, match=r"the disk of .*/mnist is full; make room and run the same command again"
        ):
            prepare("mnist", tmp_path, origin)
    assert len(list((tmp_path / "mnist" / ".3.0.1.partial").iterdir())) == 2
    assert content(prepare("mnist", tmp_path, origin)) == expected


def test_a_disk_that_refuses_is_one_sentence(undisturbed, tmp_path):
    """Files may not grow beyond a limit, which array_record reports as it does a full disk."""
    limit = (100_000, 100_000)
    process = start(tmp_path, undisturbed[0], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    _, err = process.communicate()
    assert process.returncode == 1
    assert re.search(r"ConfigError: mnist cannot be prepared in .*: .* File too large", err.splitlines()[-1])


def test_a_kept_file_that_is_damaged_is_named(undisturbed, tmp_path, monkeypatch):
    use(monkeypatch, small("mnist", 100))
    monkeypatch.setattr(module, "SHARD", 200_000)
    (name, *_) = (name for name in undisturbed[1] if "array_record-00001" in name)
    write_tree(tmp_path / "mnist" / ".3.0.1.partial", {name: undisturbed[1][name][:-5000]})
    with pytest.raises(ConfigError, match=f"{name} is damaged; delete it and run the same command again"):
        prepare("mnist", tmp_path, undisturbed[0])


def test_what_an_other_version_left_is_not_prepared_data(undisturbed, tmp_path, monkeypatch):
    use(monkeypatch, small("mnist", 100))
    monkeypatch.setattr(module, "SHARD", 200_000)
    left = {"mnist-train.array_record-00000-of-00099": b"?", ".mnist-train.array_record-00000-of-00099.a1b2c3": b"?"}
    write_tree(tmp_path / "mnist" / ".3.0.1.partial", left)
    assert content(prepare("mnist", tmp_path, undisturbed[0])) == undisturbed[1]


def test_png_is_lossless():
    rng = np.random.default_rng(0)
    for shape in ((28, 28, 1), (32, 32, 3)):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        features = tfds.features.Image(shape=shape)
        np.testing.assert_array_equal(features.decode_example_np(encode(image)), image)


def test_the_metadata_has_no_path_and_no_time(undisturbed):
    info = json.loads(undisturbed[1]["dataset_info.json"])
    known = "citation description fileFormat location moduleName name splits supervisedKeys version"
    assert set(info) <= set(known.split())
    assert [len(split["shardLengths"]) for split in info["splits"]] == [4, 4]
