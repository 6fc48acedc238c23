"""EfficientNet-Lite0 (Tan and Le, ICML 2019, arXiv:1905.11946), in TensorFlow's edition for small devices.

Beside the paper's B0 it has no squeeze-and-excitation, and ReLU6 in place of Swish. Maps are padded as TensorFlow pads
them: at stride 2 the odd row and column are at the end.

stem/conv  stem/bn
stage{1..7}_block{1..n}/expand_conv  expand_bn  depthwise_conv  depthwise_bn  project_conv  project_bn
stage8/conv  stage8/bn
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from jaxclust.nets.batch_norm import BatchNorm
from jaxclust.nets.convolution import convolve
from jaxclust.nets.layers import kaiming_fan_out

WIDTH = 32  # channels of the published stem
EPS = 1e-3


class Stage(NamedTuple):
    """Blocks alike, of which the first alone has the stride."""

    taps: int
    stride: int
    expansion: int
    channels: int
    blocks: int


STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
LAST = 1280


def _conv(x: Array, channels: int, taps: int, stride: int, depthwise: bool, name: str, **how: Any) -> nn.Conv:
    """A convolution without bias of maps as large as x, [B, H, W, C] -> [B, H / stride, W / stride, channels]."""
    padding = lax.padtype_to_pads(x.shape[1:3], (taps, taps), (stride, stride), "SAME")
    groups = x.shape[-1] if depthwise else 1
    return nn.Conv(
        channels,
        (taps, taps),
        stride,
        padding=padding,
        use_bias=False,
        feature_group_count=groups,
        conv_general_dilated=convolve,
        name=name,
        **how,
    )


class Conv(nn.Module):
    """Convolution, BN and ReLU6: [B, H, W, C] -> [B, H', W', channels]."""

    channels: int
    taps: int
    stride: int
    dtype: Any
    kernel_init: Callable

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        how = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        x = _conv(x, self.channels, self.taps, self.stride, False, "conv", **how)(x)
        return nn.relu6(BatchNorm(eps=EPS, name="bn")(x, train))


class Block(nn.Module):
    """Inverted residual: to `expansion` times the channels, a convolution of each, and back without a nonlinearity."""

    channels: int
    taps: int
    stride: int
    expansion: int
    dtype: Any
    kernel_init: Callable

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:  # [B, H, W, C] -> [B, H', W', channels]
        how = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        h, inner = x, x.shape[-1] * self.expansion
        if self.expansion != 1:
            h = _conv(h, inner, 1, 1, False, "expand_conv", **how)(h)
            h = nn.relu6(BatchNorm(eps=EPS, name="expand_bn")(h, train))
        h = _conv(h, inner, self.taps, self.stride, True, "depthwise_conv", **how)(h)
        h = nn.relu6(BatchNorm(eps=EPS, name="depthwise_bn")(h, train))
        h = _conv(h, self.channels, 1, 1, False, "project_conv", **how)(h)
        h = BatchNorm(eps=EPS, name="project_bn")(h, train)
        return x + h if x.shape == h.shape else h


class EfficientNet(nn.Module):
    """EfficientNet-Lite0 without its last layer.

    Args:
      width: channels of the stem, 32 as published; all others are in proportion.
    """

    width: int = WIDTH
    dtype: Any = jnp.float32
    remat: bool = False
    kernel_init: Callable = kaiming_fan_out

    def scaled(self, channels: int) -> int:
        return max(channels * self.width // WIDTH, 1)

    @property
    def features(self) -> int:
        """D, the width of the embedding."""
        return self.scaled(LAST)

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Embeds images.

        Args:
          x: f32[B, H, W, C], standardised with mean 127 / 255 and deviation 128 / 255 as the published weights expect.
          train: whether batch normalisation uses and records the batch's statistics.

        Returns:
          h: f32[B, D], the average of the last feature map.
        """
        how = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        block = nn.remat(Block, static_argnums=2) if self.remat else Block
        x = Conv(self.width, 3, 2, name="stem", **how)(x, train)
        for i, stage in enumerate(STAGES, 1):
            for j in range(stage.blocks):
                stride = stage.stride if j == 0 else 1
                fields = (self.scaled(stage.channels), stage.taps, stride, stage.expansion)
                x = block(*fields, name=f"stage{i}_block{j + 1}", **how)(x, train)
        x = Conv(self.features, 1, 1, name="stage8", **how)(x, train)
        return x.astype(jnp.float32).mean((1, 2))


def make(settings: Any, dtype: Any, kernel_init: Callable) -> EfficientNet:
    """The network that the section `net` describes."""
    return EfficientNet(settings.width, dtype=dtype, remat=settings.remat, kernel_init=kernel_init)
