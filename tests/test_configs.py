"""Every config is complete, builds, and takes two steps; they are discovered, so a new one is covered."""

import io
import json
import math

import numpy as np
import pytest
from conftest import CONFIGS, METHODS, ROOT, STORED
from PIL import Image
from sklearn.datasets import load_sample_image

from jaxclust import data
from jaxclust.commands.work.evaluate import run_evaluation
from jaxclust.commands.work.train import run_training
from jaxclust.data.decode import decode
from jaxclust.run import config, sharding
from jaxclust.training import build
from jaxclust.views import operations


def program(path) -> str:
    """What decides the program that a config is, once it is small: what is switched on, not by how much."""

    def kind(value):
        if isinstance(value, dict):
            return {name: kind(of) for name, of in value.items()}
        if isinstance(value, (tuple, list)):
            return [kind(of) for of in value]
        return value if isinstance(value, (str, bool)) or value is None else value != 0

    cfg = config.load(str(path), {}).to_dict()
    kept = {name: cfg[name] for name in ("method", "views", "optim")}
    more = (
        cfg["net"]["stem"],
        len(cfg["data"]["splits"]),
        cfg["data"]["stored"] > 0,
        STORED.get(cfg["data"]["name"], (96, 3))[1],
    )
    return json.dumps([kind(kept), *more], sort_keys=True)


# Shrunk, many configs are the same program; one of each trains, that of the digits where there is one.
PROGRAMS = {program(p): p for p in sorted(CONFIGS, key=lambda p: p.stem.startswith("digits"))}
TRAINED = [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem != "digits_mmdc")) for p in PROGRAMS.values()]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_is_built_as_it_stands(path, tmp_path, monkeypatch):
    """With all of its values, and as many images as it asks for, which are one that takes no room."""

    def load(s: data.Settings) -> dict[str, data.Source]:
        side, channels = STORED.get(s.name, (96, 3))
        images = np.broadcast_to(np.uint8(7), (60_000, s.stored or side, s.stored or side, channels))
        return {name: data.Source(images, np.zeros(60_000, np.int32)) for name in s.splits}

    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda: make_mesh(1))
    monkeypatch.setattr(data, "load", load)
    run = build.build(str(path), tmp_path / "run", "train", {})
    assert run.plan.stages[-1].epoch == run.train.epochs - 1
    assert run.like.params


@pytest.mark.parametrize("path", TRAINED)
def test_config_trains_two_steps_and_is_evaluated(path, small_run, tmp_path):
    run = small_run(path, tmp_path, overrides={"train.epochs": "1"})
    state = run_training(run)
    last = run.plan.stages[-1]
    assert int(state.step) == last.start + last.steps >= 2
    run_evaluation(run, state)
    scores = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert {"step", "seed", "cluster", "kmeans_pixels"} <= scores.keys()
    assert all(0 <= scores["cluster"][name] <= 1 for name in ("acc", "nmi"))
    for line in (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines():
        assert math.isfinite(json.loads(line)["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_a_folder(method, small_run, tmp_path):
    run = small_run(f"{ROOT}/configs/folder.py:{method}", tmp_path, overrides={"train.epochs": "4"})
    assert int(run_training(run).step) == run.plan.stages[-1].start + run.plan.stages[-1].steps


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_says_what_it_is_and_how_to_run_it(path):
    text = path.read_text("utf-8")
    assert text.startswith('"""')
    assert f"--config=configs/{path.name}" in text
    assert len(text.splitlines()) <= 80
    config.load(path, {})


def sharpness(image: np.ndarray) -> float:
    """Mean size of the Laplacian of f[H, W, 3]."""
    grey = np.asarray(image, np.float64) @ operations.GREY
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return np.abs(4 * grey[1:-1, 1:-1] - around).mean()


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """As large as most of ImageNet's."""
    return Image.fromarray(load_sample_image("china.jpg")).resize((500, 334), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("name", ["imagenet10_anchor", "imagenet10_cc", "imagenet_dogs_anchor", "imagenet_dogs_cc"])
def test_a_crop_of_a_stored_photograph_is_nearly_as_sharp_as_one_of_the_photograph(name, photograph):
    """The released code crops the photograph; what is stored at the training size keeps less than half."""
    s, (left, top, width, height) = config.load(ROOT / "configs" / f"{name}.py", {}).data, (125, 83, 250, 166)
    whole = photograph.crop((left, top, left + width, top + height)).resize((s.size, s.size), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    photograph.save(file, "PNG")

    def kept(side: int) -> float:
        planes = operations.to_planes(np.asarray(decode(file.getvalue(), side, 3)))
        crop = top * side // 334, left * side // 500, height * side // 334, width * side // 500
        image = operations.interleave(operations.crop_resize(planes, *crop, False, s.size))
        return sharpness(255 * np.asarray(image)) / sharpness(np.asarray(whole))

    assert kept(s.size) < 0.5
    assert kept(s.stored) > 0.7
