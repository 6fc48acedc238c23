"""Backbones and heads: ResNet-18, 34 and 50 (He et al., CVPR 2016, arXiv:1512.03385), a small VGG, and a two-layer MLP.

The papers' numbers come from PyTorch, so layers, paddings, initialisation and batch normalisation are
torchvision's. Parameters and statistics are float32; `dtype` is what convolutions and products compute in.

    stem/conv  stem/bn
    stage{1..4}_block{1..n}/conv{1..}  bn{1..}  shortcut_conv  shortcut_bn

    block{1..4}/conv  bn                                                        of the VGG
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # blocks in each stage
STEMS = {"imagenet": (7, 2, 3), "cifar": (3, 1, None), "mmdc": (3, 1, 2)}  # convolution, its stride, max pool
VGG_DEPTH, VGG_STEM = 4, "vgg"
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


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
        what it was (see `bench.memory`); compiled for CPU nothing is saved.
      init_from: a file of weights or a run's workdir whose backbone training starts from; "" for none.

    Raises:
      ValueError: if a value is none of these.
    """

    depth: int
    stem: str
    width: int
    dtype: str
    remat: bool
    init_from: str

    def __post_init__(self):
        choices = {
            "depth": (VGG_DEPTH, *BLOCKS),
            "stem": (*STEMS, VGG_STEM),
            "dtype": DTYPES,
            "remat": (True, False),
        }
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                *most, last = map(str, allowed)
                raise ValueError(f"net.{name} is {value}; choose {', '.join(most)} or {last}")
        if (self.depth == VGG_DEPTH) != (self.stem == VGG_STEM):
            raise ValueError(
                f"net.depth is {self.depth} and net.stem is {self.stem}; {VGG_DEPTH} and {VGG_STEM} go together only"
            )
        if not isinstance(self.width, int) or self.width < 1:
            raise ValueError(f"net.width is {self.width}; choose a whole number of channels, at least 1")


def backbone(settings: Settings, kernel_init: Callable = kaiming_fan_out) -> "ResNet | VGG":
    """The network that the `net` section of a config describes."""
    fields = dataclasses.asdict(settings) | {"dtype": DTYPES[settings.dtype], "kernel_init": kernel_init}
    del fields["init_from"]  # what it is started from is no part of it
    if settings.stem == VGG_STEM:
        del fields["depth"], fields["stem"]
        return VGG(**fields)
    return ResNet(**fields)


class BatchNorm(nn.Module):
    """Batch normalisation as PyTorch has it (Ioffe & Szegedy, 2015, arXiv:1502.03167).

    It normalises with the biased variance and averages the unbiased one. `flax.linen.BatchNorm` averages the
    biased one, which the last stage of a small image notices: there a channel has few values.
    Statistics are float32 and of the global batch: under jit a mean over a sharded axis is the global mean.
    """

    momentum: float = 0.9  # weight of the running average; PyTorch calls 1 - 0.9 the momentum
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x, train: bool):
        """Normalises each channel.

        Args:
          x: [..., C].
          train: whether to use and record the batch's statistics, rather than the running ones.

        Returns:
          [..., C] in the dtype of x.

        Raises:
          ValueError: in training, if a channel has one value, which has no variance.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)

        h = x.astype(jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = h.mean(axes)
            # One pass over h. Rounding costs about 1e-7 (mean / std)^2 of the variance, and can fall below 0.
            var = jnp.maximum((h * h).mean(axes) - mean * mean, 0)
            if not self.is_initializing():
                n = x.size // x.shape[-1]
                if n == 1:
                    raise ValueError(f"batch normalisation of shape {x.shape}: train with a larger batch or image")
                running_mean.value += (1 - self.momentum) * (mean - running_mean.value)
                running_var.value += (1 - self.momentum) * (var * (n / (n - 1)) - running_var.value)
        y = (h - mean) * (scale * jax.lax.rsqrt(var + self.eps)) + bias
        return y.astype(x.dtype)


def conv(channels: int, size: int, stride: int = 1, **kwargs) -> nn.Conv:
    """A convolution without bias, padded alike on both sides ("SAME" is not, at stride 2)."""
    return nn.Conv(channels, (size, size), stride, padding=size // 2, use_bias=False, **kwargs)


class Stem(nn.Module):
    """Convolution, BN, ReLU and, for some, max pooling: [B, H, W, C] -> [B, H', W', width]."""

    kind: str
    width: int
    conv: Callable[..., nn.Conv]

    @nn.compact
    def __call__(self, x, train: bool):
        size, stride, pool = STEMS[self.kind]
        x = self.conv(self.width, size, stride, name="conv")(x)
        x = nn.relu(BatchNorm(name="bn")(x, train))
        if pool:
            x = nn.max_pool(x, (pool, pool), strides=(2, 2), padding=((1, 1), (1, 1)))
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
    def __call__(self, x, train: bool):  # [B, H, W, C] -> [B, H', W', C']
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
    def __call__(self, x, train: bool):
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


class ConvBlock(nn.Module):
    """Convolution, BN and ReLU: [B, H, W, C] -> [B, H, W, width]."""

    width: int
    conv: Callable[..., nn.Conv]

    @nn.compact
    def __call__(self, x, train: bool):
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
    def __call__(self, x, train: bool):
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
            x = nn.max_pool(x, (window, window), (stride, stride))
        return x.astype(jnp.float32).reshape(x.shape[0], -1)


class Linear(nn.Module):
    """A linear layer that starts as `torch.nn.Linear` does, weight and bias uniform in +-1/sqrt(D).

    The papers' heads were trained from that start. Its weights have a third of the variance of Flax's default
    (LeCun normal), and its bias is not zero.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h):  # [B, D] -> dtype[B, features]
        bound = h.shape[-1] ** -0.5
        init = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        kernel = self.param("kernel", init, (h.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        h, kernel, bias = (a.astype(self.dtype) for a in (h, kernel, bias))
        return h @ kernel + bias


class MLP(nn.Module):
    """Linear, ReLU, linear: the papers' projection head (hidden D, out 128) and cluster head (out K)."""

    hidden: int
    out: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h):  # f32[B, D] -> f32[B, out]
        h = nn.relu(Linear(self.hidden, self.dtype, name="linear1")(h))
        return Linear(self.out, self.dtype, name="linear2")(h).astype(jnp.float32)
