"""What leaves jaxclust says the same as jaxclust, whole or not at all, and needs nothing of it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import yaml
from helpers.images import PROFILES, profile
from jax import export as jax_export
from PIL import Image, ImageDraw

from jaxclust.clusters import decisions, embed, reach
from jaxclust.data import decode
from jaxclust.inference.export import export, onnx
from jaxclust.run.errors import ConfigError, RunError
from jaxclust.training import build
from jaxclust.types import State

STEP = 5
converts = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jax2onnx", "onnxruntime"))), reason="jax2onnx or onnxruntime is missing"
)


def some_state(run: build.Run) -> State:
    """Random weights that keep activations near one, without compiling the run's `init`."""
    rng = np.random.default_rng(0)

    def draw(a):
        return rng.normal(0, max(np.prod(a.shape[:-1]), 1) ** -0.5, a.shape).astype(a.dtype)

    params = jax.tree.map(draw, run.like.params)
    stats = jax.tree.map(lambda a: rng.uniform(0.5, 1.5, a.shape).astype(a.dtype), run.like.stats)
    return State(np.int32(STEP), jax.random.key(0), params, stats, opt=(), memory=())


def open_without_images(run: build.Run, state: State, decided: decisions.Decisions) -> build.Opened:
    return build.Opened(run.config, run.workdir, run.plan.method, run.sources["train"].about(), state, decided)


@pytest.fixture
def exported(small_run, tmp_path):
    """A function: (config, formats, overrides) -> an export after a person's decisions, and what it must say."""

    def make(path, formats, **overrides) -> SimpleNamespace:
        run = small_run(path, tmp_path / "run", overrides=overrides)
        state = some_state(run)
        view = run.plan.views[run.eval.view]
        said = embed.train_split(state, run.plan.method, view, build.feeds(run)["train"], run.plan.mesh, 16)
        q, h = said.q, said.embeddings[run.plan.method.space]
        largest, *others = np.argsort(-np.bincount(q.argmax(1), minlength=4)).tolist()
        far = h[q.argmax(1) == largest]  # its parts are around images that are far apart, so that rounding moves none
        far = far[[0, np.argmax(np.linalg.norm(far - far[0], axis=1))]]
        apart = np.sort(reach.distances(h, h[0]))
        widest = np.argmax(np.diff(apart))  # so is the edge of the new cluster
        entries = (
            {"do": "merge", "groups": others[:2]},
            {"do": "split", "group": largest, "into": [largest, 4], "centres": far.tolist()},
            {"do": "rename", "group": 4, "name": "cats | dogs"},
            {"do": "new", "images": [0], "group": 5, "name": "", "from": [others[0], largest, 4], "stay": []}
            | {"centre": h[0].tolist(), "radius": float(apart[widest : widest + 2].mean())},
        )
        decided = decisions.Decisions(STEP, 4, entries)
        opened = open_without_images(run, state, decided)
        folder = export.export(opened, formats=formats)
        groups = np.array([*decided.groups()])[decided.assign(q, h)[0]]
        return SimpleNamespace(
            run=opened,
            folder=folder,
            images=run.sources["train"].images,
            wanted=(decided.follow(q, h), groups, h),
        )

    return make


def agrees(said, wanted):
    p, groups, h = map(np.asarray, said)
    n = len(p)
    np.testing.assert_allclose(p, wanted[0][:n], atol=1e-4)
    np.testing.assert_allclose(h, wanted[2][:n], atol=1e-4 * np.abs(wanted[2]).max())
    assert (groups == wanted[1][:n]).all()


@pytest.mark.parametrize("method", conftest.METHODS)
def test_stablehlo_says_what_the_run_says(exported, method):
    e = exported(conftest.config_of(method), ("stablehlo",))
    blob = (e.folder / "predictor.stablehlo").read_bytes()
    predictor = jax_export.deserialize(bytearray(blob))
    assert predictor.platforms == ("cpu", "cuda", "tpu")
    program = predictor.mlir_module()
    assert "callback" not in program
    assert str(conftest.ROOT).encode() not in blob
    for n in (1, 7) if method == "cc" else (7,):
        agrees(predictor.call(e.images[:n]), e.wanted)


@converts
@pytest.mark.parametrize("method", conftest.METHODS)
def test_onnx_says_what_the_run_says(exported, method):
    import onnxruntime

    e = exported(conftest.config_of(method), ("onnx",))
    session = onnxruntime.InferenceSession(e.folder / "predictor.onnx")
    for n in (1, 7, 36):
        agrees(session.run(None, {"images": e.images[:n]}), e.wanted)


@converts
def test_onnx_of_a_run_in_bfloat16_computes_in_float32_what_it_sees_in_colour(exported):
    import onnxruntime

    e = exported(conftest.ROOT / "configs" / "cifar10_mmdc_small.py", ("onnx",), **{"net.dtype": "bfloat16"})
    session = onnxruntime.InferenceSession(e.folder / "predictor.onnx")
    *_, h = session.run(None, {"images": e.images})
    np.testing.assert_allclose(h, e.wanted[2], atol=0.05 * np.abs(e.wanted[2]).max())  # of bfloat16's 8 bits


def test_onnx_is_for_any_platform():
    """Also where jax2onnx is missing: what it is given holds no branches of platforms."""
    by_platform = jax.make_jaxpr(lambda x: jax.lax.platform_dependent(2 * x, cpu=jnp.sin, default=jnp.cos))(1.0)
    given = jax.make_jaxpr(lambda x: onnx._evaluate(by_platform.jaxpr, by_platform.consts, [x]))(1.0)
    assert [eqn.primitive.name for eqn in given.eqns] == ["mul", "cos"]


def test_the_example_needs_jax_alone(exported, tmp_path):
    e = exported(conftest.config_of("cc"), ("stablehlo",))
    np.save(tmp_path / "images.npy", e.images)
    script = e.folder / "example_jax.py"
    assert len(script.read_text("utf-8").splitlines()) <= 20

    def said(*files):
        without = "import runpy, sys; sys.modules |= dict.fromkeys(['jaxclust', 'flatbuffers', 'flax'])"
        there = "sys.path.insert(0, sys.argv[1].rpartition('/')[0])"  # as Python does for a script
        command = f"{without}; {there}; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
        argv = [sys.executable, "-c", command, script, *files]
        out = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
        return [line.split("\t") for line in out.splitlines()]

    rows = said("images.npy")
    assert [int(row) for row, *_ in rows] == [*range(36)]
    Image.fromarray(e.images[0].squeeze()).save(tmp_path / "photo.png")
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    [alone] = said("broken.jpg", "photo.png")
    *named, probability = (name.replace("photo.png", "0") for name in alone)
    assert named == rows[0][:-1]
    assert float(probability) == pytest.approx(float(rows[0][-1]), rel=1e-5)  # one image is rounded otherwise than 36
    assert [int(group) for _, group, *_ in rows] == e.wanted[1].tolist()
    assert {name for _, group, name, _ in rows if group == "4"} == {"cats | dogs"}
    at = [[*e.run.decided.groups()].index(group) for group in e.wanted[1]]
    np.testing.assert_allclose([float(p) for *_, p in rows], e.wanted[0][np.arange(36), at], atol=1e-4)


def test_the_examples_read_photos_as_prediction_does(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(export.__file__).parent / "examples")
    import photos

    image = Image.new("RGB", (96, 64), (250, 120, 30))
    ImageDraw.Draw(image).ellipse((10, 5, 50, 40), (20, 90, 200))
    turned = Image.Exif()
    turned[0x112] = 6
    alpha = Image.new("L", image.size, 0)
    ImageDraw.Draw(alpha).ellipse((20, 20, 90, 60), 255)
    clear = image.copy()
    clear.putalpha(alpha)
    kinds = {
        "plain.png": (image, {}),
        "turned.jpg": (image, {"exif": turned, "quality": 95}),
        "clear.png": (clear, {}),
        "profile.png": (image, {"icc_profile": profile(*PROFILES["P3"])}),
        "palette.gif": (image.quantize(16), {}),
        "grey.png": (image.convert("L"), {}),
    }
    for name, (picture, how) in kinds.items():
        picture.save(tmp_path / name, **how)
        for channels in (3, 1):
            monkeypatch.setattr(photos, "CHANNELS", channels)
            wanted = decode.decode(str(tmp_path / name), 32, channels).astype(int)
            off = np.abs(photos.read(str(tmp_path / name)) - wanted)
            assert off.mean() < 1, name  # prediction makes large images smaller on its way
            assert off.max() < 16, name


def test_weights_and_groups_are_the_runs(exported):
    e = exported(conftest.config_of("tcc"), ())
    read = safetensors.numpy.load_file(e.folder / "weights.safetensors")
    np.testing.assert_array_equal(
        read["params.backbone.stem.conv.kernel"], e.run.state.params["backbone"]["stem"]["conv"]["kernel"]
    )
    assert len(read) == len(jax.tree.leaves((e.run.state.params, e.run.state.stats)))
    with safetensors.safe_open(e.folder / "weights.safetensors", "numpy") as f:
        about = json.loads(f.metadata()["jaxclust"])
    assert (about["method"], about["step"], about["config"]["clusters"]) == ("tcc", STEP, 4)
    groups = json.loads((e.folder / "clusters.json").read_text("utf-8"))
    assert {int(group): name for group, name in groups.items()} == e.run.decided.groups()


def test_the_card_has_front_matter_scores_of_its_own_step_and_no_place_of_this_machine(exported, tmp_path):
    e = exported(conftest.config_of("cc"), (), **{"data.dir": str(tmp_path)})
    assert "Not measured." in (e.folder / "README.md").read_text("utf-8")
    row = {"acc": 0.5, "nmi": 0.25, "ari": 0.125, "ami": 0.2, "used_clusters": 4, "silhouette": None}
    scores = {"step": STEP, "seed": 0, "cluster": row, "kmeans_pixels": row, "paper": {"ours": row}}
    for step in (STEP, STEP + 1):
        (e.run.workdir / "scores.json").write_text(json.dumps(scores | {"step": step}))
        export.export(e.run, formats=())
        text = (e.folder / "README.md").read_text("utf-8")
        front = yaml.safe_load(text.split("---\n")[1])
        assert (front["library_name"], front["license"], front["datasets"]) == ("jaxclust", "other", ["digits"])
        assert "| 4 | cats \\| dogs |" in text
        assert "Li et al., AAAI 2021" in text
        assert str(tmp_path) not in text
        if step == STEP:
            assert front["model-index"][0]["results"][0]["metrics"][0] == {"type": "accuracy", "value": 0.5}
            assert "| cluster | 0.500 | 0.250 | 0.125 | 0.200 | 4 |  |" in text
        else:
            assert "model-index" not in front
            assert f"measured at step {STEP + 1}" in text


def test_no_file_names_a_place_of_the_machine_or_takes_a_name_for_markdown(exported, tmp_path):
    places = {"data.dir": str(tmp_path / "secret"), "net.init_from": str(tmp_path / "resnet.pth")}
    e = exported(conftest.config_of("cc"), (), **places)
    name = "# a\n# [c](https://d.example) <img src=x> www.f.example g@h"
    renamed = decisions.Decisions(STEP, 4, (*e.run.decided.entries, {"do": "rename", "group": 4, "name": name}))
    folder = export.export(e.run._replace(decided=renamed), tmp_path / "out", ())
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    card = (folder / "README.md").read_text("utf-8")
    assert '"init_from": "resnet.pth"' in card
    assert "from scratch" not in card
    other = e.run.config.copy_and_resolve_references()
    other.data.name = "imagenet_resized/64x64"
    folder = export.export(e.run._replace(config=other), tmp_path / "out", ())
    assert '"name": "imagenet_resized/64x64"' in (folder / "README.md").read_text("utf-8")
    assert r"| 4 | # a\\n# \[c\](https\://d.example) \<img src=x> www\.f.example g\@h |" in card


def test_twice_is_the_same_and_half_is_nothing(exported, monkeypatch):
    e = exported(conftest.config_of("cc"), ("stablehlo",))
    before = {path.name: path.read_bytes() for path in e.folder.iterdir()}
    export.export(e.run, formats=("stablehlo",))
    assert {path.name: path.read_bytes() for path in e.folder.iterdir()} == before

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.numpy, "save", interrupted)
    other = e.run.state.replace(params=jax.tree.map(lambda a: a + 1, e.run.state.params))
    with pytest.raises(KeyboardInterrupt):
        export.export(e.run._replace(state=other), formats=("stablehlo",))
    assert {path.name: path.read_bytes() for path in e.folder.iterdir()} == before
    assert [path.name for path in e.run.workdir.iterdir()] == ["export"]


def test_what_cannot_be_exported_is_refused_and_changes_nothing(small_run, tmp_path, monkeypatch):
    run = small_run(
        conftest.config_of("mmdc"), tmp_path / "run", overrides={"method.means": "none", "method.refine_epoch": "2"}
    )
    opened, folder = open_without_images(run, some_state(run), decisions.Decisions(STEP, 4)), tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").touch()

    def refused(what, formats, folder=None):
        with pytest.raises(ConfigError, match=what):
            export.export(opened, folder, formats)

    refused("has no clusters of its own", ("stablehlo",))
    refused("photos is there and is no earlier export", ("stablehlo",), folder)
    refused("export cannot be written", ("stablehlo",), folder / "cat.jpg" / "export")
    for kept in ("clusters.json", "groups.json"):  # as version 0.1 called it
        earlier = tmp_path / kept / "export"
        earlier.mkdir(parents=True)
        for name in ("README.md", "weights.safetensors", kept):
            (earlier / name).touch()
        export._check_free(earlier)
    refused("there is no format 'onx' .did you mean onnx", ("onx",))
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    refused(r"pip install 'jaxclust\[onnx\]'", ("onnx",))
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]
    assert not (run.workdir / "export").exists()


def test_the_examples_are_short_and_know_nothing_of_jaxclust():
    for path in (Path(export.__file__).parent / "examples").iterdir():
        if path.suffix == ".py":
            text = path.read_text("utf-8")
            assert len(text.splitlines()) <= (20 if path.name.startswith("example") else 40)
            assert "import jaxclust" not in text


@pytest.mark.parametrize(
    "flat", [lambda x: x.reshape(len(x), -1), lambda x: x if x.shape[0] > 3 else -x, lambda x: x.reshape(3, -1)]
)
def test_a_network_that_takes_the_number_of_images_for_a_plain_one_is_told(flat):
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 8, 8, 1"), np.uint8)
    with pytest.raises(RunError, match=r"cannot be exported for any number of images .*; where its module"):
        export.traced(lambda x: (flat(x),), images)
    assert export.traced(lambda x: (x.reshape(x.shape[0], -1),), images)[0].shape[1] == 64
