"""Finding a data set's files wherever they are, reading them, and refusing what is not the data set."""

import contextlib
import dataclasses
import gzip
import http.server
import io
import os
import pickle
import re
import struct
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxclust.data.prepare import download
from jaxclust.data.prepare.archives import find, stages
from jaxclust.data.prepare.sets import SPECS, cifar, idx, imagenet
from jaxclust.run.errors import ConfigError

RNG = np.random.default_rng(0)


def small(name: str, each: int):
    """The spec of a data set that has `each` images in every class of its label, and no published mean."""
    spec = SPECS[name]
    counts = {
        split: {f: (each * len(labels["label"]) // len(n),) * len(n) for f, n in labels.items()}
        for split, labels in spec.counts.items()
    }
    sizes = {split: sum(labels.get("label", (each,))) for split, labels in counts.items()}
    return dataclasses.replace(spec, counts=counts, sizes=sizes, mean=None)


def write_idx(path: Path, array: np.ndarray) -> None:
    data = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


def write_mnist(folder: Path, spec, dot: bool = False, gz: bool = False) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for split, prefix in idx.PREFIXES.items():
        labels = RNG.permutation(np.repeat(np.arange(10), spec.counts[split]["label"])).astype(np.uint8)
        images[split] = RNG.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        for what, array in (("images-idx3", images[split]), ("labels-idx1", labels)):
            name = f"{prefix}-{what}-ubyte{'.gz' if gz else ''}"
            write_idx(folder / (name.replace("-idx", ".idx") if dot else name), array)
    return images


def jpeg(side: int = 24, mode: str = "RGB", form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)).convert(mode).save(buffer, form)
    return buffer.getvalue()


def imagenet_files(spec, side: int = 24) -> dict[str, dict[str, bytes]]:
    """`{synset: {file name: JPEG}}`."""
    each = spec.counts["train"]["label"][0]
    return {s: {f"{s}_{7 * i}.JPEG": jpeg(side) for i in range(each)} for s in spec.names["label"]}


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


# ---- files in folders and archives


@pytest.mark.parametrize("shape", ["folder", "tar", "tar.gz", "tgz", "zip", "tar in a folder", "file.gz"])
def test_files_are_found_by_their_base_name(shape, tmp_path):
    content = {"a/b/x.bin": bytes(RNG.integers(0, 256, 5000, dtype=np.uint8)), "a/y.txt": b"no"}
    origin = tmp_path / "in"
    if shape == "folder":
        write_tree(origin, content)
    elif shape == "zip":
        origin = zipped(tmp_path / "in.zip", content)
    elif shape == "file.gz":
        origin = write_tree(tmp_path, {"x.bin.gz": gzip.compress(content["a/b/x.bin"])}) / "x.bin.gz"
    elif shape == "tar in a folder":
        tar(origin / "deep" / "in.tar", content)
    else:
        origin = tar(tmp_path / f"in.{shape}", content, "w" if shape == "tar" else "w:gz")
    (found,) = find(origin, None, [["x.bin"]])
    assert found["x.bin"].read() == content["a/b/x.bin"]
    assert found["x.bin"].map().tobytes() == content["a/b/x.bin"]


def test_what_lies_unpacked_comes_before_archives_and_small_archives_before_large_ones(tmp_path):
    tar(tmp_path / "a.tar", {"x": b"1" * 50_000})
    zipped(tmp_path / "b.zip", {"x": b"2"})
    write_tree(tmp_path / "z", {"x": b"3"})
    assert [f.read()[:1] for stage in stages(tmp_path, None, "x".__eq__) for f in stage] == [b"3", b"2", b"1"]


def test_a_tar_in_a_tar_is_read_where_it_lies(tmp_path):
    inner = tar(tmp_path / "n1.tar", {"x": b"content"}).read_bytes()
    outer = tar(tmp_path / "o" / "outer.tar", {"n1.tar": inner, "n2.tar": b"no tar at all"})
    files = [f for s in stages(outer, None, "x".__eq__, enter=lambda name: name != "n2") for f in s]
    assert [(f.read(), f.source) for f in files] == [(b"content", outer)]


def test_files_of_one_set_may_lie_in_several_folders_but_not_twice(tmp_path):
    write_tree(tmp_path, {"a/x": b"x", "b/y": b"y"})
    (found,) = find(tmp_path, None, [["x", "y"]])
    assert found["y"].read() == b"y"
    write_tree(tmp_path, {"c/x": b"?"})
    with pytest.raises(ConfigError, match=r"x is in .* twice, as .*/a/x and .*/c/x"):
        find(tmp_path, None, [["x", "y"]])


def test_missing_files_are_named(tmp_path):
    write_tree(tmp_path, {"x": b"x"})
    with pytest.raises(ConfigError, match=r"has 1 of the 3 files x, y, z; missing: y, z; add them"):
        find(tmp_path, None, [["p", "q"], ["x", "y", "z"]])
    with pytest.raises(ConfigError, match=r"there is no .*/nowhere; give --from=PATH"):
        find(tmp_path / "nowhere", None, [["x"]])


@pytest.mark.parametrize("suffix", ["tar.gz", "zip", "tar"])
def test_a_damaged_archive_is_an_error_alone_and_passed_by_among_others(suffix, tmp_path, capsys):
    content = {"x": bytes(RNG.integers(0, 256, 300_000, dtype=np.uint8))}
    path = tmp_path / "d" / f"a.{suffix}"
    path.parent.mkdir()
    zipped(path, content) if suffix == "zip" else tar(path, content, "w:gz" if suffix == "tar.gz" else "w")
    os.truncate(path, 150_000)
    with pytest.raises(ConfigError, match=r"damaged or breaks off .*; fetch it again"):
        find(path, None, [["x"]])
    zipped(tmp_path / "d" / "whole.zip", content | {"y": bytes(400_000)}, zipfile.ZIP_STORED)
    (found,) = find(tmp_path / "d", None, [["x"]])
    assert found["x"].read() == content["x"]
    assert f"warning: {path} is damaged" in capsys.readouterr().err


# ---- idx


@pytest.mark.parametrize("dot", [False, True])
@pytest.mark.parametrize("gz", [False, True])
def test_idx_files_are_read_in_both_spellings_packed_or_not(dot, gz, tmp_path):
    spec = small("mnist", 2)
    images = write_mnist(tmp_path, spec, dot, gz)
    for split, found in spec.open(tmp_path, tmp_path).items():
        np.testing.assert_array_equal(found.images[..., 0], images[split])
        assert list(found.keys) == list(range(20))


def test_of_two_sets_with_the_same_names_the_one_with_the_right_content_is_taken(tmp_path):
    write_mnist(tmp_path / "a", small("mnist", 3))
    images = write_mnist(tmp_path / "b", small("mnist", 2))
    found = small("mnist", 2).open(tmp_path, tmp_path)
    np.testing.assert_array_equal(found["train"].images[..., 0], images["train"])


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda s: dataclasses.replace(s, sizes={"train": 21, "test": 20}), "has 20 images, where mnist's train .* 21"),
        (
            lambda s: dataclasses.replace(s, counts=s.counts | {"test": {"label": (3, 1) + (2,) * 8}}),
            r"has 2 images of class 0 \(label\), where mnist's test split has 3; get the files",
        ),
        (lambda s: dataclasses.replace(s, mean=(0.1307,)), r"mean 0\.\d+, where mnist's train split has 0.1307"),
        (lambda s: dataclasses.replace(s, shape=(32, 32)), "images of 28 x 28 pixels, not 32 x 32"),
    ],
)
def test_content_that_is_not_the_data_sets_is_refused(harm, sentence, tmp_path):
    spec = small("mnist", 2)
    write_mnist(tmp_path, spec)
    with pytest.raises(ConfigError, match=sentence):
        harm(spec).open(tmp_path, tmp_path)


def test_a_short_idx_file_is_refused(tmp_path):
    spec = small("mnist", 2)
    write_mnist(tmp_path, spec)
    os.truncate(tmp_path / "t10k-images-idx3-ubyte", 1000)
    with pytest.raises(ConfigError, match="t10k-images-idx3-ubyte is no whole idx file of 3 axes"):
        spec.open(tmp_path, tmp_path)


# ---- CIFAR


def cifar_files(name: str, spec, python: bool) -> tuple[dict[str, bytes], dict[str, tuple]]:
    """The files of a small CIFAR, and `{split: (images, columns of labels)}`."""
    form, files, content = cifar.FORMATS[name], {}, {}
    for split, names in (form.python if python else form.binary).items():
        n = spec.sizes[split]
        images = RNG.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        fine = RNG.permutation(np.repeat(np.arange(len(spec.names["label"])), n // len(spec.names["label"])))
        labels = np.stack([fine // 5, fine], 1) if name == "cifar100" else fine[:, None]
        content[split] = images, labels
        rows = images.transpose(0, 3, 1, 2).reshape(n, -1)
        for part, file in zip(np.array_split(np.arange(n), len(names)), names):
            if python:
                columns = {k.encode(): labels[part, j].tolist() for j, k in enumerate(form.keys)}
                files[file] = pickle.dumps({b"data": rows[part], b"filenames": [b"x.png"], **columns}, 2)
            else:
                files[file] = np.concatenate([labels[part].astype(np.uint8), rows[part]], 1).tobytes()
    return files | dict.fromkeys(form.extra if python else (), pickle.dumps({})), content


@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize(("name", "each"), [("cifar10", 3), ("cifar100", 2)])
def test_both_versions_of_cifar_are_read(name, each, python, tmp_path):
    spec = small(name, each)
    files, content = cifar_files(name, spec, python)
    found = spec.open(tar(tmp_path / "repacked.tar.gz", {f"other/{k}": v for k, v in files.items()}, "w:gz"), tmp_path)
    for split, (images, labels) in content.items():
        np.testing.assert_array_equal(found[split].images, images)
        np.testing.assert_array_equal(found[split].columns["label"], labels[:, -1])
        assert found[split].columns["id"][1] == f"{split}_00001"
    if name == "cifar100":
        np.testing.assert_array_equal(found["test"].columns["coarse_label"], content["test"][1][:, 0])


def test_pickles_of_every_protocol_are_read(tmp_path):
    for protocol in range(6):
        batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2]}
        path = write_tree(tmp_path, {"p": pickle.dumps(batch, protocol)}) / "p"
        (file,) = (f for stage in stages(path, None, "p".__eq__) for f in stage)
        images, labels = cifar._python(file, cifar.FORMATS["cifar10"])
        assert images.shape == (2, 3072)
        assert labels.tolist() == [[1], [2]]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {b"data": np.array([m], object), b"labels": []}])
def test_a_pickle_that_would_run_something_is_refused(wrap, tmp_path):
    spec = small("cifar10", 1)
    files, _ = cifar_files("cifar10", spec, python=True)
    origin = write_tree(tmp_path / "in", files | {"data_batch_3": pickle.dumps(wrap(Malicious(tmp_path / "run")), 2)})
    with pytest.raises(
        ConfigError, match=r"data_batch_3 (asks for posix.mkdir, which no CIFAR|is no batch of CIFAR's)"
    ):
        spec.open(origin, tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1]), pickle.dumps({"data": 3, "labels": [1]})])
def test_a_damaged_pickle_is_refused(content, tmp_path):
    spec = small("cifar10", 1)
    files, _ = cifar_files("cifar10", spec, python=True)
    with pytest.raises(ConfigError, match=r"test_batch (is no batch|does not hold)"):
        spec.open(write_tree(tmp_path / "in", files | {"test_batch": content}), tmp_path)


def test_the_classes_of_cifar_100_are_in_the_order_of_the_data():
    names = SPECS["cifar100"].names
    assert [len(names["label"]), len(names["coarse_label"])] == [100, 20]
    assert names["label"][:3] + names["label"][-2:] == ("apple", "aquarium_fish", "baby", "woman", "worm")
    assert names["coarse_label"][11:14] == (
        "large_omnivores_and_herbivores",
        "medium_mammals",
        "non-insect_invertebrates",
    )


# ---- STL-10


@pytest.mark.parametrize("shape", ["folder", "tar.gz"])
def test_stl10_is_stored_column_by_column(shape, tmp_path):
    spec = small("stl10", 2)
    images = {s: RNG.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8) for s, n in spec.sizes.items()}
    labels = {s: np.repeat(np.arange(10), 2) for s in ("train", "test")}
    files = {f"{s}_X.bin": images[s].transpose(0, 3, 2, 1).tobytes() for s in labels}
    files |= {f"{s}_y.bin": (labels[s] + 1).astype(np.uint8).tobytes() for s in labels}
    files["unlabeled_X.bin"] = images["unlabelled"].transpose(0, 3, 2, 1).tobytes()
    where = {f"stl10_binary/{k}": v for k, v in files.items()}
    origin = write_tree(tmp_path / "in", where) if shape == "folder" else tar(tmp_path / "in.tar.gz", where, "w:gz")
    found = spec.open(origin, tmp_path)
    for split, expected in images.items():
        np.testing.assert_array_equal(found[split].images, expected)
        assert isinstance(found[split].images, np.memmap)
        np.testing.assert_array_equal(found[split].columns["label"], labels.get(split, [-1, -1]))


# ---- ImageNet


def imagenet_origin(shape: str, name: str, files: dict[str, dict[str, bytes]], tmp: Path) -> Path:
    inside = "images/" if name == "tiny_imagenet" else ""
    flat = {f"train/{s}/{inside}{f}": data for s, fs in files.items() for f, data in fs.items()}
    if shape == "folder":
        return write_tree(
            tmp / "in", flat | {"train/n01440764/n01440764_1.JPEG": b"", "val/ILSVRC2012_val_1.JPEG": b""}
        )
    if shape == "zip":
        return zipped(tmp / "in.zip", {f"tiny-imagenet-200/{f}": data for f, data in flat.items()})
    if shape == "inner tars":
        for s, fs in files.items():
            tar(tmp / "in" / f"{s}.tar", fs)
        return write_tree(tmp / "in", {"n01440764.tar": b"not opened"})
    inner = {f"{s}.tar": tar(tmp / "x.tar", fs).read_bytes() for s, fs in files.items()}
    return tar(tmp / "ILSVRC2012_img_train.tar", {"n01440764.tar": b"not opened"} | inner)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, shape) for name in ("imagenet10", "imagenet_dogs") for shape in ("folder", "inner tars", "tar")),
        *(("tiny_imagenet", shape) for shape in ("folder", "zip")),
    ],
)
def test_images_of_synsets_are_found_and_stay_as_they_are(name, shape, tmp_path):
    spec = small(name, 2)
    files = imagenet_files(spec, 64)
    split = spec.open(imagenet_origin(shape, name, files, tmp_path), tmp_path)["train"]
    assert len(split.images) == 2 * len(files)
    for image, label, key in zip(split.images, split.columns["label"], split.keys, strict=True):
        assert image.read() == files[spec.names["label"][label]][key]


def test_missing_synsets_are_named_with_their_counts(tmp_path):
    spec = small("imagenet10", 3)
    files = imagenet_files(spec)
    del files["n02056570"]
    files["n07747607"].popitem()
    with pytest.raises(ConfigError, match=r"2 of imagenet10's 10 synsets: n02056570 \(0 of 3\), n07747607 \(2 of 3\);"):
        spec.open(imagenet_origin("folder", "imagenet10", files, tmp_path), tmp_path)


def test_tiny_imagenets_images_are_not_taken_for_imagenets(tmp_path):
    spec = small("imagenet10", 1)
    files = imagenet_files(spec)
    imagenet_origin("folder", "imagenet10", files, tmp_path)
    write_tree(tmp_path / "in" / "tiny-imagenet-200" / "train", {"n02056570/images/n02056570_1.JPEG": jpeg(64)})
    assert len(spec.open(tmp_path / "in", tmp_path)["train"].images) == 10


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (jpeg(64)[:900], "n02085936_0.JPEG cannot be decoded"),
        (b"", "n02085936_0.JPEG cannot be decoded"),
        (jpeg(60), r"n02085936_0.JPEG is 60 x 60 pixels, not 64 x 64"),
    ],
)
def test_a_damaged_image_is_named(content, sentence, tmp_path):
    spec = dataclasses.replace(small("imagenet10", 1), shape=(64, 64))
    files = imagenet_files(spec, 64)
    files["n02085936"]["n02085936_0.JPEG"] = content
    with pytest.raises(ConfigError, match=sentence):
        spec.open(imagenet_origin("folder", "imagenet10", files, tmp_path), tmp_path)


def test_grey_cmyk_and_png_images_are_images(tmp_path):
    spec = small("imagenet10", 3)
    files = imagenet_files(spec)
    files["n02085936"] = {
        f"n02085936_{i}.JPEG": jpeg(24, mode, form)
        for i, (mode, form) in enumerate((("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG")))
    }
    assert len(spec.open(imagenet_origin("folder", "imagenet10", files, tmp_path), tmp_path)["train"].images) == 30


def test_the_synsets_are_the_papers():
    assert [len(SPECS[n].names["label"]) for n in ("imagenet10", "imagenet_dogs", "tiny_imagenet")] == [10, 15, 200]
    assert [SPECS[n].sizes["train"] for n in ("imagenet10", "imagenet_dogs", "tiny_imagenet")] == [13000, 19500, 100000]
    for name in ("imagenet10", "imagenet_dogs", "tiny_imagenet"):
        synsets = SPECS[name].names["label"]
        assert list(synsets) == sorted(set(synsets))
        assert all(re.fullmatch(r"n\d{8}", synset) for synset in synsets)


def test_tfds_knows_our_builders_and_prepares_with_them(tmp_path, monkeypatch):
    spec = small("imagenet10", 2)
    files = imagenet_files(spec)
    origin = imagenet_origin("folder", "imagenet10", files, tmp_path)
    monkeypatch.setattr(imagenet.Imagenet10, "SPEC", spec)
    for name in ("imagenet10", "imagenet_dogs", "tiny_imagenet"):
        features = tfds.builder(name, data_dir=tmp_path / "data").info.features
        assert tuple(features["label"].names) == SPECS[name].names["label"]
    builder = tfds.builder("imagenet10", data_dir=tmp_path / "data", file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=origin))
    names = [record["file_name"].decode() for record in builder.as_data_source("train")]
    assert sorted(names) == sorted(name for fs in files.values() for name in fs)
    assert "tensorflow" not in sys.modules


# ---- downloads


@contextlib.contextmanager
def server(folder: Path, breaks_after: int | None = None, ranges: bool = True):
    """Serves a folder on this machine, with ranges or not; a response may break off."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Range"))
            path = folder / self.path[1:]
            if not path.exists():
                return self.send_error(404)
            data = path.read_bytes()
            start = int(re.match(r"bytes=(\d+)-", asked[-1])[1]) if ranges and asked[-1] else 0
            if start and start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                return self.end_headers()
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start:][:breaks_after])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as s:
        thread = threading.Thread(target=s.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{s.server_port}", asked
        s.shutdown()
        thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on(ranges, tmp_path):
    content = bytes(RNG.integers(0, 256, 100_000, dtype=np.uint8))
    served = write_tree(tmp_path / "served", {"x.bin": content})
    with (
        server(served, breaks_after=30_000) as (url, _),
        pytest.raises(ConfigError, match=r"x.bin cannot be fetched \(it broke off after 30,000 of 100,000 bytes\)"),
    ):
        download.fetch([f"{url}/x.bin"], tmp_path / "got", "x.bin")
    assert [p.name for p in (tmp_path / "got").iterdir()] == ["x.bin.part"]
    with server(served, ranges=ranges) as (url, asked):
        download.fetch([f"{url}/x.bin"], tmp_path / "got", "x.bin")
        download.fetch([f"{url}/x.bin"], tmp_path / "got", "x.bin")  # it is there
    assert asked == ["bytes=30000-"]
    assert [p.name for p in (tmp_path / "got").iterdir()] == ["x.bin"]
    assert (tmp_path / "got" / "x.bin").read_bytes() == content


@pytest.mark.parametrize("extra", [b"", b"too much"])
def test_a_download_killed_before_it_got_its_name_gets_it(extra, tmp_path):
    served = write_tree(tmp_path / "served", {"x.bin": b"content"})
    write_tree(tmp_path / "got", {"x.bin.part": b"content" + extra})
    with server(served) as (url, _):
        download.fetch([f"{url}/x.bin"], tmp_path / "got", "x.bin")
    assert (tmp_path / "got" / "x.bin").read_bytes() == b"content"


def test_what_cannot_be_fetched_says_what_to_do(tmp_path):
    with (
        server(tmp_path) as (url, _),
        pytest.raises(
            ConfigError, match=r"/x cannot be fetched \(Not Found\); .* by hand and give --from=PATH to my x"
        ),
    ):
        download.fetch([f"{url}/x"], tmp_path / "got", "my x")
    with pytest.raises(ConfigError, match=r"cannot be fetched \(.*refused\); run the same command again"):
        download.fetch([f"{url}/x"], tmp_path / "got", "my x")
