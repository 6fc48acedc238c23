"""ResNet-18, 34 and 50 (He et al., CVPR 2016, arXiv:1512.03385), layer by layer as torchvision has them.

stem/conv  stem/bn
stage{1..4}_block{1..n}/conv{1..}  bn{1..}  shortcut_conv  shortcut_bn
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxclust.nets.batch_norm import BatchNorm
from jaxclust.nets.layers import conv, kaiming_fan_out
from jaxclust.nets.pooling import max_pool

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # blocks in each stage
STEMS = {"imagenet": (7, 2, 3), "cifar": (3, 1, None), "mmdc": (3, 1, 2)}  # convolution, its stride, max pool


class Stem(nn.Module):
    """Convolution, BN, ReLU and, for some, max pooling: [B, H, W, C] -> [B, H', W', width]."""

    kind: str
    width: int
    conv: Callable[..., nn.Conv]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size, stride, pool = STEMS[self.kind]
        x = self.conv(self.width, size, stride, name="conv")(x)
        x = nn.relu(BatchNorm(name="bn")(x, train))
        if pool:
            x = max_pool(x, pool, 2, 1)
        return x


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, or as a bottleneck 1x1, 3x3 and 1x1 to four times the channels.

    The stride is on the first 3x3, as in torchvision (v1.5; the paper strides a bottleneck's first 1x1).
    """

    width: int
    stride: int
    bottleneck: bool
    conv: Callable[..., nn.Conv]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:  # [B, H, W, C] -> [B, H', W', C']
        layers: tuple[tuple[int, int, int], ...]
        if self.bottleneck:
            layers = (self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)
        else:
            layers = (self.width, 3, self.stride), (self.width, 3, 1)
        h = x
        for i, layer in enumerate(layers, 1):
            h = self.conv(*layer, name=f"conv{i}")(h)
            h = BatchNorm(name=f"bn{i}")(h, train)
            if i < len(layers):
                h = nn.relu(h)
        if x.shape != h.shape:
            x = self.conv(h.shape[-1], 1, self.stride, name="shortcut_conv")(x)
            x = BatchNorm(name="shortcut_bn")(x, train)
        return nn.relu(x + h)


class ResNet(nn.Module):
    """torchvision's ResNet without its last layer; the fields are those of `Settings`, with a real dtype."""

    depth: int
    stem: str
    width: int = 64
    dtype: Any = jnp.float32
    remat: bool = False
    kernel_init: Callable = kaiming_fan_out

    @property
    def features(self) -> int:
        """D, the width of the embedding."""
        last = self.width * 2 ** (len(BLOCKS[self.depth]) - 1)
        return 4 * last if self.depth == 50 else last

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Embeds images.

        Args:
          x: images, f32[B, H, W, C].
          train: whether batch normalisation uses and records the batch's statistics.

        Returns:
          h: f32[B, D], the average of the last feature map.
        """
        layer = functools.partial(conv, dtype=self.dtype, kernel_init=self.kernel_init)
        block = nn.remat(Block, static_argnums=2) if self.remat else Block
        x = Stem(self.stem, self.width, layer, name="stem")(x, train)
        for i, blocks in enumerate(BLOCKS[self.depth]):
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                name = f"stage{i + 1}_block{j + 1}"
                x = block(self.width * 2**i, stride, self.depth == 50, layer, name=name)(x, train)
        return x.astype(jnp.float32).mean((1, 2))


def make(settings: Any, dtype: Any, kernel_init: Callable) -> ResNet:
    """The network that the section `net` describes."""
    s = settings
    return ResNet(s.depth, s.stem, s.width, dtype=dtype, remat=s.remat, kernel_init=kernel_init)
