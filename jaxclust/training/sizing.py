"""What a config leaves open, `None`, is chosen here: by the device, and by how many images there are.

What depends on the device alone is chosen before the images are read, which are kept at the size that is chosen. A run
keeps what was chosen in its config.json, so it goes on with the same on any machine.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxclust.run import config, sharding
from jaxclust.run.errors import ConfigError


class Sizes(NamedTuple):
    """What a kind of device makes in about half an hour of one, or an afternoon."""

    size: int  # pixels
    width: int
    views: int  # images times epochs
    epochs: tuple[int, int]  # at least, at most


CPU = Sizes(32, 16, 2_000_000, (20, 400))
ACCELERATOR = Sizes(96, 64, 15_000_000, (50, 500))
BATCH = 256  # images; contrast gains little from more, and an epoch of fewer images needs several steps
SHORT_RUN = 10_000  # steps, below which larger ones are taken


def _device() -> Sizes:
    return CPU if sharding.devices()[0].platform == "cpu" else ACCELERATOR


def _crop(cfg: ConfigDict) -> int:
    """Five eighths of the side of a stored image, as MMDC has 20 of 32 pixels."""
    return max((cfg.data.stored or cfg.data.size) * 5 // 8, 1)


def _batch_size(cfg: ConfigDict, images: int) -> int:
    """At least four steps an epoch and four images for each cluster, where there are as many images."""
    usable = int(images * (1 - cfg.data.max_bad))
    wanted = max(min(BATCH, usable // 4), min(4 * cfg.clusters, BATCH), 2 * cfg.clusters, 32)
    unit = len(sharding.devices()) * cfg.train.accumulate
    return max(min(wanted, usable) // unit, 1) * unit


def _epochs(cfg: ConfigDict, images: int) -> int:
    device = _device()
    low, high = device.epochs
    return min(max(round(device.views / max(images, 1)), low), high)


def _largest_divisor(of: int, most: int) -> int:
    return max(n for n in range(1, min(of, most) + 1) if of % n == 0)


# In this order, since later ones look at earlier ones.
BY_DEVICE: Mapping[str, Callable[[ConfigDict], Any]] = {
    "data.size": lambda cfg: _device().size,
    "net.width": lambda cfg: _device().width,
    "views.*.crop": _crop,
    "views.*.crops": lambda cfg: (_crop(cfg),),
}
BY_IMAGES: Mapping[str, Callable[[ConfigDict, int], Any]] = {
    "train.batch_size": _batch_size,
    "train.epochs": _epochs,
    "optim.lr": lambda cfg, n: 1e-3 if cfg.train.epochs * (n // cfg.train.batch_size) < SHORT_RUN else 3e-4,
    "optim.schedule": lambda cfg, n: ((cfg.train.epochs * 4 // 5, 0.2),),
    "method.init_epoch": lambda cfg, n: cfg.train.epochs * 3 // 4,  # features first
    "method.refine_epoch": lambda cfg, n: cfg.train.epochs,  # never
    "method.queue_instances": lambda cfg, n: max(n // cfg.train.batch_size, 1) * cfg.train.batch_size,
    "method.group": lambda cfg, n: _largest_divisor(cfg.train.batch_size // cfg.train.accumulate, 128),
}


def by_device(cfg: ConfigDict) -> None:
    """Chooses what is open and depends on the device alone."""
    for pattern, choose in BY_DEVICE.items():
        for section, key in _open(cfg, pattern):
            _set(section, key, choose(cfg))


def by_images(cfg: ConfigDict, images: int) -> None:
    """Chooses what is open for so many images; `by_device` has been called.

    Raises:
      ConfigError: a setting is open that must be given.
    """
    for pattern, choose in BY_IMAGES.items():
        for section, key in _open(cfg, pattern):
            _set(section, key, choose(cfg, images))
    for name, value in config.flatten(cfg.to_dict()).items():
        if value is None:
            raise ConfigError(f"{name} is None, which is chosen for nobody; give a value")


def as_kept(cfg: ConfigDict, kept: ConfigDict) -> None:
    """Gives what is open the value that a run has chosen when it began."""
    flat = config.flatten(kept.to_dict())
    for name, value in config.flatten(cfg.to_dict()).items():
        if value is None and name in flat:
            *above, key = name.split(".")
            section = cfg
            for part in above:
                section = section[part]
            _set(section, key, flat[name])


def _open(cfg: ConfigDict, pattern: str) -> list[tuple[ConfigDict, str]]:
    """The sections that have an open setting of that name; `*` is any section."""
    first, *middle, key = pattern.split(".")
    section = cfg.get(first)
    sections = [*section.values()] if middle and isinstance(section, ConfigDict) else [section]
    return [(s, key) for s in sections if isinstance(s, ConfigDict) and key in s and s[key] is None]


def _set(section: ConfigDict, key: str, value: Any) -> None:
    with section.ignore_type():
        section[key] = value
