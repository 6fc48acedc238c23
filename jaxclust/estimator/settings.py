"""From an estimator's parameters to a complete config."""

import math
import operator
import os
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from sklearn.utils import check_random_state

from jaxclust import methods
from jaxclust.run import config, sharding
from jaxclust.run.errors import ConfigError, hint
from jaxclust.run.files import expanded
from jaxclust.training import configs

BASE = "cifar10_{}_small.py"  # sized for a machine without a GPU
SIDE = 32  # of its images, pixels
NAMES = {  # parameter -> setting
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "size": "data.size",
    "depth": "net.depth",
    "width": "net.width",
    "learning_rate": "optim.lr",
}


def shipped() -> list[str]:
    """The methods that have a config to start from."""
    return [name for name in methods.known() if config.shipped(BASE.format(name))]


def complete(params: Mapping[str, Any], folder: str | os.PathLike | None) -> ConfigDict:
    """The config that parameters stand for.

    Args:
      params: of the estimator.
      folder: where the images are, if they are at a path.

    Raises:
      ConfigError: a parameter makes no sense.
    """
    settings = params["settings"] or {}
    whole = set(config.SECTIONS) <= set(settings)
    if whole:
        base, changed = ConfigDict(settings), {}
        config.complete(base, configs.schemas(base))
    else:
        base, changed = _base(params["method"], settings), config.flatten(settings)
    seed = params["random_state"]
    said = {
        "seed": seed if isinstance(seed, Integral) else check_random_state(seed).randint(2**31 - 1),
        "clusters": params["n_clusters"],
        "data.name": "folder",
        "data.splits.train": "all",
        "data.labels": "",
        "data.dir": "" if folder is None else os.path.abspath(expanded(folder)),
        "data.max_bad": 1.0,  # a file that cannot be used has the label -1
        "eval.held_out": 0,
        "report.looks": 0,
        "report.page": False,
    }
    said |= {name: params[param] for param, name in NAMES.items() if params[param] is not None}
    return config.override(base, {name: _text(value) for name, value in (said | changed).items()}, "settings")


def _base(method: str, settings: Mapping[str, Any]) -> ConfigDict:
    """The config that a method's settings are laid over: its own, or for a method from outside CC's but for the method.

    Raises:
      ConfigError: there is no such method.
    """
    if "." not in str(method):
        if method not in shipped():
            raise ConfigError(f"method is {method!r}{hint(str(method), shipped())}")
        return config.load(config.find(BASE.format(method)), {}, configs.schemas)
    base = config.load(config.find(BASE.format("cc")), {})
    said = config.flatten(settings).items()
    own = {name.removeprefix("method."): value for name, value in said if name.startswith("method.")}
    base.method = ConfigDict(own | {"name": method})
    return config.complete(base, configs.schemas(base))


def fitted(cfg: ConfigDict, params: Mapping[str, Any], shape: tuple[int, int, int, int]) -> ConfigDict:
    """`cfg` for the images that there are.

    Where nobody has asked for something else, a batch is no larger than they are, each epoch is recorded once, and the
    shipped views cut as large a part out of an image as they do of 32 pixels, and take grey for the mean of colours.

    Args:
      cfg, params: as above.
      shape: [N, H, W, C] of the images.
    """
    images, *sides, channels = shape
    said, devices = config.flatten(params["settings"] or {}), len(sharding.devices())
    grouped = "group" in cfg.method and "method.group" not in said  # within which MMDC shares out its targets
    if params["batch_size"] is None and "train.batch_size" not in said and cfg.train.batch_size > images:
        unit = devices
        if grouped:
            cfg.method.group = min(cfg.method.group, max(images // devices, 1) * devices)
            unit = math.lcm(devices, cfg.method.group)
        cfg.train.batch_size = max(images // unit, 1) * unit
    if grouped:
        cfg.method.group = max(g for g in range(1, cfg.method.group + 1) if cfg.train.batch_size % g == 0)
    if "train.log_every" not in said:
        cfg.train.log_every = max(images // max(operator.index(cfg.train.batch_size), 1), 1)
    if not set(config.SECTIONS) <= set(params["settings"] or {}):
        for name, view in cfg.views.items():
            for key in {"crop", "crops"} & {*view} - {key for key in view if f"views.{name}.{key}" in said}:
                view[key] = jax.tree.map(lambda side: max(round(side * min(sides) / SIDE), 1), view[key])
            for key in {"mean", "std"} & {*view} if channels == 1 else ():
                view[key] = (float(np.mean(view[key])),)
    return cfg


def _text(value: Any) -> str:
    """A value as the command line has it."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str) else repr(value)
