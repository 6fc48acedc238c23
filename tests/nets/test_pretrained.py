"""Weights from PyTorch, without PyTorch: what it saved and computed is in fixtures/make_torch.py."""

import functools
import importlib
import json
import math
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONFIGS, config_of
from fixtures.drawn import draw, weight
from safetensors.numpy import save_file

from jaxclust.commands.work.train import run_training
from jaxclust.nets.pretrained import layouts, torch
from jaxclust.run import config
from jaxclust.run.checkpoint import Checkpoints
from jaxclust.run.errors import ConfigError
from jaxclust.run.pickles import Broken
from jaxclust.training import weights
from jaxclust.types import DataSpec

FIXTURES = Path(__file__).parent.parent / "fixtures"
TORCH = np.load(FIXTURES / "torch.npz")
SAVED = {"zip": FIXTURES / "torch_zip.pt", "stream": FIXTURES / "torch_stream.pt"}
KINDS = sorted(key.partition("/")[2] for key in TORCH if key.startswith("kinds/"))
CC = next(p for p in CONFIGS if p.stem == "cifar10_cc")


# Pickles, an instruction at a time.
def text(s):
    return b"X" + struct.pack("<I", len(s.encode())) + s.encode()


def number(n):
    return b"\x8a\x08" + struct.pack("<q", n)


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def group(*items):
    return b"(" + b"".join(items) + b"t"


def call(function, *args):
    return function + group(*args) + b"R"


def mapping(items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def tensor(key, shape, count, kind="FloatStorage", offset=0, stride=None):
    stride = [math.prod(shape[i + 1 :]) for i in range(len(shape))] if stride is None else stride
    storage = group(text("storage"), named("torch", kind), text(key), text("cpu"), number(count)) + b"Q"
    place = number(offset), group(*map(number, shape)), group(*map(number, stride))
    hooks = call(named("collections", "OrderedDict"))
    return call(named("torch._utils", "_rebuild_tensor_v2"), storage, *place, b"\x89", hooks)


def archive(path, body, storages=(), compression=zipfile.ZIP_STORED):
    """A file as torch.save writes it, of a pickle and storages."""
    with zipfile.ZipFile(path, "w", compression) as z:
        z.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        for key, content in dict(storages).items():
            z.writestr(f"archive/data/{key}", content)
    return path


def save(path, tensors, *nest):
    """A state dict under the keys `nest`, each with something beside it."""
    tensors = {name: np.asarray(x) for name, x in tensors.items()}
    kind = {np.dtype(np.float32): "FloatStorage", np.dtype(np.int64): "LongStorage"}
    body = mapping({name: tensor(name, x.shape, x.size, kind[x.dtype]) for name, x in tensors.items()})
    for key in nest:
        body = mapping({"epoch": number(3), key: body})
    return archive(path, body, {name: x.tobytes() for name, x in tensors.items()})


@pytest.mark.parametrize("kind", SAVED)
def test_every_kind_of_tensor_is_read_as_torch_saved_it(kind):
    saved = torch.load(SAVED[kind])
    assert saved["epoch"] == 3
    assert saved["size"] == (4, 6)
    read = {name: t.read() for name, t in saved["model_state_dict"].items()}
    assert sorted(read) == KINDS
    assert read["bfloat16"].dtype == jnp.bfloat16
    for name, x in read.items():
        want = TORCH[f"kinds/{name}"]
        assert x.shape == want.shape
        np.testing.assert_array_equal(x.astype(want.dtype), want, err_msg=name)


@functools.cache
def program(name, depth, size, channels):
    """A config's network of full width: parameters and statistics, abstract, and its predict."""
    cfg = config.load(CC.with_stem(name), {"net.depth": str(depth)})
    method = importlib.import_module(f"jaxclust.methods.{cfg.method.name}").make(cfg)
    params, stats, _ = jax.eval_shape(lambda: method.init(jax.random.key(0), DataSpec(8, size, channels)))
    return (params, stats), jax.jit(lambda params, stats, x: method.predict(params, stats, {}, x))


@pytest.fixture
def file(tmp_path):
    """Where a large file may lie, for as long as the test runs."""
    yield tmp_path / "file"
    (tmp_path / "file").unlink(missing_ok=True)


def drawn(net, prefix=""):
    """The state dict whose outputs make_torch.py kept."""
    return {prefix + name: weight(name, shape) for name, shape in json.loads(str(TORCH[f"{net}/layout"]))}


@pytest.mark.parametrize("net", ["torchvision18", "timm18", "torchvision34", "torchvision50"])
def test_backbones_of_torchvision_and_timm_give_what_torch_gives(net, file):
    if net == "torchvision50":
        save_file(drawn(net), file)
    elif net == "timm18":
        save(file, drawn(net, "module."), "state_dict", "model")
    else:
        save(file, drawn(net), *(["state_dict"] if net == "torchvision34" else []))
    like, predict = program("cifar10_cc", int(net[-2:]), 64, 3)
    params, stats = layouts.fill(layouts.File(file), like, heads=False)
    heads = {name: jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like[0][name]) for name in ("g_i", "g_c")}
    h = predict(params | heads, stats, draw("images", (2, 64, 64, 3))).embeddings["backbone"]
    np.testing.assert_allclose(h, TORCH[f"{net}/backbone"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("net", "name", "depth", "shape", "nest"),
    [
        ("cc", "cifar10_cc", 34, (2, 64, 64, 3), "net"),
        ("mmdc", "cifar10_mmdc", 18, (2, 32, 32, 3), "model_state_dict"),
        ("mmdc_vgg", "mnist_mmdc", 4, (2, 32, 32, 1), "model_state_dict"),
    ],
)
def test_checkpoints_of_methods_give_what_torch_gives(net, name, depth, shape, nest, file):
    like, predict = program(name, depth, *shape[2:])
    save(file, drawn(net, "module." * (net == "mmdc")), nest)
    params, stats = layouts.fill(layouts.File(file), like, heads=True)
    q, spaces = predict(params, stats, draw("images", shape))
    found = spaces | {"q": q}
    if net == "mmdc":
        found["rotation"] = spaces["backbone"] @ params["rotation"]["kernel"] + params["rotation"]["bias"]
    outputs = [key.partition("/")[2] for key in TORCH if key.startswith(f"{net}/") and not key.endswith("layout")]
    assert outputs
    for output in outputs:
        np.testing.assert_allclose(found[output], TORCH[f"{net}/{output}"], rtol=0, atol=1e-4, err_msg=output)


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def refused(path, *words):
    """The one sentence that a file is refused with, by whatever reads it."""
    with pytest.raises(ConfigError) as caught:
        layouts.File(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    for word in words:
        assert word in sentence
    return sentence


def test_a_bomb_does_not_go_off_wherever_it_is(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "file"
    bomb = pickle.dumps(Bomb(marker), 2)
    pickle.loads(bomb)
    assert marker.exists()  # it is a real one
    marker.unlink()

    path.write_bytes(bomb)
    refused(path, "posix.system")
    for protocol in 2, 4:
        body = pickle.dumps({"state_dict": {"w": Bomb(marker)}}, protocol)
        archive(path, body[2:-1] if protocol == 2 else body[:-1])
        refused(path, "posix.system")
    for place in range(5):  # of the stream's five pickles
        parts = [pickle.dumps(x, 2) for x in (torch.MAGIC, torch.VERSION, {}, {"w": 1}, [])]
        parts[place] = bomb
        path.write_bytes(b"".join(parts))
        refused(path, "posix.system")

    # Within a storage it is numbers.
    inside = bomb + b"." * (-len(bomb) % 4)
    archive(path, mapping({"w": tensor("0", (len(inside) // 4,), len(inside) // 4)}), {"0": inside})
    assert torch.load(path)["w"].read().tobytes() == inside
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        ("builtins", "eval"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("torch.storage", "_load_from_bytes"),  # unpickles what it is given
        ("torchvision.models.resnet", "ResNet"),
        ("numpy", "load"),
        ("collections", "OrderedDict.fromkeys"),
        ("jaxclust.nets.pretrained.torch", "load"),
    ],
    ids=".".join,
)
def test_what_is_not_known_is_refused_by_name(name, tmp_path):
    for reference in named(*name), text(name[0]) + text(name[1]) + b"\x93":
        archive(
            tmp_path / "file", mapping({"w": tensor("0", (1,), 1), "x": call(reference, text("1"))}), {"0": b"1234"}
        )
        refused(tmp_path / "file", ".".join(name))


def test_a_pickle_cannot_change_what_it_names_or_makes(tmp_path):
    path = tmp_path / "file"
    states = mapping({"offset": number(10**9)}), group(b"N", mapping({"_call": b"N"})), group(b"N", b"}")
    storage = group(text("storage"), named("torch", "FloatStorage"), text("0"), text("cpu"), number(1)) + b"Q"
    functions = named("collections", "OrderedDict"), named("torch._utils", "_rebuild_tensor_v2")
    for made in (tensor("0", (1,), 1), storage, *functions):
        for state in states:  # a tensor elsewhere than it was checked to be would read memory that is not the file's
            refused(archive(path, mapping({"w": made + state + b"b"}), {"0": b"1234"}), "after it is made")
    refused(archive(path, mapping({"w": named("torch", "FloatStorage") + states[0] + b"b"})))
    saved = torch.load(archive(path, call(functions[0]) + mapping({"items": number(1)}) + b"b"))
    assert not saved.items()


def test_a_file_that_ends_too_early_is_refused_at_every_length(tmp_path):
    save_file({"conv1.weight": np.ones((4, 4), np.float32)}, tmp_path / "whole")
    for whole in (*(p.read_bytes() for p in SAVED.values()), (tmp_path / "whole").read_bytes()):
        path = tmp_path / "part"
        for length in (0, 1, 2, 7, 9, 40, *range(100, len(whole), len(whole) // 17), len(whole) - 1):
            path.write_bytes(whole[:length])
            refused(path)


@pytest.mark.parametrize("kind", SAVED)
def test_bytes_that_changed_do_no_harm(kind, tmp_path):
    whole = SAVED[kind].read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            broken[at] = rng.integers(256)
        (tmp_path / "file").write_bytes(broken)
        try:
            saved = torch.load(tmp_path / "file")
            for x in saved["model_state_dict"].values():
                x.read()
        except (ConfigError, Broken, KeyError, TypeError, AttributeError):
            pass  # the last three are this test's own, of an object that is another


def test_numbers_that_changed_are_noticed(tmp_path):
    whole = save(tmp_path / "file", {"conv1.weight": np.ones(1000, np.float32)}).read_bytes()
    at = whole.index(np.ones(1000, np.float32).tobytes())
    (tmp_path / "file").write_bytes(whole[: at + 2000] + b"\1" + whole[at + 2001 :])
    with pytest.raises(Broken, match="not what was saved"):
        torch.load(tmp_path / "file")["conv1.weight"].read()


def test_sizes_that_a_file_does_not_have_are_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "file"
    huge = 10**13
    archive(path, mapping({"w": tensor("0", (huge,), huge)}), {"0": b"1234"})
    with pytest.raises(Broken, match="declared"):
        torch.load(path)["w"].read()
    refused(archive(path, mapping({"w": tensor("0", (2,), 1)}), {"0": b"1234"}), "wants number 1 of a storage of 1")
    refused(archive(path, mapping({"w": tensor("0", (1,), 1, offset=-1)}), {"0": b"1234"}), "described wrongly")
    refused(archive(path, b"}r\xff\xff\xff\x7f"), "no tensors")  # remembered as number 2 ** 31 - 1, without a table
    refused(archive(path, b"\x8e" + struct.pack("<Q", 2**62)))  # so many bytes follow
    refused(archive(path, b" " * 10**6, {}, zipfile.ZIP_DEFLATED), "compressed")
    # Every number of it is one and the same: a view of ten bytes may be of any size, but here it must be the network's.
    archive(path, mapping({"conv1.weight": tensor("0", (10**7, 10**7), 1, stride=(0, 0))}), {"0": b"1234"})
    assert torch.load(path)["conv1.weight"].shape == (10**7, 10**7)


@pytest.fixture
def run(small_run, tmp_path):
    return small_run(config_of("cc"), tmp_path / "run")


def checkpoint_of(run):
    """What CC's authors would have saved of such a network."""
    leaves = layouts.named((run.like.params, run.like.stats), heads=True)
    shapes = {layouts.theirs(name, layouts.CC): layouts.their_shape(leaf.shape) for name, leaf in leaves}
    return {name: weight(name, shape) for name, shape in shapes.items()} | {
        "resnet.bn1.num_batches_tracked": np.array(9)
    }


def changed(tensors, how):
    match how:
        case "missing":
            del tensors["cluster_projector.2.bias"], tensors["resnet.layer1.0.bn1.running_var"]
        case "extra":
            tensors["resnet.fc.weight"] = np.zeros((10, 4), np.float32)
        case "shape":
            tensors["resnet.conv1.weight"] = tensors["resnet.conv1.weight"][:, :, :1]
        case "integers":
            tensors["resnet.bn1.weight"] = np.ones(tensors["resnet.bn1.weight"].shape, np.int64)
        case "infinite":
            tensors["resnet.bn1.weight"][1] = np.inf
        case "view":
            tensors["resnet.bn1.weight"] = np.zeros((), np.float32)
        case "other network":
            tensors = {"cls_token": np.zeros(4, np.float32), "blocks.0.attn.qkv.weight": np.zeros((4, 4), np.float32)}
        case "other method":
            tensors = {"top_layer.weight": np.zeros((4, 4), np.float32), "conv1.weight": np.zeros(4, np.float32)}
    return tensors


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", ["lacks cluster_projector.2.bias, resnet.layer1.0.bn1.running_var"]),
        ("extra", ["besides resnet.fc.weight"]),
        ("shape", ["resnet.conv1.weight (4 x 1 x 1 x 7 in the file, 4 x 1 x 7 x 7 in the network)"]),
        ("integers", ["resnet.bn1.weight", "int64"]),
        ("infinite", ["resnet.bn1.weight", "not finite"]),
        ("view", ["resnet.bn1.weight (a number in the file, 4 in the network)"]),
        ("other network", ["blocks.0.attn.qkv.weight, cls_token", "CC and MMDC"]),
        ("other method", ["g_c/linear1/bias", "MMDC"]),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_and_leaves_nothing(how, words, run, tmp_path):
    save(tmp_path / "file", dict(sorted(changed(checkpoint_of(run), how).items())), "net")
    with pytest.raises(ConfigError) as caught:
        weights.run_import(run._replace(init=None, workdir=tmp_path / "new"), tmp_path / "file")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "run"]


@pytest.mark.slow
def test_an_imported_checkpoint_trains_and_lends_its_backbone(run, small_run, tmp_path):
    tensors = checkpoint_of(run)
    weights.run_import(run, save(tmp_path / "file", tensors, "net"))
    with Checkpoints(run.workdir, keep=None) as checkpoints:
        state = checkpoints.restore(run.like)
    assert int(state.step) == 0
    np.testing.assert_array_equal(state.params["g_c"]["linear2"]["kernel"], tensors["cluster_projector.2.weight"].T)
    np.testing.assert_array_equal(
        state.params["f"]["stem"]["conv"]["kernel"], tensors["resnet.conv1.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(state.stats["stem"]["bn"]["var"], tensors["resnet.bn1.running_var"])
    with pytest.raises(ConfigError, match="already"):
        weights.run_import(run, tmp_path / "file")

    # Its workdir and the file lend the same backbone, and twins of a backbone have it too.
    other = small_run(config_of("tcc"), tmp_path / "other", overrides={"net.stem": run.config.net.stem})
    fresh = other.init()
    for path in run.workdir, tmp_path / "file":
        begun = weights.start(str(path), other.init, other.like)
        for params, stats in (begun.params, begun.stats), (begun.memory["twin"], begun.memory["twin_stats"]):
            jax.tree.map(np.testing.assert_array_equal, params["backbone"], state.params["f"])
            jax.tree.map(np.testing.assert_array_equal, stats, state.stats)
        np.testing.assert_array_equal(begun.params["last"]["kernel"], fresh.params["last"]["kernel"])
        assert len({x.unsafe_buffer_pointer() for x in jax.tree.leaves((begun.params, begun.memory))}) == len(
            jax.tree.leaves((begun.params, begun.memory))
        )
    jax.tree.map(np.testing.assert_array_equal, weights.start("", other.init, other.like).params, fresh.params)

    short = small_run(config_of("cc"), run.workdir, overrides={"train.epochs": "1"})
    assert int(run_training(short).step) == 2


def test_a_backbone_alone_makes_a_run_whose_heads_are_untrained(run, tmp_path, capsys):
    tensors = {n.removeprefix("resnet."): x for n, x in checkpoint_of(run).items() if n.startswith("resnet.")}
    save_file(tensors | {"fc.weight": np.zeros((1000, 4), np.float32)}, tmp_path / "file")
    state = weights.imported(tmp_path / "file", run.init, run.like)
    assert "backbone alone" in capsys.readouterr().err
    np.testing.assert_array_equal(state.stats["stem"]["bn"]["mean"], tensors["bn1.running_mean"])
    fresh = run.init()
    jax.tree.map(np.testing.assert_array_equal, state.params["g_i"], fresh.params["g_i"])


def test_a_damaged_checkpoint_lends_nothing(run, tmp_path):
    with Checkpoints(run.workdir, keep=1) as checkpoints:
        checkpoints.save(run.init())
    digests = run.workdir / "checkpoints" / "0" / "digest" / "metadata"
    digests.write_text(digests.read_text("utf-8").replace("stem", "stern"))
    with pytest.raises(ConfigError, match="not what was saved"):
        weights.start(str(run.workdir), run.init, run.like)
    shutil.rmtree(run.workdir / "checkpoints")
    with pytest.raises(ConfigError, match="no workdir with a checkpoint"):
        weights.start(str(run.workdir), run.init, run.like)
    with pytest.raises(ConfigError, match="No such file"):
        weights.start(str(tmp_path / "nothing"), run.init, run.like)
