"""Networks of images: `backbone` makes the one that a config describes, found by its kind.

Parameters and statistics are float32; `dtype` is what convolutions and products compute in.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxclust.nets.batch_norm import BatchNorm
from jaxclust.nets.heads import MLP, Linear
from jaxclust.nets.layers import kaiming_fan_in, kaiming_fan_out
from jaxclust.nets.resnet import BLOCKS, STEMS, ResNet
from jaxclust.nets.vgg import VGG, VGG_DEPTH, VGG_STEM
from jaxclust.run import plugins, sharding
from jaxclust.run.errors import ConfigError
from jaxclust.run.schema import option

__all__ = [
    "BLOCKS",
    "DTYPES",
    "MLP",
    "STEMS",
    "VGG",
    "BatchNorm",
    "Linear",
    "ResNet",
    "Settings",
    "backbone",
    "embed",
    "kaiming_fan_in",
    "kaiming_fan_out",
    "start",
]

SHARED = ("resnet", "vgg")  # the kinds that depth and stem tell apart
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The `net` section of a config.

    Args:
      depth: 18, 34 or 50 for a ResNet; 4 for the small VGG.
      stem: "imagenet" (7x7/2, 3x3/2 max pool), "cifar" (3x3) or "mmdc" (3x3, 2x2/2 max pool); "vgg" for the VGG.
      width: channels of the first stage; 64 is the standard ResNet, 32 MMDC's VGG.
      dtype: "float32" or "bfloat16", for computing.
      remat: keep only each block's input and compute the block again in the backward pass, for accelerators short
        of memory. Compiled for a GPU, the temporary memory of ResNet-34's steps in float32 falls to 0.31 to 0.40 of
        what it was (see `--mode=bench --memory`); compiled for CPU nothing is saved.
      init_from: a file of weights or a run's workdir whose backbone training starts from; "" for none.
      kind: of network, a file of this folder such as "resnet", or with dots the full name of any module that can be
        imported and has `make(settings, dtype, kernel_init) -> flax.linen.Module`, whose call takes (x, train) and
        whose `features` and `dtype` say what comes out; "" is "resnet", or "vgg" where the stem is.

    Raises:
      ConfigError: depth and stem do not go together.
    """

    depth: int
    stem: str
    width: int = option(at_least=1)
    dtype: str = option("float32", choices=DTYPES)
    remat: bool = False
    init_from: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("", *SHARED):  # what depth and stem mean is then that network's to say
            return
        for name, known in (("depth", (VGG_DEPTH, *BLOCKS)), ("stem", (*STEMS, VGG_STEM))):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"net.{name} is {value!r}; choose one of {', '.join(map(str, known))}")
        if (self.depth == VGG_DEPTH) != (self.stem == VGG_STEM):
            raise ConfigError(
                f"net.depth is {self.depth} and net.stem is {self.stem}; {VGG_DEPTH} and {VGG_STEM} go together only"
            )
        meant = "vgg" if self.stem == VGG_STEM else "resnet"
        if self.kind not in ("", meant):
            raise ConfigError(
                f"net.kind is {self.kind!r}, but net.depth {self.depth} and net.stem {self.stem} are those of {meant}; "
                f"set all three"
            )


def backbone(settings: Settings, kernel_init: Callable = kaiming_fan_out) -> nn.Module:
    """The network that the `net` section of a config describes.

    Raises:
      ConfigError: there is no such kind.
    """
    kind = settings.kind or ("vgg" if settings.stem == VGG_STEM else "resnet")
    return plugins.load(__name__, kind, "net.kind").make(settings, DTYPES[settings.dtype], kernel_init)


def start(net: nn.Module, key: jax.Array, size: int, channels: int) -> tuple[Any, Any]:
    """Parameters and batch-normalisation statistics of a network of images, before it has seen any."""
    variables = net.init(key, jnp.zeros((1, size, size, channels)), train=False)
    return variables["params"], variables["batch_stats"]


def embed(net: nn.Module, params: Any, stats: Any, x: jax.Array, train: bool, parts: int = 1) -> tuple[jax.Array, Any]:
    """f32[B, H, W, C] -> h f32[B, D], and the statistics after it: of the batch in training, else as they were.

    With `parts` the batch goes through the network in so many, one after another, and for the gradient once more, so
    that the activations of one alone lie in memory while a loss still sees all of h. Batch normalisation then sees a
    part at a time.
    """

    def once(stats: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        h, new = net.apply({"params": params, "batch_stats": stats}, x, train=train, mutable=["batch_stats"])
        return new["batch_stats"], h

    if parts == 1:
        stats, h = once(stats, x)
        return h, stats
    stats, h = jax.lax.scan(jax.checkpoint(once), stats, sharding.split(x, parts))
    return sharding.join(h), stats
