"""The small VGG of MMDC's MNIST experiments: four blocks of a convolution each.

block{1..4}/conv  bn
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

VGG_DEPTH, VGG_STEM = 4, "vgg"


class ConvBlock(nn.Module):
    """Convolution, BN and ReLU: [B, H, W, C] -> [B, H, W, width]."""

    width: int
    conv: Callable[..., nn.Conv]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.relu(BatchNorm(name="bn")(self.conv(self.width, 3, name="conv")(x), train))


class VGG(nn.Module):
    """MMDC's network for MNIST: four times convolution, BN, ReLU and max pool, the last map flattened.

    The last pool leaves 2x2 places whatever the size of the image, so that the width of the embedding is a fact of
    the network; at MMDC's 32 pixels it is a 2x2 pool as the others.
    """

    width: int = 32
    dtype: Any = jnp.float32
    remat: bool = False
    kernel_init: Callable = kaiming_fan_out

    @property
    def features(self) -> int:
        """D, the width of the embedding."""
        return 2 * 2 * 8 * self.width

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Embeds images.

        Args:
          x: square images, f32[B, H, H, C].
          train: whether batch normalisation uses and records the batch's statistics.

        Returns:
          h: f32[B, D].

        Raises:
          ValueError: an image is smaller than 16 pixels.
        """
        if min(x.shape[1:3]) < 16:
            raise ValueError(f"the images are {x.shape[1]} x {x.shape[2]}; the VGG takes 16 pixels or more")
        layer = functools.partial(conv, dtype=self.dtype, kernel_init=self.kernel_init)
        block = nn.remat(ConvBlock, static_argnums=2) if self.remat else ConvBlock
        for i in range(4):
            x = block(self.width * 2**i, layer, name=f"block{i + 1}")(x, train)
            stride = 2 if i < 3 else x.shape[1] // 2
            window = 2 if i < 3 else x.shape[1] - stride
            x = max_pool(x, window, stride, 0)
        return x.astype(jnp.float32).reshape(x.shape[0], -1)


def make(settings: Any, dtype: Any, kernel_init: Callable) -> VGG:
    """The network that the section `net` describes."""
    return VGG(settings.width, dtype=dtype, remat=settings.remat, kernel_init=kernel_init)
