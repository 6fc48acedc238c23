"""What a config leaves open is chosen for the images that there are, and every choice makes a run."""

from types import SimpleNamespace

import jax
import pytest
from conftest import METHODS, ROOT, SMALL

from jaxclust.commands.work.train import run_training
from jaxclust.run import config, sharding
from jaxclust.run.errors import ConfigError
from jaxclust.training import build, configs, sizing

FOLDER = f"{ROOT}/configs/folder.py"


def sized(images: int, method: str = "cc", devices: int = 8, **given):
    """The folder's config for so many images."""
    cfg = config.load(f"{FOLDER}:{method}", {name: str(value) for name, value in given.items()}, configs.schemas)
    sizing.by_device(cfg)
    sizing.by_images(cfg, images)
    return cfg


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("images", [20, 37, 100, 256, 1000, 3554, 50_000, 2_000_000])
def test_any_number_of_images_gets_a_run(method, images, monkeypatch):
    monkeypatch.setattr(sharding, "devices", lambda: jax.devices()[:1])
    cfg = sized(images, method)
    assert 1 <= cfg.train.batch_size <= min(images, 256)
    assert images < 128 or images // cfg.train.batch_size >= 3
    assert 20 <= cfg.train.epochs <= 400
    assert (cfg.data.size, cfg.net.width) == (32, 16)
    assert all(value is not None for value in config.flatten(cfg.to_dict()).values())
    build._method(cfg)


def test_a_gpu_gets_more(monkeypatch):
    monkeypatch.setattr(sharding, "devices", lambda: [SimpleNamespace(platform="gpu")] * 3)
    cfg = sized(50_000)
    assert (cfg.data.size, cfg.net.width, cfg.train.epochs, cfg.optim.lr) == (96, 64, 300, 3e-4)
    assert cfg.train.batch_size == 255


def test_what_is_given_stays_and_the_rest_follows_it():
    cfg = sized(50_000, "mmdc", **{"train.batch_size": 96, "data.size": 64, "train.epochs": 10})
    assert (cfg.train.batch_size, cfg.train.epochs, cfg.method.group) == (96, 10, 96)
    assert cfg.views.strong.crops == (40,)
    assert cfg.optim.schedule == ((8, 0.2),)


def test_an_open_setting_that_nobody_chooses_is_named():
    cfg = config.load(FOLDER, {"method.projection": "None"}, configs.schemas)
    sizing.by_device(cfg)
    with pytest.raises(ConfigError, match=r"method\.projection is None"):
        sizing.by_images(cfg, 100)


@pytest.mark.slow
def test_a_run_goes_on_with_what_was_chosen_when_it_began(small_run, tmp_path, monkeypatch):
    left = {"train.batch_size": "None", "net.width": "None", "train.epochs": "2"}
    run_training(small_run(FOLDER, tmp_path, overrides=left))
    kept = configs.saved(tmp_path)
    monkeypatch.setattr(sizing, "CPU", sizing.ACCELERATOR)
    for given in (FOLDER, None):
        again, _ = configs.find(given, tmp_path, "train", {"train.epochs": "3"} if given is None else SMALL | left)
        assert again.train.batch_size == kept.train.batch_size
        assert again.net.width == kept.net.width == 16


def test_another_method_is_given_by_its_config(small_run, tmp_path):
    with pytest.raises(ConfigError, match=r"those of cc; give --config=configs/folder\.py:anchor"):
        small_run(FOLDER, tmp_path, overrides={"method.name": "anchor"})
